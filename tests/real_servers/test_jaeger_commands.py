"""`restore` and `doctor` on a real Jaeger, with each kind of storage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.jaeger import Jaeger, running_jaeger
from tests.workplace import Workplace, answer_of, journal_events

pytestmark = pytest.mark.real_server

HAND_WRITTEN = Path(__file__).resolve().parent.parent / "data" / "legacy"


@pytest.fixture(params=["memory", "badger"])
def jaeger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Jaeger]:
    with running_jaeger(tmp_path / "jaeger", request.param) as running:
        yield running


def test_sessions_are_restored_by_window_and_by_name(jaeger: Jaeger, tmp_path: Path) -> None:
    old = shutil.copytree(HAND_WRITTEN, tmp_path / "old")
    place = Workplace(tmp_path / "place", {"otel": jaeger.section()})
    place.backfill(old)
    assert place.verdicts()["otel"]["exit_code"] == 0
    told = answer_of(place.call("restore", "--from", "otel", "--out", tmp_path / "new", "--json"))
    assert told["totals"] == {}
    assert journal_events(tmp_path / "new") == journal_events(old)
    place.call("restore", "--from", "otel", "--out", tmp_path / "one", "--session", "gardener@3", "--session", "nobody")
    assert journal_events(tmp_path / "one").keys() == {"gardener@3"}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_doctor_finds_it_well_when_it_is_new_and_when_it_holds_something(
    jaeger: Jaeger, tmp_path: Path, protocol: str
) -> None:
    endpoint = jaeger.otlp_grpc if protocol == "grpc" else jaeger.otlp_http
    section = jaeger.section() | {"protocol": protocol, "endpoint": endpoint, "insecure": True}
    place = Workplace(tmp_path / "place", {"otel": section})
    for is_known in (False, True):
        ran = place.call("doctor", "--json")
        checks = {check["name"]: check for check in json.loads(ran.stdout)["examinations"][1]["checks"]}
        assert (ran.returncode, {check["status"] for check in checks.values()}) == (0, {"ok", "skip"}), ran.stdout
        assert ("does not have yet" in checks["reader"]["found"]) is not is_known
        assert checks["reader clock"]["status"] == "ok"
        assert checks["probe read"]["status"] == "ok"
