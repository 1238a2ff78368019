"""A backend that takes a request but for some of its spans."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from tests.otlp.scripted_server import answering, http_answer
from tests.outcomes.backend import ACCEPT, PROTOBUF, HttpBackend, Reply, Request, keeps_all, where
from tests.outcomes.conftest import HttpTrial, TrialWith
from tests.outcomes.trial import FEW_SPANS, TOKEN, otel
from tracebridge.devserver import DevServer
from tracebridge_otel.configuration import ReaderSettings

JSON = "application/json"


def in_protobuf(rejected: int, words: str) -> bytes:
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=words)
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    return http_answer(200, PROTOBUF, body)


def in_json(rejected: int, words: str) -> bytes:
    body = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": words}}
    return http_answer(200, JSON, json.dumps(body).encode())


def in_snake_case(rejected: int, words: str) -> bytes:
    body = {"partial_success": {"rejected_spans": rejected, "error_message": words}}
    return http_answer(200, JSON, json.dumps(body).encode())


def in_a_batch_answer(rejected: int, words: str) -> bytes:
    errors = [{"id": str(number), "status": 400, "message": words} for number in range(rejected)]
    body = {"successes": [{"id": "x", "status": 201}], "errors": errors}
    return http_answer(207, JSON, json.dumps(body).encode())


FORMS = pytest.mark.parametrize("form", [in_protobuf, in_json, in_snake_case, in_a_batch_answer])
Form = Callable[[int, str], bytes]


def is_no_poison(span: WireSpan) -> bool:
    return "poison" not in span.name


@pytest.mark.parametrize("form", [in_protobuf, in_json, in_a_batch_answer])
def test_where_the_backend_can_be_read_what_it_refused_is_found(
    trial_with: TrialWith, devserver: DevServer, form: Form
) -> None:
    refusal = Reply(answering(form(1, f"one was bad, {TOKEN}")), keeps=is_no_poison)
    backend = HttpBackend(where("poison", refusal), relay_to=devserver.url)
    reader = ReaderSettings(url=devserver.url, visibility_lag=0.01)
    with backend.serving() as url:
        trial = trial_with(otel(url, reader=reader), backend)
        trial.write("bad", tool="poison", turns=1)
        trial.write("good")
        trial.ship()
    (culprit,) = trial.owed_of("poison")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead() == {culprit: "1 of 10 spans refused: one was bad, ***"}
    assert trial.counter("confirmed_spans") == 3 - 1 + FEW_SPANS
    assert len(backend.requests) == 1


@FORMS
def test_where_the_backend_cannot_be_read_all_that_may_be_meant_are_dead_letters(
    http_trial: HttpTrial, form: Form
) -> None:
    refusal = Reply(answering(form(1, "one was bad")), keeps=is_no_poison)
    trial, backend = http_trial(where("poison", refusal))
    trial.write("bad", tool="poison", turns=1)
    trial.write("good")
    trial.ship()
    assert trial.dead() == dict.fromkeys(trial.owed(), "1 of 10 spans refused: one was bad")
    assert trial.counter("confirmed_spans") == 0
    assert len(backend.requests) == 1
    assert trial.said() == ["sink otel: 10 spans are dead letters now: 1 of 10 spans refused: one was bad"]


@FORMS
@pytest.mark.parametrize("too_many", [0, 1000])
def test_an_answer_that_rejects_all_is_halved_until_the_culprit_stands_alone(
    http_trial: HttpTrial, form: Form, too_many: int
) -> None:
    def rule(request: Request) -> Reply:
        names = [span.name for span in request.spans]
        if not any("poison" in name for name in names):
            return ACCEPT
        return Reply(answering(form(len(names) + too_many, "all of them")))

    trial, _ = http_trial(rule)
    trial.write("bad", tool="poison", turns=1)
    trial.write("good")
    trial.ship()
    (culprit,) = trial.owed_of("poison")
    trial.assert_all_arrived_once(but_for={culprit})
    assert trial.dead().keys() == {culprit}


@pytest.mark.parametrize("form", [in_protobuf, in_json, in_snake_case])
def test_a_partial_success_without_anything_in_it_is_no_warning(http_trial: HttpTrial, form: Form) -> None:
    trial, backend = http_trial(lambda _: Reply(answering(form(0, "")), keeps=keeps_all))
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    assert len(backend.requests) == 1
    assert trial.counter("confirmed_spans") == FEW_SPANS
    assert trial.said() == []


@pytest.mark.parametrize("rejected", [0, -3])
@pytest.mark.parametrize("form", [in_protobuf, in_json, in_snake_case])
def test_a_warning_is_a_success(http_trial: HttpTrial, form: Form, rejected: int) -> None:
    trial, _ = http_trial(lambda _: Reply(answering(form(rejected, "soon full")), keeps=keeps_all))
    trial.write("one")
    trial.ship()
    trial.assert_all_arrived_once()
    assert trial.counter("confirmed_spans") == FEW_SPANS
    assert trial.dead() == {}


@pytest.mark.parametrize("form", [in_protobuf, in_json])
def test_a_warning_is_said_once(http_trial: HttpTrial, form: Form) -> None:
    trial, backend = http_trial(lambda _: Reply(answering(form(0, f"soon full, {TOKEN}")), keeps=keeps_all))
    for number in range(3):
        trial.write(f"session-{number}")
        trial.ship()
    assert len(backend.requests) == 3
    (line,) = trial.said()
    assert "soon full, ***" in line
