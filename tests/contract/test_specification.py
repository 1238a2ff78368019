"""`docs/sink-contract.md` and the contract say the same: each MUST has its test, and each test its sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracebridge.sink import Capabilities
from tracebridge.testing import Faults
from tracebridge.testing.contract import BackendUnderTest, SinkContract
from tracebridge.testing.contract.backend import ContractError

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "sink-contract.md").read_text(encoding="utf-8").partition("## Running it")[0]
CASES = {name for name in dir(SinkContract) if name.startswith("test_")}


def named() -> set[str]:
    return set(re.findall(r"`(test_\w+)`", TEXT))


def test_every_case_that_the_specification_names_exists() -> None:
    assert named() - CASES == set()


def test_every_case_has_its_sentence() -> None:
    assert len(CASES) > 30
    assert CASES - named() == set()


def test_every_must_names_the_case_that_checks_it() -> None:
    points = re.findall(r"^\* (.*?)(?=^\* |^## |^$)", TEXT, re.MULTILINE | re.DOTALL)
    musts = [point for point in points if "MUST" in point]
    unchecked = [point for point in musts if "`test_" not in point and "No test can tell" not in point]
    assert len(musts) > 30
    assert unchecked == []


class Anything:
    """A sink type of which nothing is asked."""

    def capabilities(self, settings: object) -> Capabilities:
        return Capabilities(mapping_version=1, max_request_bytes=1)


@pytest.mark.parametrize(
    ("unsupported", "words"),
    [({"partials": "no such case"}, "no case is called partials"), ({"partial": " "}, "say why for partial")],
)
def test_a_case_that_is_left_out_must_exist_and_have_a_reason(unsupported: dict[str, str], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        BackendUnderTest(
            sink_type=Anything(),  # type: ignore[arg-type]  # all that the check needs
            settings=None,  # type: ignore[arg-type]
            faults=Faults(),
            stored=list,
            timeout_s=1.0,
            unsupported=unsupported,  # type: ignore[arg-type]
        )
