"""Tempo's query API out, as it is documented."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.devserver.exports import END_NS, SPAN_ID, START_NS, TRACE_ID, export, span
from tracebridge.devserver import DevServer, Tempo
from tracebridge.testing import Fault

S = 1_000_000_000
TRACE = f"/api/v2/traces/{TRACE_ID}"
PROTOBUF = {"accept": "application/protobuf"}
OF_THE_AGENT = '{ resource.service.name = "agent" }'


@pytest.fixture(scope="module")
def finding() -> Iterator[DevServer]:
    """A backend whose searches find spans of any age."""
    with DevServer(tempo=Tempo(searchable_s=None)) as server:
        yield server


@pytest.fixture
def tempo(finding: DevServer) -> Iterator[httpx.Client]:
    finding.clear()
    with httpx.Client(base_url=finding.url, timeout=5, verify=False) as client:
        yield client


def send(client: httpx.Client, *spans: Any, **names: str) -> None:
    client.post("/v1/traces", json=export(*spans, **names)).raise_for_status()


def search(client: httpx.Client, query: str, **parameters: Any) -> list[str]:
    window: dict[str, Any] = {"start": START_NS // S - 60, "end": START_NS // S + 60}
    answer = client.get("/api/search", params=window | {"q": query} | parameters)
    answer.raise_for_status()
    return [trace["traceID"] for trace in answer.json()["traces"]]


def fields_of(content: bytes) -> dict[int, Any]:
    fields = UnknownFieldSet(Empty.FromString(content))
    return {fields[place].field_number: fields[place].data for place in range(len(fields))}


def only_span(answer: httpx.Response) -> dict[str, Any]:
    ((span,),) = [scope["spans"] for scope in answer.json()["trace"]["resourceSpans"][0]["scopeSpans"]]
    assert isinstance(span, dict)
    return span


def test_a_trace_is_shown_as_json_with_ids_in_base64_and_nanoseconds(tempo: httpx.Client) -> None:
    send(tempo, span({"a": "b"}))
    answer = tempo.get(TRACE)
    assert answer.json()["status"] == "COMPLETE"
    shown = only_span(answer)
    assert base64.b64decode(shown["traceId"]).hex() == TRACE_ID
    assert base64.b64decode(shown["spanId"]).hex() == SPAN_ID
    assert (shown["startTimeUnixNano"], shown["endTimeUnixNano"]) == (str(START_NS), str(END_NS))
    assert shown["attributes"] == [{"key": "a", "value": {"stringValue": "b"}}]


def test_a_trace_is_shown_as_protobuf_to_who_asks_for_it(tempo: httpx.Client) -> None:
    send(tempo, span())
    answer = tempo.get(TRACE, headers=PROTOBUF)
    assert answer.headers["content-type"] == "application/protobuf"
    fields = fields_of(answer.content)
    shown = TracesData.FromString(fields[1]).resource_spans[0].scope_spans[0].spans[0]
    assert (shown.trace_id.hex(), shown.span_id.hex(), shown.start_time_unix_nano) == (TRACE_ID, SPAN_ID, START_NS)
    assert 3 not in fields, "COMPLETE is the default, which protobuf leaves out"


def test_a_part_of_a_trace_says_that_it_is_one_in_both_forms(tempo: httpx.Client, finding: DevServer) -> None:
    send(tempo, *(span(spanId=f"{number + 1:016x}") for number in range(4)))
    finding.faults.add(Fault(route="GET /api/v2/traces/*", partial=True))
    fields = fields_of(tempo.get(TRACE, headers=PROTOBUF).content)
    assert (fields[3], "partial trace" in fields[4].decode()) == (1, True)
    answer = tempo.get(TRACE).json()
    assert (answer["status"], "partial trace" in answer["message"]) == ("PARTIAL", True)
    assert len(answer["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 2


def test_a_trace_that_is_not_there_is_a_404_and_an_id_that_is_none_a_400(tempo: httpx.Client) -> None:
    assert tempo.get("/api/v2/traces/" + "1" * 32).status_code == 404
    assert tempo.get("/api/v2/traces/xyz").status_code == 400


def test_who_asks_for_an_echo_gets_one(tempo: httpx.Client) -> None:
    assert tempo.get("/api/echo").text == "echo"


def test_texts_are_cut_between_two_characters_and_jaeger_shows_them_whole(anonymous: httpx.Client) -> None:
    text = "é" * 2_000
    send(anonymous, span({"x": text, "n": 10**15, "k" * 3_000: "v"}))
    attributes = {entry["key"]: entry["value"] for entry in only_span(anonymous.get(TRACE))["attributes"]}
    assert attributes == {
        "x": {"stringValue": "é" * 1_024},
        "n": {"intValue": str(10**15)},
        "k" * 2_048: {"stringValue": "v"},
    }
    jaegers = anonymous.get(f"/api/v3/traces/{TRACE_ID}").json()["result"]["resourceSpans"][0]["scopeSpans"][0]
    assert {"key": "x", "value": {"stringValue": text}} in jaegers["spans"][0]["attributes"]


@pytest.mark.parametrize("limit", [0, 100])
def test_where_texts_are_cut_is_configured(limit: int) -> None:
    with DevServer(tempo=Tempo(max_attribute_bytes=limit)) as server, httpx.Client(base_url=server.url) as client:
        send(client, span({"x": "y" * 5_000}))
        (attribute,) = only_span(client.get(TRACE))["attributes"]
    assert len(attribute["value"]["stringValue"]) == (limit or 5_000)


def test_a_search_finds_traces_by_service_and_attribute(tempo: httpx.Client) -> None:
    send(tempo, span({"session.id": "a"}), span({"session.id": "b"}, traceId="1" * 32))
    send(tempo, span({"session.id": "a"}, traceId="2" * 32), service="other")
    assert search(tempo, '{ resource.service.name = "agent" && span.session.id = "a" }') == [TRACE_ID.lstrip("0")]
    assert sorted(search(tempo, OF_THE_AGENT)) == sorted([TRACE_ID.lstrip("0"), "1" * 32])


@pytest.mark.parametrize("text", ['"', "\\", "a\nb\t", "\0", "é\U0001f600", '" && span.x = "', "}"])
def test_a_text_is_found_by_its_literal(tempo: httpx.Client, text: str) -> None:
    send(tempo, span({"session.id": text}), span({"session.id": "other"}, traceId="1" * 32))
    literal = "".join(f"\\U{ord(character):08x}" for character in text)
    assert search(tempo, f'{{ span.session.id = "{literal}" }}') == [TRACE_ID.lstrip("0")]


@pytest.mark.parametrize(
    "query",
    ["", "{", '{ span.a = "b }', '{ span.a = "b" && }', '{ span.a = "\\q" }', '{ span.a = "x\ny" }', '{ .a = "b" }'],
)
def test_a_query_that_is_none_is_refused(tempo: httpx.Client, query: str) -> None:
    window: dict[str, Any] = {"start": START_NS // S, "end": START_NS // S + 1}
    assert tempo.get("/api/search", params=window | {"q": query}).status_code == 400


def test_a_search_gives_no_more_traces_than_it_was_asked_for(tempo: httpx.Client) -> None:
    send(tempo, *(span(traceId=f"{number + 1:032x}") for number in range(30)))
    assert len(search(tempo, OF_THE_AGENT)) == 20
    assert len(search(tempo, OF_THE_AGENT, limit=7)) == 7
    assert len(set(search(tempo, OF_THE_AGENT, limit=100))) == 30


def test_a_search_finds_what_begins_in_its_window_and_takes_a_week_at_most(tempo: httpx.Client) -> None:
    send(tempo, span())
    second = START_NS // S
    assert len(search(tempo, OF_THE_AGENT, start=second, end=second + 1)) == 1
    assert search(tempo, OF_THE_AGENT, start=second + 1, end=second + 2) == []
    week: dict[str, Any] = {"q": OF_THE_AGENT, "start": second - 7 * 86_400, "end": second + 1}
    assert "exceeds 168h0m0s" in tempo.get("/api/search", params=week).text


def test_a_span_that_was_old_when_it_came_is_found_by_its_trace_alone(anonymous: httpx.Client) -> None:
    send(anonymous, span(), span(traceId="1" * 32, startTimeUnixNano=str(time.time_ns())))
    assert search(anonymous, OF_THE_AGENT) == []
    recent = anonymous.get("/api/search", params={"q": OF_THE_AGENT}).json()["traces"]
    assert [trace["traceID"] for trace in recent] == ["1" * 32]
    assert anonymous.get(TRACE).status_code == 200
