"""How long a backend in trouble is left alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from tests.outcomes.backend import answer, in_turn
from tests.outcomes.conftest import HttpTrial
from tests.outcomes.trial import TIMEOUT_S
from tests.waiting import grace_s
from tracebridge.delivery.backoff import LONGEST_ASKED_S, Backoff
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.shipper import Shipper

MOMENT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def http_date(seconds: float) -> str:
    return format_datetime(MOMENT + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("status", "headers", "asked_s"),
    [
        (429, ["Retry-After: 1"], 1.0),
        (503, ["Retry-After: 0.6"], 0.6),
        (503, [f"Retry-After: {http_date(1)}", f"Date: {http_date(0)}"], 1.0),
    ],
    ids=["429 in seconds", "503 in fractions", "503 as a date"],
)
def test_a_retry_after_that_is_longer_than_the_time_out_is_obeyed(
    http_trial: HttpTrial, status: int, headers: list[str], asked_s: float
) -> None:
    trial, backend = http_trial(in_turn([answer(status, "", b"", *headers)]), timeout=TIMEOUT_S)
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    first, second = (request.at for request in backend.requests)
    assert TIMEOUT_S < asked_s <= second - first < asked_s + grace_s()


@pytest.mark.parametrize("asked", ["999999999999", http_date(10**9)], ids=["in seconds", "as a date"])
def test_an_absurd_retry_after_is_bounded(http_trial: HttpTrial, asked: str) -> None:
    reply = answer(503, "", b"", f"Retry-After: {asked}", f"Date: {http_date(0)}")
    trial, backend = http_trial(lambda _: reply)
    trial.write("one")
    trial.ship_until(lambda: trial.fates() == ["unsent"], "an answer")
    waits_s = trial.shipper.round().wait_s
    assert LONGEST_ASKED_S * 0.9 < waits_s <= LONGEST_ASKED_S
    trial.write("two")
    assert not trial.shipper.round(99).is_done
    assert len(backend.requests) == 1
    assert trial.condition().startswith("backing off: ")


@pytest.mark.parametrize(
    "asked",
    ["-5", "soon", "", "1e9", http_date(-3600), "Fri, 31 Dec 99999999999999 23:59:59 GMT", "9" * 400],
    ids=["negative", "a word", "empty", "exponent", "a date in the past", "no date", "no number"],
)
def test_a_retry_after_that_asks_for_nothing_is_passed_over(http_trial: HttpTrial, asked: str) -> None:
    reply = answer(503, "", b"", f"Retry-After: {asked}", f"Date: {http_date(0)}")
    trial, backend = http_trial(in_turn([reply]))
    trial.write("one")
    trial.ship(seconds=2.0)
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 2


def test_each_wait_is_twice_as_long_as_the_last_up_to_the_longest(http_trial: HttpTrial) -> None:
    trial, backend = http_trial(lambda _: answer(503))
    trial.write("one")
    backoff = Backoff(lambda: 1.0, first_s=0.02, longest_s=0.08)
    shipper = Shipper(trial.sink, trial.trace_dir, FullSpeed(), backoff=backoff)
    deadline = time.monotonic() + 10
    while len(backend.requests) < 6 and time.monotonic() < deadline:
        shipper.wait(min(shipper.round().wait_s, 0.01))
    shipper.close()
    waits_s = [later.at - earlier.at for earlier, later in pairwise(backend.requests)]
    for waited_s, least_s in zip(waits_s, [0.02, 0.04, 0.08, 0.08, 0.08], strict=True):
        assert waited_s >= least_s
    # were the last ones not capped, they would be 0.16 s and 0.32 s
    assert sum(waits_s) < 0.02 + 0.04 + 0.08 + 0.16 + 0.32


def test_success_makes_the_next_wait_short_again() -> None:
    backoff = Backoff(lambda: 1.0, first_s=1.0, longest_s=60.0)
    assert [backoff.failed() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    backoff.succeeded()
    assert backoff.failed() == 1.0


def test_waits_are_drawn_from_their_upper_half() -> None:
    assert [Backoff(lambda: 0.0, first_s=1.0).failed(), Backoff(lambda: 1.0, first_s=1.0).failed()] == [0.5, 1.0]
    drawn = {Backoff(first_s=1.0).failed() for _ in range(20)}
    assert len(drawn) > 10
    assert all(0.5 <= wait_s <= 1.0 for wait_s in drawn)
