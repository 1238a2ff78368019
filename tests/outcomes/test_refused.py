"""Requests that are refused for what they hold: the culprits are found and become dead letters, the others arrive."""

from __future__ import annotations

import pytest

from tests.outcomes.backend import ACCEPT, answer, where
from tests.outcomes.conftest import HttpTrial
from tests.outcomes.trial import FEW_SPANS, TOKEN

JSON = "application/json"


@pytest.mark.parametrize("status", [400, 422])
def test_one_refused_span_is_a_dead_letter_and_its_neighbours_arrive(http_trial: HttpTrial, status: int) -> None:
    body = f'{{"message": "no such\\nspan for {TOKEN}"}}'.encode()
    trial, backend = http_trial(where("poison", answer(status, JSON, body)))
    trial.write("bad", tool="poison", turns=1)
    trial.write("good", turns=16)
    trial.ship()
    (culprit,) = trial.owed_of("poison")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead() == {culprit: f"{backend.url}/v1/traces: HTTP {status}: no such span for ***"}
    assert trial.counter("possible_repeats") == 0
    # 36 spans are halved six times, and each half that holds it is refused once
    assert len(backend.requests) <= 1 + 2 * 6
    (line,) = trial.said_of_trouble()
    assert "a span was refused and is a dead letter now" in line
    assert trial.condition() == "idle: everything is delivered"


def test_spans_that_are_refused_far_apart_are_all_found(http_trial: HttpTrial) -> None:
    trial, _ = http_trial(where("poison", answer(400)))
    for number in range(3):
        trial.write(f"bad-{number}", tool="poison", turns=2)
        trial.write(f"good-{number}", turns=4)
    trial.ship()
    culprits = trial.owed_of("poison")
    assert len(culprits) == 6
    trial.assert_all_arrived_once(but_for=culprits)
    assert trial.dead().keys() == culprits


def test_a_backend_that_refuses_every_span_makes_each_a_dead_letter(http_trial: HttpTrial) -> None:
    trial, backend = http_trial(lambda _: answer(400, "text/plain", b"I take nothing"))
    trial.write("one")
    trial.ship()
    assert trial.dead().keys() == trial.owed().keys()
    assert all(reason.endswith("I take nothing") for reason in trial.dead().values())
    assert len(trial.said_of_trouble()) == 1, "it is said once, and not for each span"
    backend.rule = lambda _: ACCEPT
    trial.write("two")
    trial.ship()
    assert len(backend.stored) == FEW_SPANS
