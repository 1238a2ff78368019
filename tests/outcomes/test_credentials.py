"""Credentials that are refused: the sink pauses, says so once, and loses nothing."""

from __future__ import annotations

import pytest

from tests.otlp.scripted_server import http_answer, slowly
from tests.outcomes.backend import ACCEPT, Reply, answer
from tests.outcomes.conftest import HttpTrial
from tests.outcomes.trial import FEW_SPANS, TOKEN

MANY = 5


@pytest.mark.parametrize("status", [401, 403, 407])
def test_refused_credentials_pause_the_sink_after_one_request(http_trial: HttpTrial, status: int) -> None:
    trial, backend = http_trial(lambda _: answer(status, "text/plain", f"Bearer {TOKEN}\r\nis unknown".encode()))
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("paused"), "a pause")
    trial.write("two")
    for request in range(20):
        assert not trial.shipper.round(request).is_done
        trial.shipper.wait(0.0)
    assert len(backend.requests) == 1
    assert trial.condition() == f"paused: {backend.url}/v1/traces: HTTP {status}: *** is unknown"
    assert trial.said() == [f"sink otel: {trial.condition()}"]
    assert trial.fates() == ["unsent"]
    assert trial.account().in_flight_spans == FEW_SPANS
    assert trial.dead() == {}

    # somebody corrects them, and starts again
    trial.close()
    backend.rule = lambda _: ACCEPT
    trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("possible_repeats") == 0


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_cost_two_requests_at_most_however_much_there_is_to_send(
    http_trial: HttpTrial, status: int
) -> None:
    trial, backend = http_trial(lambda _: Reply(slowly(http_answer(status), 0.2)))
    for number in range(MANY):
        trial.write(f"session-{number}", turns=1, result="x" * 1_500_000)
    trial.ship_until(lambda: trial.condition().startswith("paused") and "unknown" not in trial.fates(), "a pause")
    assert len(backend.requests) <= 2
    assert len(trial.said()) == 1

    trial.close()
    backend.rule = lambda _: ACCEPT
    trial.ship()
    trial.assert_all_arrived_once()
