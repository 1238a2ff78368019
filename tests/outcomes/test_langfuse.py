"""What LangFuse's own answers mean. It is read back for all that they leave open."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from tests.otlp.scripted_server import answering, hang, http_answer, reset
from tests.outcomes.backend import HttpBackend, Reply, Rule, answer, in_turn, keeps_all, where
from tests.outcomes.conftest import TrialWith
from tests.outcomes.trial import FEW_SPANS, PATIENT_S, TIMEOUT_S, Trial, langfuse
from tracebridge.devserver import DevServer

JSON = "application/json"
JOB = json.dumps({"name": "otel-ingestion-job", "id": "1", "payload": {"data": {"publicKey": "pk"}}}).encode()
ACCEPT = Reply(answering(http_answer(200, JSON, JOB)), keeps=keeps_all)


class LangfuseTrial(Protocol):
    """Makes the trial of a `langfuse` sink."""

    def __call__(self, rule: Rule, *, timeout: float = PATIENT_S) -> tuple[Trial, HttpBackend]: ...


@pytest.fixture
def langfuse_trial(trial_with: TrialWith, devserver: DevServer) -> Iterator[LangfuseTrial]:
    """Makes the trial of a `langfuse` sink; what the backend keeps can be read back at once."""
    with ExitStack() as stack:

        def make(rule: Rule, *, timeout: float = PATIENT_S) -> tuple[Trial, HttpBackend]:
            backend = HttpBackend(rule, relay_to=devserver.url)
            url = stack.enter_context(backend.serving())
            return trial_with(langfuse(url, devserver.public_key, devserver.secret_key, timeout), backend), backend

        yield make


def batch_answer(status: int, successes: int, *errors: tuple[int, str]) -> bytes:
    body = {
        "successes": [{"id": f"good-{number}", "status": 201} for number in range(successes)],
        "errors": [
            {"id": f"bad-{number}", "status": status, "message": message, "error": message}
            for number, (status, message) in enumerate(errors)
        ],
    }
    return http_answer(status, JSON, json.dumps(body).encode())


def is_no_poison(span: WireSpan) -> bool:
    return "poison" not in span.name


def test_the_queues_own_answer_is_a_success(langfuse_trial: LangfuseTrial) -> None:
    trial, backend = langfuse_trial(lambda _: ACCEPT)
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 1
    assert trial.said() == []


@pytest.mark.parametrize("status", [200, 207])
def test_the_errors_in_a_batch_answer_are_found_by_reading_back(langfuse_trial: LangfuseTrial, status: int) -> None:
    refusal = Reply(answering(batch_answer(status, 9, (400, "no such type"))), keeps=is_no_poison)
    trial, backend = langfuse_trial(where("poison", refusal, otherwise=ACCEPT))
    trial.write("bad", tool="poison", turns=1)
    trial.write("good")
    trial.ship()
    (culprit,) = trial.owed_of("poison")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead() == {culprit: "1 of 10 spans refused: no such type"}
    assert trial.counter("confirmed_spans") == 3 - 1 + FEW_SPANS
    assert len(backend.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_batch_answer_that_refuses_all_for_the_credentials_pauses_the_sink(
    langfuse_trial: LangfuseTrial, status: int
) -> None:
    errors = [(status, "Access denied")] * FEW_SPANS
    trial, backend = langfuse_trial(lambda _: Reply(answering(batch_answer(207, 0, *errors))))
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("paused"), "a pause")
    assert trial.condition().endswith(f": all 7 items: HTTP {status}: Access denied")
    assert len(backend.requests) == 1
    assert trial.dead() == {}


def test_a_batch_answer_that_refuses_all_for_want_of_time_is_tried_again(langfuse_trial: LangfuseTrial) -> None:
    errors = [(429, "slow down")] * FEW_SPANS
    trial, backend = langfuse_trial(in_turn([Reply(answering(batch_answer(207, 0, *errors)))], then=ACCEPT))
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 2
    assert trial.dead() == {}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        pytest.param(
            answer(401, JSON, b'{"message": "Invalid credentials. Confirm that you have set the right host."}'),
            "HTTP 401: Invalid credentials. Confirm that you have set the right host.",
            id="401",
        ),
        pytest.param(answer(403, JSON, b'{"error": "Forbidden"}'), "HTTP 403: Forbidden", id="403"),
    ],
)
def test_refused_credentials_pause_the_sink(langfuse_trial: LangfuseTrial, reply: Reply, said: str) -> None:
    trial, backend = langfuse_trial(lambda _: reply)
    trial.write("one")
    trial.ship_until(lambda: trial.condition().startswith("paused"), "a pause")
    assert trial.condition().endswith(said)
    assert len(backend.requests) == 1
    assert trial.said() == [f"sink langfuse: {trial.condition()}"]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(answer(302, "text/html", b"<html>", "Location: /auth/sign-in"), id="a redirect to the login"),
        pytest.param(answer(200, "text/html", b"<!DOCTYPE html>"), id="the web interface"),
        pytest.param(answer(404, JSON, b'{"message": "Not Found"}'), id="404"),
        pytest.param(answer(429, JSON, b'{"message": "Rate limit exceeded"}', "Retry-After: 0"), id="429"),
    ],
)
def test_what_was_not_taken_is_sent_again(langfuse_trial: LangfuseTrial, reply: Reply) -> None:
    trial, backend = langfuse_trial(in_turn([reply, reply], then=ACCEPT))
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 3
    assert len(trial.said_of_trouble()) == 1


def test_a_refused_span_is_a_dead_letter_and_its_neighbours_arrive(langfuse_trial: LangfuseTrial) -> None:
    refusal = answer(400, JSON, b'{"error": "Failed to parse OTel Protobuf Trace"}')
    trial, _ = langfuse_trial(where("poison", refusal, otherwise=ACCEPT))
    trial.write("bad", tool="poison", turns=1)
    trial.write("good")
    trial.ship()
    (culprit,) = trial.owed_of("poison")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead()[culprit].endswith("HTTP 400: Failed to parse OTel Protobuf Trace")


UNSURE = {
    "500": answering(http_answer(500, JSON, b'{"error": "Internal Server Error"}')),
    "an empty 200 in protobuf": answering(http_answer(200, "application/x-protobuf")),
    "no answer": hang,
    "reset": reset,
    "cut off": answering(http_answer(200, JSON, JOB)[:-5]),
}


@pytest.mark.parametrize("script", UNSURE.values(), ids=UNSURE.keys())
@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not stored"])
def test_what_may_have_been_stored_is_read_back_and_sent_again_only_if_it_was_not(
    langfuse_trial: LangfuseTrial, script: Callable[..., None], is_stored: bool
) -> None:
    reply = Reply(script, keeps=keeps_all) if is_stored else Reply(script)
    trial, backend = langfuse_trial(in_turn([reply], then=ACCEPT), timeout=TIMEOUT_S if script is hang else PATIENT_S)
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == (1 if is_stored else 2)
    assert trial.dead() == {}
