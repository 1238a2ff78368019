"""How often a backend may be asked: counted against a clock that the test moves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend
from tests.delivery.rig import Rig, write_session
from tests.waiting import until
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.shipper import Shipper


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def requests_within(seconds: float, max_rps: float, step_s: float) -> int:
    """How many requests a greedy caller, which asks every `step_s`, gets to send."""
    clock = Clock()
    pace = FullSpeed(max_rps, clock)
    sent = 0
    for _ in range(round(seconds / step_s)):
        if pace.request_wait_s() == 0:
            pace.request()
            sent += 1
        clock.now += step_s
    return sent


@pytest.mark.parametrize(("max_rps", "most"), [(4, 40), (1, 10), (0.5, 5), (0.25, 3)])
def test_a_greedy_caller_sends_no_more_than_so_many_requests_a_second(max_rps: float, most: int) -> None:
    assert requests_within(10, max_rps, step_s=1 / 64) == most


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    pace = FullSpeed(2, clock)
    pace.request()
    clock.now += 60
    assert pace.request_wait_s() == 0
    pace.request()
    assert pace.request_wait_s() == 0.5


def test_without_a_limit_nothing_is_put_off() -> None:
    pace = FullSpeed()
    pace.request()
    assert pace.request_wait_s() == 0


def test_a_shipper_sends_one_request_an_interval_and_reads_no_further_than_it_may_send(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(max_request_spans=2))
    write_session(rig.trace_dir, "a", turns=10)  # a session, ten turns, ten tools: 21 spans, 11 requests
    clock = Clock()
    shipper = Shipper(rig.settings.sinks[0], rig.trace_dir, FullSpeed(0.1, clock))

    def has_sent(number: int) -> bool:
        shipper.round()
        return len(rig.backend.answers.requests) == number

    for number in range(1, 12):
        until(partial(has_sent, number), "one is sent")
        for _ in range(5):
            shipper.round()
        clock.now += 9.9
        assert 0 < shipper.round().wait_s <= 0.5
        assert len(rig.backend.answers.requests) == number
        state = rig.state()
        assert state.in_flight_events(1) <= 4, "what waits is still in the journal"
        state.close()
        clock.now += 0.1001
    until(lambda: shipper.round().is_done, "everything is delivered")
    shipper.close()
    assert len(rig.stored_names()) == 21
