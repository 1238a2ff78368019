"""Answers that stand in a table, and what must follow each of them."""

from __future__ import annotations

import msgspec

from tests.outcomes.backend import Kept, Reply
from tests.outcomes.trial import FEW_SPANS, PATIENT_S, Trial


class Case(msgspec.Struct, frozen=True):
    """An answer, and what it tells."""

    name: str
    reply: Reply
    may_be_stored: bool
    """Whether the request may have been stored all the same, so that sending it again may repeat it."""
    said: str
    """What the log says of it, beside where."""
    timeout: float = PATIENT_S
    """That of the sink, in seconds."""


def assert_sent_again_until_taken(trial: Trial, backend: Kept, case: Case) -> None:
    """Ship a session to a backend that gives the case's answer twice, cannot be read back, and then takes all."""
    trial.write("one")
    trial.ship_until(lambda: len(backend.requests) > 1, "a second request")
    trial.ship_until(lambda: trial.condition().startswith("backing off"), "a condition")
    assert case.said in trial.condition()
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 3
    assert len({request.body for request in backend.requests}) == 1
    assert trial.dead() == {}
    assert trial.counter("confirmed_spans") == FEW_SPANS
    assert trial.counter("possible_repeats") == (2 * FEW_SPANS if case.may_be_stored else 0)
    assert trial.condition() == "idle: everything is delivered"
    # however often it happens, it is said once; a loaded machine may be in trouble of another kind, too
    lines = trial.said_of_trouble()
    assert len(set(lines)) == len(lines)
    (line,) = [line for line in lines if case.said in line]
    assert line.startswith("sink otel: backing off: ")
    assert trial.said()[-1] == "sink otel: works again"
