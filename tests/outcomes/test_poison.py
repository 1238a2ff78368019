"""Spans at which the backend breaks, or hangs, while it takes all others: they are found, and nothing waits for them.

No answer says that such a span is to blame, so it takes a backend that accepts other requests meanwhile.
"""

from __future__ import annotations

import msgspec
import pytest

from tests.otlp.scripted_server import answering, dripping, hang, http_answer, reset
from tests.outcomes.backend import ACCEPT, Reply, answer, where
from tests.outcomes.conftest import HttpTrial
from tests.outcomes.trial import FEW_SPANS, PATIENT_S


class Breakage(msgspec.Struct, frozen=True):
    """How the backend breaks."""

    reply: Reply
    said: str
    timeout: float = PATIENT_S
    """That of the sink, in seconds."""


TIMEOUT_S = 0.2
BREAKAGES = {
    "500": Breakage(answer(500, "text/plain", b"panic"), "HTTP 500"),
    "502": Breakage(answer(502), "HTTP 502"),
    "hangs": Breakage(Reply(hang), "ReadTimeout", TIMEOUT_S),
    "drips": Breakage(Reply(dripping(b"", [b"H"] * 1000)), "ReadTimeout", TIMEOUT_S),
    "resets": Breakage(Reply(reset), "ReadError"),
    "cuts its answer off": Breakage(Reply(answering(http_answer(200, "", b"x")[:-1])), "RemoteProtocolError"),
}
EVERY = pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())


@EVERY
def test_what_breaks_the_backend_is_found_and_its_neighbours_arrive(http_trial: HttpTrial, breakage: Breakage) -> None:
    trial, backend = http_trial(where("poison", breakage.reply), timeout=breakage.timeout)
    # the very first request holds it: nothing was ever accepted before
    trial.write("bad", tool="poison", turns=2)
    trial.ship_until(lambda: len(backend.requests) > 1, "a second try")
    trial.write("good")
    (first, second) = culprits = trial.owed_of("poison")
    trial.ship_until(lambda: trial.dead().keys() == culprits, "dead letters")
    trial.ship()
    trial.assert_all_arrived_once(but_for=culprits)
    for culprit in (first, second):
        assert breakage.said in trial.dead()[culprit]


@pytest.mark.parametrize("breakage", [BREAKAGES["hangs"], BREAKAGES["drips"]], ids=["hangs", "drips"])
def test_others_arrive_while_the_culprit_is_looked_for(http_trial: HttpTrial, breakage: Breakage) -> None:
    trial, backend = http_trial(where("poison", breakage.reply), timeout=breakage.timeout)
    trial.write("bad", tool="poison", turns=4)
    trial.ship_until(lambda: len(backend.requests) > 1, "a second try")
    trial.write("good")
    good = {key for key, span in trial.owed().items() if span.session_id == "good"}
    trial.ship_until(lambda: good <= backend.stored.keys(), "the neighbours' arrival")
    assert trial.dead() == {}


@pytest.mark.parametrize("name", ["500", "resets"])
def test_without_anything_that_is_accepted_no_span_is_to_blame(http_trial: HttpTrial, name: str) -> None:
    trial, backend = http_trial(lambda _: BREAKAGES[name].reply)
    trial.write("one", tool="poison")
    trial.ship_until(lambda: len(backend.requests) > 20, "many tries")
    assert trial.dead() == {}
    backend.rule = lambda _: ACCEPT
    trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("confirmed_spans") == FEW_SPANS
