"""Requests that are too large: they are split by bytes, and a span that is too large on its own is cut to fit."""

from __future__ import annotations

from math import ceil, log2

import pytest

from tests.outcomes.backend import ACCEPT, Reply, Rule, answer
from tests.outcomes.conftest import HttpTrial
from tests.outcomes.trial import TOKEN

JSON = "application/json"
LIMIT = 20_000

REFUSALS = {
    "413": answer(413),
    "413 with a Retry-After": answer(413, "", b"", "Retry-After: 0"),
    "413 with a web page": answer(413, "text/html", b"<html>413 Request Entity Too Large</html>"),
    "400 that says so in text": answer(400, "text/plain", b"http: request body too large"),
    "400 that says so in JSON": answer(400, JSON, b'{"error": "Payload exceeds the maximum size of 20 KB"}'),
}


def limited(refusal: Reply, limit: int = LIMIT) -> Rule:
    return lambda request: refusal if len(request.body) > limit else ACCEPT


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_request_that_is_too_large_is_split_until_it_fits(http_trial: HttpTrial, refusal: Reply) -> None:
    trial, backend = http_trial(limited(refusal))
    trial.write("one", turns=10, result="x" * 5_000)
    trial.ship()
    trial.assert_all_arrived_once()
    assert trial.dead() == {}
    assert trial.said() == []
    assert trial.counter("possible_repeats") == 0
    whole = len(backend.requests[0].body)
    assert whole > 2 * LIMIT
    # no more pieces than halving needs
    assert len(backend.requests) <= 2 * 2 ** ceil(log2(whole / LIMIT) + 1)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_span_that_is_too_large_on_its_own_is_cut_and_marked(http_trial: HttpTrial, refusal: Reply) -> None:
    trial, backend = http_trial(limited(refusal))
    trial.write("huge", tool="long", turns=1, result="x" * 100_000)
    trial.write("small")
    trial.ship()
    trial.assert_all_arrived_once()
    assert trial.dead() == {}
    (request,) = (request for request in backend.requests if request.holds("long") and len(request.body) <= LIMIT)
    assert request.holds("…[cut ")


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_span_that_is_too_large_whatever_is_cut_from_it_is_a_dead_letter(
    http_trial: HttpTrial, refusal: Reply
) -> None:
    trial, _ = http_trial(lambda request: refusal if request.holds("long") else ACCEPT)
    trial.write("huge", tool="long", turns=1, result="x" * 100_000)
    trial.write("small")
    trial.ship()
    (culprit,) = trial.owed_of("long")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead().keys() == {culprit}
    assert TOKEN not in trial.dead()[culprit]
