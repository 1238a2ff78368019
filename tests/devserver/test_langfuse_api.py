"""Langfuse's API over HTTP: who may ask, what is refused, and how observations are found and paged."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langfuse.api import LangfuseAPI

from tests.devserver.exports import SPAN_ID, START_NS, TRACE_ID, attribute, export, span
from tracebridge.devserver import DevServer
from tracebridge.devserver.otlp import request_from_json

TRACES = "/api/public/otel/v1/traces"
OBSERVATIONS = "/api/public/v2/observations"
GROUPS = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"


def send(client: httpx.Client, *spans: Any, scope: str = "langfuse-sdk") -> None:
    client.post(TRACES, json=export(*spans, scope=scope)).raise_for_status()


def rows(client: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    answer = client.get(OBSERVATIONS, params=parameters)
    answer.raise_for_status()
    return list(answer.json()["data"])


def ids(client: httpx.Client, **parameters: Any) -> list[str]:
    return [row["id"] for row in rows(client, **parameters)]


def numbered(number: int, attributes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Span `number` of the trace, each a second later than the one before."""
    start = START_NS + number * 1_000_000_000
    times = {"startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 1_000_000)}
    return span(attributes, spanId=f"{number:016x}", **(times | fields))


def span_id(number: int) -> str:
    return f"{number:016x}"


# Who may ask


@pytest.mark.parametrize("path", ["/api/public/health", "/api/public/ready"])
def test_health_needs_no_credentials(anonymous: httpx.Client, path: str) -> None:
    answer = anonymous.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "OK")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Basic !!!", 401),
        ("Basic cGstbGYtZGV2Ondyb25n", 401),
        ("Bearer pk-lf-dev", 403),
        ("Bearer sk-lf-dev", 401),
        ("Basic cGstbGYtZGV2OnNrLWxmLWRldg==", 200),
    ],
)
@pytest.mark.parametrize("path", [OBSERVATIONS, "/api/public/projects"])
def test_only_the_key_pair_opens(anonymous: httpx.Client, path: str, authorization: str | None, status: int) -> None:
    headers = {"authorization": authorization} if authorization else {}
    assert anonymous.get(path, headers=headers).status_code == status


def test_a_server_has_the_keys_it_was_given() -> None:
    with DevServer(public_key="pk-a", secret_key="sk-b") as server:
        url = server.url + OBSERVATIONS
        assert httpx.get(url, auth=("pk-a", "sk-b")).status_code == 200
        assert httpx.get(url, auth=("pk-lf-dev", "sk-lf-dev")).status_code == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["traces", "traces/x", "sessions/x", "observations", "v2/scores", "metrics/daily"])
def test_routes_that_v4_no_longer_has_say_so_before_asking_for_credentials(
    anonymous: httpx.Client, method: str, path: str
) -> None:
    answer = anonymous.request(method, f"/api/public/{path}")
    assert answer.status_code == 404
    assert "events_only" in answer.json()["message"]
    assert "error" not in answer.json()


@pytest.mark.parametrize("path", ["v3/scores", "v2/metrics", "models", "v2/prompts", "v2/datasets"])
def test_routes_that_are_left_out_say_so(client: httpx.Client, path: str) -> None:
    assert client.get(f"/api/public/{path}").status_code == 501


def test_the_old_ingestion_route_refuses_each_event(client: httpx.Client) -> None:
    batch = [
        {"id": "e1", "type": "trace-create", "body": {}},
        {"id": "e2", "type": "score-create", "body": {}},
    ]
    answer = client.post("/api/public/ingestion", json={"batch": batch})
    assert answer.status_code == 207
    assert [(error["id"], error["status"]) for error in answer.json()["errors"]] == [("e1", 400), ("e2", 501)]


# What is refused, what is lost


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protobuf", [False, True], ids=["json", "protobuf"])
def test_exports_come_in_every_form(client: httpx.Client, protobuf: bool, compress: bool) -> None:
    tree = export(span())
    body = request_from_json(tree).SerializeToString() if protobuf else json.dumps(tree).encode()
    headers = {"content-type": "application/x-protobuf" if protobuf else "application/json"}
    if compress:
        body = gzip.compress(body)
        headers["content-encoding"] = "gzip"
    answer = client.post(TRACES, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["name"] == "otel-ingestion-job"
    assert ids(client) == [SPAN_ID]


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        (b"{", {}, "Failed to parse OTel JSON Trace"),
        (b"NaN", {}, "Failed to parse OTel JSON Trace"),
        (b"{}", {"content-type": "text/plain"}, "Invalid content type"),
        (b"\xff\xff", {"content-type": "application/x-protobuf"}, "Failed to parse OTel Protobuf Trace"),
        (b"zz", {"content-encoding": "gzip"}, "Failed to decompress request body"),
        (b"{}", {"x-langfuse-ingestion-version": "5"}, "Unsupported x-langfuse-ingestion-version"),
        (json.dumps(export(span(traceId=None))).encode(), {}, "traceId:absent"),
        (json.dumps(export(span() | {"attributes": {}})).encode(), {}, "attributes:not_an_array"),
    ],
)
def test_what_cannot_be_read_is_refused_as_a_whole(
    client: httpx.Client, body: bytes, headers: dict[str, str], error: str
) -> None:
    answer = client.post(TRACES, content=body, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == 400
    assert error in answer.json()["error"]
    assert ids(client) == []


@pytest.mark.parametrize(
    "poison",
    [
        span() | {"attributes": [{"key": "k"}]},
        span() | {"attributes": [attribute("k", "half a pair: \ud83d")]},
        span(traceId=""),
    ],
    ids=["no value", "lone surrogate", "empty trace id"],
)
def test_poison_is_accepted_and_takes_the_whole_request_with_it(client: httpx.Client, poison: dict[str, Any]) -> None:
    body = json.dumps(export(numbered(1), poison))
    answer = client.post(TRACES, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    send(client, numbered(2))
    assert ids(client) == [span_id(2)]


def test_an_export_of_nothing_answers_an_empty_object(client: httpx.Client) -> None:
    assert client.post(TRACES, json={"resourceSpans": []}).json() == {}


def test_other_methods_are_not_allowed(client: httpx.Client) -> None:
    answer = client.get(TRACES)
    assert (answer.status_code, answer.json()["error"]) == (405, "MethodNotAllowedError")


def test_an_unknown_route_is_a_page(client: httpx.Client) -> None:
    answer = client.get("/api/public/nonsense")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


# Reading


def test_a_group_that_is_not_asked_for_is_absent(client: httpx.Client) -> None:
    send(client, span({"langfuse.observation.input": "i"}))
    (row,) = rows(client)
    assert {"name", "userId", "isRootObservation"} <= row.keys()
    assert not {"input", "metadata", "model", "usageDetails", "createdAt", "tags"} & row.keys()
    (row,) = rows(client, fields="io,unheard-of")
    assert row["input"] == "i"
    assert "name" not in row


def test_metadata_is_cut_unless_io_or_its_key_is_asked_for(client: httpx.Client) -> None:
    long = {f"langfuse.observation.metadata.{key}": key * 300 for key in "ab"}
    send(client, span(long))

    def lengths(**parameters: str) -> tuple[int, int]:
        (row,) = rows(client, **parameters)
        return len(row["metadata"]["a"]), len(row["metadata"]["b"])

    assert lengths(fields="metadata") == (200, 200)
    assert lengths(fields="metadata", expandMetadata="a,c") == (300, 200)
    assert lengths(fields="metadata,io") == (300, 300)


def test_a_latency_of_zero_is_null_among_the_metrics(client: httpx.Client) -> None:
    send(client, span(endTimeUnixNano=str(START_NS + 1000)))
    assert rows(client)[0]["latency"] == 0
    assert rows(client, fields="metrics")[0]["latency"] is None


def test_pages_are_newest_first_and_lose_or_repeat_nothing(client: httpx.Client) -> None:
    traces = [span(traceId=f"{number:032x}", spanId=span_id(number)) for number in range(1, 26)]
    send(client, *traces, numbered(30), numbered(40))
    found: list[str] = []
    parameters: dict[str, Any] = {"limit": 4}
    while True:
        page = client.get(OBSERVATIONS, params=parameters).json()
        found += [row["id"] for row in page["data"]]
        if "cursor" not in page["meta"]:
            break
        parameters["cursor"] = page["meta"]["cursor"]
    assert found[:2] == [span_id(40), span_id(30)]
    assert sorted(found) == sorted([span_id(number) for number in (*range(1, 26), 30, 40)])


def test_the_last_page_has_no_cursor_even_when_it_is_full(client: httpx.Client) -> None:
    send(client, numbered(1), numbered(2))
    assert client.get(OBSERVATIONS, params={"limit": 2}).json()["meta"] == {}
    assert "cursor" in client.get(OBSERVATIONS, params={"limit": 1}).json()["meta"]


def test_the_time_range_includes_its_start_and_excludes_its_end(client: httpx.Client) -> None:
    send(client, numbered(1), numbered(2), numbered(3))
    start = datetime.fromtimestamp(START_NS // 1_000_000 / 1000, UTC)
    bounds = [(start + timedelta(seconds=number)).isoformat(timespec="milliseconds") for number in (1, 3)]
    assert ids(client, fromStartTime=bounds[0], toStartTime=bounds[1]) == [span_id(2), span_id(1)]


def test_what_began_after_2106_is_found_by_its_trace_and_in_no_window_with_what_began_before(
    client: httpx.Client,
) -> None:
    late_ns = 2**32 * 10**9 + 5 * 365 * 86_400 * 10**9
    send(client, numbered(1), span(spanId=span_id(2), startTimeUnixNano=str(late_ns), endTimeUnixNano=str(late_ns)))
    assert ids(client) == [span_id(2), span_id(1)]
    assert ids(client, fromStartTime="2020-01-01T00:00:00Z") == [span_id(1)]
    assert ids(client, fromStartTime="2020-01-01T00:00:00Z", toStartTime="2110-01-01T00:00:00Z") == []
    assert ids(client, fromStartTime="2107-01-01T00:00:00Z", toStartTime="2200-01-01T00:00:00Z") == [span_id(2)]


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"limit": "1001"}, ["limit"]),
        ({"limit": "-1"}, ["limit"]),
        ({"limit": "many"}, ["limit"]),
        ({"fromStartTime": "2026-01-01T00:00:00"}, ["fromStartTime"]),
        ({"toStartTime": "2026-02-30T00:00:00Z"}, ["toStartTime"]),
        ({"parseIoAsJson": "true"}, ["parseIoAsJson"]),
        ({"level": "LOUD"}, ["level"]),
        ({"filter": "[{}]"}, ["filter", 0, "type"]),
        ({"filter": "{}"}, ["filter"]),
        ({"filter": "["}, ["filter"]),
    ],
)
def test_a_wrong_parameter_is_named(client: httpx.Client, parameters: dict[str, str], path: list[Any]) -> None:
    answer = client.get(OBSERVATIONS, params=parameters)
    assert answer.status_code == 400
    assert answer.json()["error"][0]["path"] == path


@pytest.mark.parametrize("cursor", ["zzz", "e30=", "W10=", "bm9uc2Vuc2U="])
def test_a_wrong_cursor_is_refused(client: httpx.Client, cursor: str) -> None:
    answer = client.get(OBSERVATIONS, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid cursor format")


@pytest.fixture
def three(client: httpx.Client) -> httpx.Client:
    """A root, a tool call and a generation, which differ in every column."""
    send(
        client,
        numbered(
            1,
            {
                "langfuse.observation.type": "agent",
                "user.id": "ann",
                "session.id": "s1",
                "langfuse.trace.tags": ["a", "b"],
                "langfuse.observation.metadata.size": "10",
                "langfuse.observation.metadata.it's": "odd",
                "langfuse.environment": "prod",
            },
        ),
        numbered(
            2,
            {
                "langfuse.observation.type": "tool",
                "user.id": "bob",
                "session.id": "s2",
                "langfuse.trace.tags": ["b"],
                "langfuse.observation.metadata.size": "9",
                "langfuse.observation.level": "WARNING",
                "langfuse.version": "v2",
                "langfuse.observation.input": "look for Needle",
            },
            parentSpanId=span_id(1),
            name="search",
        ),
        numbered(
            3,
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "gpt-4o",
                "langfuse.observation.usage_details": '{"input": 100, "output": 10}',
            },
            parentSpanId=span_id(1),
            endTimeUnixNano=str(START_NS + 8_000_000_000),
        ),
    )
    return client


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"type": "TOOL"}, {2}),
        ({"name": "search"}, {2}),
        ({"userId": "ann"}, {1}),
        ({"sessionId": "s2"}, {2}),
        ({"level": "WARNING"}, {2}),
        ({"version": "v2"}, {2}),
        ({"traceId": TRACE_ID}, {1, 2, 3}),
        ({"traceId": "other"}, set()),
        ({"environment": "prod"}, {1}),
        ({"environment": ["prod", "default"]}, {1, 2, 3}),
        ({"parentObservationId": span_id(1)}, {2, 3}),
        ({"parentObservationId": ""}, {1}),
        ({"isRootObservation": "true"}, {1}),
        ({"isRootObservation": "false"}, {2, 3}),
        ({"unheard-of": "x"}, {1, 2, 3}),
    ],
)
def test_parameters_filter(three: httpx.Client, parameters: dict[str, Any], expected: set[int]) -> None:
    assert set(ids(three, **parameters)) == {span_id(number) for number in expected}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("string", "name", "=", "search"), {2}),
        (("string", "name", "starts with", "sea"), {2}),
        (("string", "name", "ends with", "rch"), {2}),
        (("string", "name", "contains", "nsw"), {1, 3}),
        (("string", "name", "does not contain", "nsw"), {2}),
        (("string", "input", "matches", "needle"), {2}),
        (("stringOptions", "type", "any of", ["TOOL", "AGENT"]), {1, 2}),
        (("stringOptions", "type", "none of", ["TOOL", "AGENT"]), {3}),
        (("arrayOptions", "tags", "any of", ["a"]), {1}),
        (("arrayOptions", "traceTags", "all of", ["a", "b"]), {1}),
        (("arrayOptions", "tags", "none of", ["a"]), {2, 3}),
        (("number", "latency", ">=", 5), {3}),
        (("number", "inputTokens", ">", 99), {3}),
        (("number", "totalTokens", "=", 110), {3}),
        (("number", "totalCost", ">", 0), {3}),
        (("boolean", "isRootObservation", "=", True), {1}),
        (("boolean", "isRootObservation", "<>", True), {2, 3}),
        (("null", "version", "is null", None), {1, 3}),
        (("null", "version", "is not null", None), {2}),
        (("stringObject", "metadata", "=", "10", "size"), {1}),
        (("stringObject", "metadata", "=", "odd", "it's"), {1}),
        (("numberObject", "metadata", "<", 10, "size"), {2}),
        (("categoryOptions", "metadata", "any of", ["9", "10"], "size"), {1, 2}),
        (("datetime", "startTime", ">", "2025-10-09T08:53:21.500Z"), {2, 3}),
    ],
)
def test_the_structured_filter_filters(three: httpx.Client, condition: tuple[Any, ...], expected: set[int]) -> None:
    entry = dict(zip(("type", "column", "operator", "value", "key"), condition, strict=False))
    assert set(ids(three, filter=json.dumps([entry]))) == {span_id(number) for number in expected}


def test_conditions_of_the_filter_are_joined_and_replace_the_parameter_of_their_column(
    three: httpx.Client,
) -> None:
    by_type = {"type": "string", "column": "type", "operator": "=", "value": "TOOL"}
    by_user = {"type": "string", "column": "userId", "operator": "=", "value": "ann"}
    assert ids(three, filter=json.dumps([by_type, by_user])) == []
    assert ids(three, filter=json.dumps([by_type]), type="AGENT") == [span_id(2)]
    assert ids(three, filter=json.dumps([by_type]), userId="ann") == []


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "string", "column": "nonsense", "operator": "=", "value": "x"},
        {"type": "string", "column": "metadata", "operator": "=", "value": "x"},
        {"type": "stringObject", "column": "metadata", "operator": "=", "value": "x"},
        {"type": "string", "column": "name", "operator": "like", "value": "x"},
        {"type": "string", "column": "name", "operator": "=", "value": 5},
        {"type": "number", "column": "latency", "operator": "=", "value": "x"},
        {"type": "datetime", "column": "startTime", "operator": ">", "value": "today"},
        {"type": "stringOptions", "column": "name", "operator": "any of", "value": "x"},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(client: httpx.Client, entry: dict[str, Any]) -> None:
    assert client.get(OBSERVATIONS, params={"filter": json.dumps([entry])}).status_code == 400


def test_a_span_sent_again_is_there_twice_with_one_content(client: httpx.Client) -> None:
    for output in ("first", "second"):
        send(client, span({"langfuse.observation.output": output}, name=output))
    found = rows(client, fields="basic,io")
    assert [row["name"] for row in found] == ["second", "first"]
    assert len({row["output"] for row in found}) == 1


def test_a_deleted_trace_is_gone(client: httpx.Client) -> None:
    send(client, numbered(1), span(traceId="00000000000000000000000000000abc", spanId=span_id(2)))
    answer = client.delete(f"/api/public/traces/{TRACE_ID}")
    assert answer.json() == {"message": "Trace deleted successfully"}
    assert ids(client) == [span_id(2)]


# The official client


def test_the_official_client_reads_what_it_says(devserver: DevServer, client: httpx.Client) -> None:
    attributes = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "gpt-4o",
        "langfuse.observation.input": "hello",
        "langfuse.observation.usage_details": '{"input": 3, "output": 4}',
        "langfuse.observation.completion_start_time": "2025-10-09T08:53:21Z",
        "langfuse.observation.metadata.k": '{"a": 1}',
        "langfuse.trace.tags": ["t"],
        "session.id": "s",
    }
    send(client, span(attributes), numbered(5))
    api = LangfuseAPI(
        base_url=devserver.url,
        username=devserver.public_key,
        password=devserver.secret_key,
        httpx_client=client,
    )
    assert api.health.health().status == "OK"
    assert [project.id for project in api.projects.get().data] == ["proj-dev"]
    page = api.observations.get_many(fields=GROUPS, limit=1)
    assert page.meta.cursor is not None
    last = api.observations.get_many(fields=GROUPS, limit=1, cursor=page.meta.cursor)
    assert last.meta.cursor is None
    (row,) = last.data
    assert (row.id, row.type, row.input, row.session_id) == (SPAN_ID, "GENERATION", "hello", "s")
    assert row.usage_details == {"input": 3, "output": 4, "total": 7}
    assert row.metadata["k"] == {"a": 1}
    assert row.tags == ["t"]
