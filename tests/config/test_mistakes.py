from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.conftest import Load, Mistakes
from tests.config.sink_types import registry
from tracebridge.config import examine, load
from tracebridge.errors import ConfigurationError

_, *BLOCKS = re.split(r"^%% ", (Path(__file__).parent / "mistakes.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_a_mistake_is_told_once_with_its_place_and_what_to_do(mistakes: Mistakes, block: str) -> None:
    told, _, text = block.partition("\n")
    (mistake,) = mistakes(text, {"WORD": "word"})
    assert mistake.startswith("agent.yaml")
    assert told in mistake
    assert "; " in mistake


def test_a_control_character_is_told_with_its_line(mistakes: Mistakes) -> None:
    (mistake,) = mistakes("agent_trace:\n  release: '\a'")
    assert mistake == "agent.yaml, line 2: the file holds a character that YAML does not allow; remove it"


def test_all_mistakes_are_told_in_the_order_of_the_file(mistakes: Mistakes) -> None:
    found = mistakes(
        """
        agent_trace:
          sinks:
            collector: {key: 1}
            otel: {}
          sample_rate: 2
        """
    )
    assert [mistake.split(": ")[1] for mistake in found] == [
        "agent_trace.sinks.collector.key",
        "agent_trace.sinks.otel",
        "agent_trace.sample_rate",
    ]


def test_the_error_tells_the_first_mistake_and_how_many_more_there_are(load_yaml: Load) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_yaml("agent_trace:\n  enabled: maybe\n  sample_rate: 2\n  release: 1")
    assert str(raised.value) == (
        "agent.yaml, line 2: agent_trace.enabled: expected true or false, found text; write true or false "
        "(2 more: `tracebridge config check` tells all)"
    )


def test_a_mapping_has_paths_and_no_lines() -> None:
    with pytest.raises(ConfigurationError, match=r"^configuration: agent_trace\.sinks\.collector\.batch: expected a"):
        load(
            {"agent_trace": {"sinks": {"collector": {"key": "k", "batch": object()}}}},
            {},
            sink_types=registry(),
        )


def test_the_value_of_a_standard_variable_is_checked_too(mistakes: Mistakes) -> None:
    (mistake,) = mistakes("agent_trace: {sinks: {collector: {key: k}}}", {"COLLECTOR_TIMEOUT": "ten"})
    assert mistake == (
        "agent.yaml: agent_trace.sinks.collector.timeout: the value of the environment variable "
        "COLLECTOR_TIMEOUT is not a number above 0; correct the variable"
    )


def test_what_is_switched_off_is_still_checked_for_typing_errors(mistakes: Mistakes) -> None:
    (mistake,) = mistakes("agent_trace: {sinks: {collector: {enabled: false, hots: h}}}")
    assert "did you mean `host`?" in mistake


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"nowhere\.yaml: there is no such file; create it, or correct --config"
    ):
        load(tmp_path / "nowhere.yaml", {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    _, (mistake,) = examine(tmp_path, {})
    assert "the file cannot be read" in mistake.problem


def test_a_file_that_is_not_utf_8_says_in_which_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("agent_trace:\n  release: ü\n".encode("latin-1"))
    _, (mistake,) = examine(path, {})
    assert (mistake.line, mistake.problem) == (2, "the file is not UTF-8 text")
