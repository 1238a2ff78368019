"""Reading back: pages, copies, foreign observations, and servers that cannot be read."""

from __future__ import annotations

import base64
import email.utils
import json
import math
import secrets
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.langfuse.conftest import settings_of
from tests.langfuse.scripted import Answer, Reply, scripted
from tests.langfuse.test_mapping import REMAINDER, START_NS
from tests.langfuse.test_mapping import span as any_span
from tests.otlp.scripted_server import flooding, scripted_server
from tests.workplace import Workplace
from tracebridge.devserver import DevServer
from tracebridge.errors import BackendError, BusyBackendError
from tracebridge.secret import Secret
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.testing import Fault
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.paging import PageSize, rows
from tracebridge_langfuse.reader import LangfuseReader, ServerInfo
from tracebridge_langfuse.rows import Meta, Page, Row
from tracebridge_langfuse.sink import LangfuseSink
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.wire import WireScope, WireSpan

OBSERVATIONS = "/api/public/v2/observations"
INGESTION = "/api/public/otel/v1/traces"
HEALTH = "/api/public/health"
PROJECTS = "/api/public/projects"
TRACES = "/api/public/traces"
METRICS = "/api/public/v2/metrics"
SESSION = Query(session_id="s")
NOW = datetime.now(UTC)


def spans(*each: dict[str, Any]) -> list[Span]:
    """Spans of one trace that no other test has."""
    trace_id = secrets.token_hex(16)
    return [any_span(**{"trace_id": trace_id, **fields}) for fields in each]


def deliver(sink: LangfuseSink, *sent: Span) -> None:
    receipt = sink.deliver(sink.join([sink.encode(span) for span in sent]))
    assert receipt.outcome is Outcome.ACCEPTED, receipt.message


class Clockwork:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def reader_of(url: str, time: Clockwork | None = None, timeout: float = 5.0) -> LangfuseReader:
    time = time or Clockwork()
    settings = LangfuseSettings(host=url, public_key="pk", secret_key=Secret("sk-never-shown"), timeout=timeout)
    return LangfuseReader(settings, clock=time.clock, sleep=time.sleep)


def read(url: str, time: Clockwork | None = None, *, query: Query = SESSION, timeout: float = 5.0) -> list[Span]:
    reader = reader_of(url, time, timeout)
    try:
        return list(reader.read(query))
    finally:
        reader.close()


def read_from(answer: Answer, query: Query = SESSION) -> list[Span]:
    with scripted(answer) as url:
        return read(url, query=query)


def noted(log: list[str], answer: Answer) -> Answer:
    """The same answers; `log` tells what was asked for."""

    def logged(path: str, parameters: dict[str, str]) -> tuple[int, Any] | Reply:
        log.append(path)
        return answer(path, parameters)

    return logged


@contextmanager
def relayed(backend: DevServer) -> Iterator[tuple[LangfuseReader, list[dict[str, str]]]]:
    """A reader of the backend, and the query of each request for observations that it makes."""
    log: list[dict[str, str]] = []
    with httpx.Client(base_url=backend.url, auth=(backend.public_key, backend.secret_key), verify=False) as client:

        def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
            if path == OBSERVATIONS:
                log.append(parameters)
            answered = client.get(path, params=parameters)
            return answered.status_code, answered.json()

        with scripted(answer) as url:
            reader = reader_of(url)
            yield reader, log
            reader.close()


def row(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:016x}",
        "traceId": "a" * 32,
        "projectId": "p",
        "startTime": "2026-11-21T11:47:55.000Z",
        "endTime": None,
        "type": "SPAN",
    }


def page_of_numbers(parameters: dict[str, str], total: int) -> Reply:
    """Numbered rows of one start time, as many as are asked for from where the cursor says."""
    start = int(parameters.get("cursor", "0"))
    end = min(start + int(parameters["limit"]), total)
    meta = {"cursor": str(end)} if end < total else {}
    return Reply(200, {"data": [row(number) for number in range(start, end)], "meta": meta})


# Pages


def test_more_than_a_page_of_equal_start_times_comes_without_loss_or_repeat(
    backend: DevServer, sink: LangfuseSink
) -> None:
    session = secrets.token_hex(8)
    sent = spans(*({"span_id": f"{number:016x}", "session_id": session} for number in range(1, 1_251)))
    deliver(sink, *sent)
    with relayed(backend) as (reader, log):
        back = [found.span_id for found in reader.read(Query(session_id=session))]
    assert sorted(back) == [each.span_id for each in sent]
    assert len(log) == 2


@pytest.mark.parametrize("ids_only", [True, False])
def test_a_large_window_costs_a_request_for_each_thousand(
    backend: DevServer, sink: LangfuseSink, ids_only: bool
) -> None:
    session, start_ns = secrets.token_hex(8), secrets.randbelow(10**9) * 10**9
    numbered = range(1, 2_501)
    times = ((n, start_ns + n // 2 * 10**6) for n in numbered)
    sent = spans(*({"span_id": f"{n:016x}", "session_id": session, "start_ns": ns, "end_ns": ns} for n, ns in times))
    deliver(sink, *sent)
    query = Query(start_ns=start_ns, end_ns=start_ns + 1_251 * 10**6, ids_only=ids_only)
    with relayed(backend) as (reader, log):
        back = [found.span_id for found in reader.read(query)]
    assert sorted(back) == [f"{n:016x}" for n in numbered]
    assert len(log) == 3


def test_a_copy_on_the_next_page_is_not_stepped_over(backend: DevServer, sink: LangfuseSink) -> None:
    """The server's cursor stands for an observation, and goes on after all copies of it."""
    session, start_ns = secrets.token_hex(8), START_NS // 10**6 * 10**6
    numbered = range(1, 41)
    each = [{"span_id": f"{n:016x}", "session_id": session, "start_ns": start_ns - n * 10**6} for n in numbered]
    sent = spans(*each)
    deliver(sink, *sent)
    for copied in (10, 20, 20):
        deliver(sink, sent[copied - 1])
    with relayed(backend) as (reader, log):
        # as many as are enough are the size of the first page
        found = Counter(found.span_id for found in reader.read(Query(session_id=session, enough=10)))
    assert {name: count for name, count in found.items() if count > 1} == {f"{10:016x}": 2, f"{20:016x}": 3}
    assert len(found) == len(numbered)
    assert [asked["limit"] for asked in log] == ["10", "10", "40"]


def test_pages_that_are_not_in_order_are_walked_by_the_cursor_alone() -> None:
    def answer(path: str, parameters: dict[str, str]) -> Reply:
        assert "toStartTime" not in parameters
        reply = page_of_numbers(parameters, 2_000)
        for number, each in enumerate(reply.body["data"]):
            each["startTime"] = f"2026-11-21T11:47:{number % 60:02}.000Z"
        return reply

    assert len({found.span_id for found in read_from(answer)}) == 2_000


def test_a_server_that_gives_the_same_page_for_ever_is_told() -> None:
    page = {"data": [row(1)], "meta": {"cursor": "again"}}
    with pytest.raises(BackendError, match="the same page of observations again and again"):
        read_from(lambda path, _: (200, page))


def test_one_page_at_a_time_is_in_memory() -> None:
    def page(parameters: Mapping[str, str], can_be_less: bool) -> Page:
        number = int(parameters.get("cursor", "0"))
        data = [
            Row(id=f"{number}-{n}", trace_id="t", type="SPAN", start_time=NOW, input="x" * 2**15) for n in range(32)
        ]
        return Page(data=data, meta=Meta(cursor=str(number + 1) if number < 9 else None))

    tracemalloc.start()
    try:
        assert sum(1 for _ in rows(page, {}, PageSize())) == 320
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * 2**20


def test_everything_that_a_span_is_made_of_is_asked_for_and_metadata_in_full(
    backend: DevServer, sink: LangfuseSink
) -> None:
    session = secrets.token_hex(8)
    (sent,) = spans({"session_id": session, "metadata": {"long": "x" * 5_000}})
    deliver(sink, sent)
    with relayed(backend) as (reader, log):
        (found,) = reader.read(Query(session_id=session))
        (ids,) = reader.read(Query(session_id=session, ids_only=True))
    assert found.metadata == {"long": "x" * 5_000}
    assert ids.metadata == {}
    every = {"core", "basic", "time", "io", "metadata", "model", "usage", "prompt", "trace_context"}
    assert [set(asked["fields"].split(",")) for asked in log] == [every, {"core", "basic"}]


def test_a_trace_in_a_window_is_asked_for_by_its_id(backend: DevServer, sink: LangfuseSink) -> None:
    """To read the whole window for it would cost a request for each thousand observations of others."""
    (sent, _) = both = spans({}, {"span_id": "c" * 16, "trace_id": "c" * 32})
    deliver(sink, *both)
    query = Query(trace_ids=(sent.trace_id,) * 2, start_ns=sent.start_ns - 10**9, end_ns=sent.start_ns + 10**9)
    with relayed(backend) as (reader, log):
        assert [found.span_id for found in reader.read(query)] == [sent.span_id]
    assert [asked["traceId"] for asked in log] == [sent.trace_id]


def test_a_trace_that_is_named_twice_is_read_once(sink: LangfuseSink, reader: LangfuseReader) -> None:
    (sent,) = spans({})
    deliver(sink, sent)
    found = reader.read(Query(trace_ids=(sent.trace_id,) * 2))
    assert [each.span_id for each in found] == [sent.span_id]


def test_who_needs_one_span_only_is_given_a_small_page(backend: DevServer, sink: LangfuseSink) -> None:
    session = secrets.token_hex(8)
    deliver(sink, *spans(*({"span_id": f"{number:016x}", "session_id": session} for number in range(1, 31))))
    with relayed(backend) as (reader, log):
        found = reader.read(Query(session_id=session, ids_only=True, enough=1))
        assert next(found).session_id in ("", session)
        assert [asked["limit"] for asked in log] == ["10"]
        assert len(list(found)) == 29, "whoever goes on gets the rest"


def test_a_span_that_is_stored_twice_is_yielded_twice(sink: LangfuseSink, reader: LangfuseReader) -> None:
    (once,) = spans({})
    deliver(sink, once)
    deliver(sink, once)
    query = Query(trace_ids=(once.trace_id,))
    assert [found.span_id for found in reader.read(query)] == [once.span_id] * 2


def test_a_session_is_found_by_the_id_that_was_stored_and_told_from_its_likes(
    sink: LangfuseSink, reader: LangfuseReader
) -> None:
    base = secrets.token_hex(8)
    sessions = [f"{base}\ud800", f"{base}\ufffd", f"{base}\x00"]
    deliver(sink, *spans(*({"span_id": f"{n:016x}", "session_id": name} for n, name in enumerate(sessions, 1))))
    for number, name in enumerate(sessions, 1):
        assert [found.span_id for found in reader.read(Query(session_id=name))] == [f"{number:016x}"]


@pytest.mark.parametrize("of", ["x", "x" * 20_000])
def test_ids_alone_tell_the_session_that_the_stored_id_stands_for(
    sink: LangfuseSink, reader: LangfuseReader, of: str
) -> None:
    base = secrets.token_hex(8) + of
    sessions = {f"{n:016x}": name for n, name in enumerate((f"{base}\ufffd", f"{base}\x00", f"{base}y"), 1)}
    sent = spans(*({"span_id": span_id, "session_id": name} for span_id, name in sessions.items()))
    deliver(sink, *sent)
    for query in (Query(start_ns=0), Query(trace_ids=(sent[0].trace_id,))):
        found = reader.read(msgspec.structs.replace(query, ids_only=True))
        told = sorted((span.span_id, span.session_id) for span in found if span.session_id.startswith(base))
        assert told == sorted(sessions.items())


def test_many_sessions_whose_stored_ids_stand_for_others_take_no_more_requests_than_one(
    backend: DevServer, sink: LangfuseSink
) -> None:
    base, start_ns = secrets.token_hex(8), START_NS + 10**15
    names = {f"{n:016x}": f"{base}{n}\x00" for n in range(1, 31)}
    fields = {"start_ns": start_ns, "end_ns": start_ns}
    deliver(sink, *spans(*({"span_id": span_id, "session_id": name, **fields} for span_id, name in names.items())))
    with relayed(backend) as (reader, log):
        found = list(reader.read(Query(start_ns=start_ns, end_ns=start_ns + 1, ids_only=True)))
        assert {span.span_id: span.session_id for span in found} == names
        assert len(log) == 2


@pytest.mark.parametrize("letter", ["a", "会", "😀"])
@pytest.mark.parametrize("ids_only", [False, True])
def test_a_session_id_that_no_server_takes_in_a_line_is_asked_for_by_its_beginning(
    backend: DevServer, sink: LangfuseSink, letter: str, ids_only: bool
) -> None:
    ids = [f"{letter * 20_000}{number}" for number in (1, 2)]
    sent = spans({"session_id": ids[0]}, {"span_id": "2" * 16, "session_id": ids[1]})
    deliver(sink, *sent)
    with relayed(backend) as (reader, asked):
        found = list(reader.read(Query(session_id=ids[0], trace_ids=(sent[0].trace_id,), ids_only=ids_only)))
    assert [(span.span_id, span.session_id) for span in found] == [(sent[0].span_id, ids[0])]
    assert max(len(str(httpx.QueryParams(query))) for query in asked) < 8_000


def test_a_window_holds_its_start_and_not_its_end(sink: LangfuseSink, reader: LangfuseReader) -> None:
    session, start = secrets.token_hex(8), START_NS - START_NS % 10**6
    times = [start - 10**6, start, start + 10**6, start + 2 * 10**6]
    numbered = enumerate(times, 1)
    deliver(sink, *spans(*({"span_id": f"{n:016x}", "session_id": session, "start_ns": ns} for n, ns in numbered)))
    query = Query(session_id=session, start_ns=start, end_ns=start + 2 * 10**6)
    assert sorted(found.start_ns for found in reader.read(query)) == times[1:3]


MINUTE_NS = 60 * 10**9
OVER_32_BITS_NS = 2**32 * 10**9


@pytest.mark.parametrize(
    "start_ns",
    [-(10**20), -5 * MINUTE_NS, 0, OVER_32_BITS_NS - 1, OVER_32_BITS_NS, 5_000_000_000 * 10**9, 2**63, 10**20],
    ids=["long before 1970", "1969", "1970", "2106", "2106, a moment later", "2128", "2262", "the far future"],
)
def test_a_window_round_any_time_holds_it(sink: LangfuseSink, reader: LangfuseReader, start_ns: int) -> None:
    (sent,) = spans({"start_ns": start_ns, "end_ns": start_ns + 1})
    deliver(sink, sent)
    window = Query(trace_ids=(sent.trace_id,), start_ns=start_ns - MINUTE_NS, end_ns=start_ns + MINUTE_NS)
    (found,) = reader.read(window)
    assert found.start_ns // 10**6 == start_ns // 10**6
    assert [ids.span_id for ids in reader.read(msgspec.structs.replace(window, ids_only=True))] == [sent.span_id]


def test_a_clock_that_is_far_ahead_hides_no_span_of_the_same_window(sink: LangfuseSink, reader: LangfuseReader) -> None:
    sent = spans(
        {"span_id": "1" * 16, "start_ns": START_NS},
        {"span_id": "2" * 16, "start_ns": OVER_32_BITS_NS + 30 * 365 * 1_440 * MINUTE_NS},
    )
    deliver(sink, *sent)
    window = Query(
        trace_ids=(sent[0].trace_id,), start_ns=START_NS - MINUTE_NS, end_ns=sent[1].start_ns + MINUTE_NS, ids_only=True
    )
    assert {found.span_id for found in reader.read(window)} == {"1" * 16, "2" * 16}


def test_ids_alone_are_enough_when_only_they_are_asked_for(sink: LangfuseSink, reader: LangfuseReader) -> None:
    (sent,) = spans({"input": "x" * 1_000})
    deliver(sink, sent)
    (found,) = reader.read(Query(trace_ids=(sent.trace_id,), ids_only=True))
    assert (found.trace_id, found.span_id, found.input) == (sent.trace_id, sent.span_id, None)


def test_an_observation_of_somebody_else_is_foreign_and_tells_what_it_can(
    backend: DevServer, reader: LangfuseReader
) -> None:
    trace_id = secrets.token_hex(16)
    wire = WireSpan(
        trace_id=trace_id,
        span_id="b" * 16,
        name="their-call",
        start_ns=START_NS,
        end_ns=START_NS,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "their-model",
            "gen_ai.usage.input_tokens": 3,
            "langfuse.observation.input": '[{"role":"user"}]',
            "langfuse.observation.metadata.plan": '"gold"',
            "session.id": "theirs",
        },
    )
    transport = LangfuseSink(settings_of(backend))
    transport.deliver(join([encode_span(wire)], {"service.name": "other"}, WireScope(name="other")))
    transport.close()
    (found,) = reader.read(Query(trace_ids=(trace_id,)))
    assert found.fingerprint == ""
    assert (found.kind, found.name, found.session_id, found.model) == (
        "llm",
        "their-call",
        "theirs",
        "their-model",
    )
    assert found.input == [{"role": "user"}]
    assert found.usage["input"] == 3
    assert found.metadata == {"plan": "gold"}


@pytest.mark.parametrize(
    "mark",
    ['{"fingerprint": 3', '"{\\"opened\\": 7}"', '"{\\"exact\\": {\\"error\\": 7}}"', "[]", "text"],
)
def test_a_mark_that_somebody_broke_is_no_mark(sink: LangfuseSink, reader: LangfuseReader, mark: str) -> None:
    (sent,) = spans({"input": "x"})
    wire = to_wire(sent)
    broken = msgspec.structs.replace(wire, attributes=wire.attributes | {REMAINDER: mark})
    sink.deliver(sink.join([encode_span(broken)]))
    (found,) = reader.read(Query(trace_ids=(sent.trace_id,)))
    assert (found.fingerprint, found.input) == ("", "x")


def test_the_server_and_the_project_are_named(reader: LangfuseReader) -> None:
    info = reader.check()
    assert (info.version.partition(".")[0], info.write_mode) == ("4", "events_only")
    assert info.project


# Servers that cannot be read


def test_refused_credentials_are_named_and_never_shown(backend: DevServer) -> None:
    reader = LangfuseReader(settings_of(backend, secret_key=Secret("sk-never-shown")))
    with pytest.raises(BackendError, match="check public_key and secret_key") as raised:
        list(reader.read(Query(session_id="s")))
    reader.close()
    assert "sk-never-shown" not in str(raised.value)


@pytest.mark.parametrize("place", range(170, 200))
def test_no_half_of_a_quoted_secret_is_left_where_the_servers_words_are_cut(place: int) -> None:
    with scripted(lambda path, parameters: (403, {"message": "x" * place + "sk-never-shown is no key"})) as url:
        settings = LangfuseSettings(host=url, public_key="pk", secret_key=Secret("sk-never-shown"))
        reader = LangfuseReader(settings)
        with pytest.raises(BackendError, match="check public_key and secret_key") as raised:
            list(reader.read(Query(session_id="s", start_ns=0, end_ns=1)))
        reader.close()
    assert "sk-n" not in str(raised.value)


def test_a_server_that_quotes_the_credentials_does_not_get_them_into_a_message() -> None:
    basic = base64.b64encode(b"pk:sk-never-shown").decode()
    with scripted(lambda path, _: (400, {"message": f"bad: sk-never-shown, Basic {basic}, pw-neither"})) as url:
        reader = LangfuseReader(
            LangfuseSettings(
                host=url.replace("//", "//user:pw-neither@"), public_key="pk", secret_key=Secret("sk-never-shown")
            )
        )
        with pytest.raises(BackendError, match="HTTP 400: bad") as raised:
            list(reader.read(Query(session_id="s")))
        reader.close()
    assert [word for word in ("sk-never-shown", basic, "pw-neither", "user") if word in str(raised.value)] == []


def test_a_server_that_is_away_is_named_after_a_few_tries() -> None:
    with scripted(lambda path, _: (200, {})) as url:
        pass
    time = Clockwork()
    with pytest.raises(BackendError, match=rf"{url}.*no connection.*check `host`"):
        read(url, time)
    assert len(time.slept) == 3
    assert time.now < 5


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ((200, {"status": "OK", "version": "3.172.1"}), r"runs LangFuse 3\.172\.1.*needs LangFuse v4.*Upgrade"),
        (
            (200, {"status": "OK", "version": "4.16.0"}),
            r"LangFuse 4\.16\.0 answers there: check that what stands before",
        ),
        ((404, {"message": "Not Found"}), "no LangFuse answers at this address: check that `host`"),
        ((200, {"status": "OK"}), "no LangFuse answers at this address: check that `host`"),
    ],
    ids=["version 3", "a proxy", "another server", "another server with a health route"],
)
def test_a_server_without_the_route_is_told_by_its_version(health: tuple[int, Any], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        read_from(lambda path, _: health if path == HEALTH else (404, {"message": "Not Found"}))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, {"hello": "world"}), "no LangFuse answer.*missing required field `data`.*check that `host`"),
        (Reply(200, []), "no LangFuse answer.*check that `host`"),
        (Reply(200, {"data": None, "meta": {}}), r"no LangFuse answer.*Expected `array`, got `null`.*\$\.data"),
        (Reply(200, {"data": []}), "missing required field `meta`"),
        (Reply(200, {"data": [{"id": "a"}], "meta": {}}), r"missing required field `traceId`.*\$\.data\[0\]"),
        (Reply(200, b"<!DOCTYPE html><title>Sign in</title>"), "web page.*check that `host`"),
        (Reply(200, b"<p>hi</p>", {"content-type": "text/html"}), "web page.*check that `host`"),
        (Reply(200, b"welcome", {"content-type": "text/plain"}), "no JSON.*check that `host`"),
        (Reply(301, b"", {"location": "https://user:pw@elsewhere/api?x=sk"}), "points to https://elsewhere/api: set"),
        (Reply(403, {"message": "Access denied"}), "HTTP 403: Access denied; check public_key and secret_key"),
        (Reply(400, {"message": "Invalid request data", "error": [{"path": ["limit"]}]}), "HTTP 400: Invalid request"),
        (Reply(501, {"message": "not here"}), "HTTP 501: not here"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value.body)[:30],
)
def test_an_answer_that_is_no_page_is_told_at_once_with_what_to_do(reply: Reply, words: str) -> None:
    asked: list[str] = []

    def answer(path: str, _: dict[str, str]) -> Reply:
        asked.append(path)
        return reply

    with pytest.raises(BackendError, match=rf"http://127\S*{OBSERVATIONS} cannot be read: .*{words}") as raised:
        read_from(answer)
    assert asked == [OBSERVATIONS]
    assert "pw" not in str(raised.value)


def test_what_is_unknown_or_odd_in_a_row_costs_no_page() -> None:
    odd = {
        "level": "FATAL",
        "type": "ORACLE",
        "metadata": None,
        "tags": None,
        "model": None,
        "providedModelName": "m",
        "usageDetails": {"input": 3.0, "odd": None, "text": "5"},
        "costDetails": {"total": 1, "odd": "0.5"},
        "inputPrice": "0.0000025",
        "promptVersion": None,
        "input": {"an": "object"},
        "unheardOf": {"deep": [1]},
    }
    (found,) = read_from(lambda path, _: (200, {"data": [row(1) | odd], "meta": {"cursor": None, "total": 1}}))
    assert (found.kind, found.model, found.usage, found.cost) == ("event", "m", {"input": 3}, {"total": 1.0})
    assert found.input == {"an": "object"}


def test_text_that_only_the_tolerant_can_read_is_read() -> None:
    body = json.dumps({"data": [row(1) | {"name": "\ud800"}], "meta": {}}).encode()
    (found,) = read_from(lambda path, _: Reply(200, body))
    assert found.name == "\ud800"


# Write modes


def served_in(mode: str, page: Any = ()) -> Answer:
    """What a server answers in a write mode, as recorded with 4.16, but for observations that it has."""
    absent = (404, {"message": "not available"})
    answers: dict[str, tuple[int, Any]] = {
        HEALTH: (200, {"status": "OK", "version": "4.16.0"}),
        PROJECTS: (200, {"data": [{"id": "p", "name": "Pro", "organization": {"id": "o", "name": "Org"}}]}),
        OBSERVATIONS: (200, {"data": list(page), "meta": {}}),
        TRACES: absent if mode == "events_only" else (200, {"data": [], "meta": {"page": 1}}),
        METRICS: absent if mode == "legacy" else (200, {"data": [{"count_count": 7}]}),
    }
    return lambda path, _: answers[path]


def test_legacy_mode_whose_answers_are_always_empty_is_no_empty_answer() -> None:
    with pytest.raises(BackendError, match=r"`legacy`.*not lost.*`events_only`.*LANGFUSE_MIGRATION_V4_WRITE_MODE"):
        read_from(served_in("legacy"))


@pytest.mark.parametrize("mode", ["events_only", "dual"])
def test_a_server_that_has_nothing_gives_nothing(mode: str) -> None:
    assert read_from(served_in(mode)) == []


@pytest.mark.parametrize("mode", ["events_only", "dual"])
def test_a_server_that_has_something_is_not_asked_for_its_mode(mode: str) -> None:
    asked: list[str] = []
    assert len(read_from(noted(asked, served_in(mode, [row(1)])))) == 1
    assert asked == [OBSERVATIONS]


def test_the_mode_is_asked_for_again_when_it_may_have_changed() -> None:
    time, asked = Clockwork(), list[str]()
    with scripted(noted(asked, served_in("events_only"))) as url:
        reader = reader_of(url, time)
        for _ in range(5):
            assert list(reader.read(Query(session_id="s"))) == []
        assert asked.count(TRACES) == 1
        time.sleep(60.0)
        assert list(reader.read(Query(session_id="s"))) == []
        assert asked.count(TRACES) == 2
        reader.close()


def test_a_mode_that_cannot_be_asked_for_is_no_empty_answer() -> None:
    def answer(path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        return (200, {"data": [], "meta": {}}) if path == OBSERVATIONS else (503, {"message": "away"})

    with pytest.raises(BackendError, match=f"{TRACES} cannot be read: HTTP 503: away"):
        read_from(answer)


@pytest.mark.parametrize("mode", ["events_only", "dual", "legacy"])
def test_the_server_tells_its_version_its_mode_and_the_project(mode: str) -> None:
    with scripted(served_in(mode)) as url:
        reader = reader_of(url)
        assert reader.check() == ServerInfo(version="4.16.0", project="Pro", organization="Org", write_mode=mode)
        reader.close()


def test_keys_without_a_project_are_told() -> None:
    answers = {HEALTH: (200, {"version": "4.16.0"}), PROJECTS: (200, {"data": []})}
    with scripted(lambda path, _: answers[path]) as url:
        reader = reader_of(url)
        with pytest.raises(BackendError, match="belong to no project; check the keys"):
            reader.check()
        reader.close()


# Answers that are too large


def too_slow(_: dict[str, str]) -> Reply:
    threading.Event().wait(0.5)
    return Reply(200, {"data": [], "meta": {}})


FAILURES: dict[str, Callable[[dict[str, str]], Reply]] = {
    "413": lambda _: Reply(413, b"Request Entity Too Large", {"content-type": "text/plain"}),
    "422": lambda _: Reply(422, {"message": "the response is too large"}),
    "500": lambda _: Reply(500, {"message": "Internal Server Error", "error": "no text may be that long"}),
    "502": lambda _: Reply(502, b"<html>502</html>", {"content-type": "text/html"}),
    "504": lambda _: Reply(504, b"<html>504</html>", {"content-type": "text/html"}),
    "no answer in time": too_slow,
    "a 200 that breaks off": lambda _: Reply(200, {"data": [], "meta": {"x": "y" * 100}}, sent=50),
    "a 200 that breaks off without a length": lambda _: Reply(
        200, {"data": [row(1)], "meta": {}}, sent=50, tells_length=False
    ),
    "an empty 200": lambda _: Reply(200, b""),
    "the connection ends": lambda _: Reply(
        200, b"", {"content-length": "9", "connection": "close"}, tells_length=False
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(failure: str) -> None:
    limits: list[int] = []

    def narrow(path: str, parameters: dict[str, str]) -> Reply:
        limits.append(int(parameters["limit"]))
        return FAILURES[failure](parameters) if limits[-1] > 100 else page_of_numbers(parameters, 150)

    with scripted(narrow) as url:
        time = Clockwork()
        found = [span.span_id for span in read(url, time, timeout=0.2)]
    assert found == [f"{number:016x}" for number in range(150)]
    assert limits[:3] == [1_000, 250, 62]
    assert len(limits) <= 6
    assert time.slept == []


def test_a_single_observation_that_is_too_large_is_told_in_the_end() -> None:
    limits: list[int] = []

    def answer(path: str, parameters: dict[str, str]) -> Reply:
        limits.append(int(parameters["limit"]))
        return Reply(413, {"message": "too large"})

    with pytest.raises(BackendError, match="HTTP 413: too large"):
        read_from(answer)
    assert limits == [1_000, 250, 62, 15, 3, 1]


@pytest.mark.parametrize("failure", [name for name in FAILURES if name not in ("413", "422", "no answer in time")])
def test_what_is_no_matter_of_size_is_tried_a_few_times_and_told(failure: str) -> None:
    limits: list[int] = []

    def answer(path: str, parameters: dict[str, str]) -> Reply:
        limits.append(int(parameters["limit"]))
        return FAILURES[failure](parameters)

    with pytest.raises(BackendError, match=r"cannot be read: (no whole answer|HTTP 50[024])"):
        read_from(answer)
    assert limits == [1_000, 250, 62, 15, 3, 1, 1, 1, 1]


def test_of_an_error_that_never_ends_its_status_is_told_and_no_more_of_it_is_kept() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 999999999999\r\n\r\nno entry"
    with scripted_server(flooding(head, b" " * 65_536)) as url:
        reader = LangfuseReader(LangfuseSettings(host=url, public_key="pk", secret_key=Secret("sk"), timeout=2))
        with pytest.raises(BackendError, match="HTTP 403: no entry; check public_key and secret_key"):
            list(reader.read(Query(session_id="s", start_ns=0, end_ns=1)))
        reader.close()


def test_an_answer_that_never_ends_is_left() -> None:
    def endless(path: str, parameters: dict[str, str]) -> Reply:
        if int(parameters["limit"]) > 1:
            return Reply(200, b" " * (65 << 20))
        return page_of_numbers(parameters, 1)

    assert len(read_from(endless)) == 1


def test_one_large_row_makes_few_small_pages() -> None:
    """Small pages for ever after would cost a request for each of the rows that follow."""
    limits: list[int] = []

    def answer(path: str, parameters: dict[str, str]) -> Reply:
        limit, start = int(parameters["limit"]), int(parameters.get("cursor", "0"))
        limits.append(limit)
        if limit > 1 and start <= 20 < start + limit:
            return Reply(413, {"message": "too large"})
        return page_of_numbers(parameters, 5_000)

    assert len(read_from(answer)) == 5_000
    assert len(limits) < 70, limits


def test_many_large_rows_are_not_asked_for_too_many_at_once_again_and_again() -> None:
    size, failures = PageSize(), 0
    for _ in range(500):
        if size.limit > 40:
            size.too_much()
            failures += 1
        else:
            size.fitted()
    assert failures <= 10


# Limits of the rate, and passing trouble


def limited(headers: dict[str, str], times: int, log: list[str]) -> Answer:
    """Refuses so many requests as LangFuse Cloud does, whose answer is no JSON."""

    def answer(path: str, parameters: dict[str, str]) -> Reply:
        log.append(path)
        if len(log) <= times:
            said = {name: in_seconds(50) if value == "in 50 s" else value for name, value in headers.items()}
            return Reply(429, b"429 - rate limit exceeded", {"content-type": "text/plain", **said})
        return Reply(200, {"data": [row(1)], "meta": {}})

    return answer


def in_seconds(seconds: int) -> str:
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "least_s", "most_s"),
    [
        ({"retry-after": "41"}, 41, 46),
        ({"retry-after": "in 50 s"}, 48, 56),
        ({"retry-after": "0"}, 0.2, 1),
        ({}, 5, 6),
    ],
    ids=["seconds", "a date", "none", "unsaid"],
)
def test_a_rate_limit_is_waited_for_as_long_as_it_says(headers: dict[str, str], least_s: float, most_s: float) -> None:
    time, log = Clockwork(), list[str]()
    with scripted(limited(headers, 1, log)) as url:
        assert len(read(url, time)) == 1
    assert len(log) == 2
    assert len(time.slept) == 1
    assert least_s <= time.slept[0] <= most_s


def test_a_rate_limit_is_waited_for_no_longer_than_minutes() -> None:
    time, log = Clockwork(), list[str]()
    with (
        scripted(limited({"retry-after": "50"}, 99, log)) as url,
        pytest.raises(BackendError, match=r"429 - rate limit exceeded; the server limits the rate: try again in 5\d s"),
    ):
        read(url, time)
    assert len(log) == 3
    assert time.now < 150


def test_a_rate_limit_that_lasts_for_long_is_told_at_once() -> None:
    time, log = Clockwork(), list[str]()
    with (
        scripted(limited({"retry-after": "3600"}, 1, log)) as url,
        pytest.raises(BackendError, match="limits the rate: try again in 3"),
    ):
        read(url, time)
    assert (len(log), time.slept) == (1, [])


class Plan:
    """LangFuse Cloud's limit of a plan: so many requests in each minute, which begins with the first of them."""

    def __init__(self, limit: int, time: Clockwork, *, tells: bool) -> None:
        self._limit = limit
        self._time = time
        self._tells = tells
        self._began = 0.0
        self._taken = 0
        self.refused = 0

    def refusal(self) -> Reply | None:
        if self._time.now >= self._began + 60:
            self._began, self._taken = self._time.now, 0
        self._taken += 1
        if self._taken <= self._limit:
            return None
        self.refused += 1
        left = {"retry-after": str(math.ceil(self._began + 60 - self._time.now))}
        said = {"x-ratelimit-limit": str(self._limit), "x-ratelimit-remaining": "0"} if self._tells else {}
        return Reply(429, b"429 - rate limit exceeded", {"content-type": "text/plain", **left, **said})


@pytest.mark.parametrize("tells", [True, False], ids=["told", "untold"])
def test_the_smallest_plan_is_kept_to_once_it_is_known(tells: bool) -> None:
    time, log = Clockwork(), list[str]()
    plan = Plan(30, time, tells=tells)
    answer = noted(log, lambda path, parameters: plan.refusal() or page_of_numbers(parameters | {"limit": "10"}, 2_000))
    with scripted(answer) as url:
        assert len(read(url, time)) == 2_000
    assert plan.refused == 1, "the limit is met once, and never again"
    assert len(log) == 201
    assert time.now < 200 / 30 * 61 + 120


@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_a_server_in_trouble_is_asked_again(status: int) -> None:
    time, log = Clockwork(), list[str]()

    def answer(path: str, _: dict[str, str]) -> tuple[int, Any]:
        log.append(path)
        return (status, {"message": "trouble"}) if len(log) < 4 else (200, {"data": [row(1)], "meta": {}})

    with scripted(answer) as url:
        assert len(read(url, time)) == 1
    assert len(log) == 4
    assert time.now < 5


def test_a_server_that_stays_in_trouble_is_told() -> None:
    time, log = Clockwork(), list[str]()
    with (
        scripted(noted(log, lambda path, _: (503, {"message": "out of order"}))) as url,
        pytest.raises(BackendError, match="HTTP 503: out of order"),
    ):
        read(url, time)
    assert len(log) == 4


def test_a_rate_limit_is_waited_for(devserver: DevServer) -> None:
    sink, reader = LangfuseSink(settings_of(devserver)), LangfuseReader(settings_of(devserver))
    deliver(sink, *spans({}))
    devserver.faults.add(Fault(route=f"GET {OBSERVATIONS}", status=429, headers={"Retry-After": "1"}, times=1))
    assert len(list(reader.read(Query(session_id="user-1")))) == 1
    sink.close()
    reader.close()


def test_a_query_that_asks_for_everything_is_refused(reader: LangfuseReader) -> None:
    with pytest.raises(ValueError, match="session, a window or trace ids"):
        list(reader.read(Query()))


IMPATIENT = msgspec.structs.replace(SESSION, is_patient=False)


def test_a_caller_that_does_not_wait_is_told_when_to_ask_again_and_nothing_is_asked_before() -> None:
    time, log = Clockwork(), list[str]()
    plan = Plan(30, time, tells=True)
    answer = noted(log, lambda path, parameters: plan.refusal() or page_of_numbers(parameters | {"limit": "10"}, 2_000))
    with scripted(answer) as url:
        reader = reader_of(url, time)
        for _ in range(2):
            with pytest.raises(BusyBackendError, match="v2/observations") as busy:
                list(reader.read(IMPATIENT))
        assert 0 < busy.value.retry_after_s <= 66
        assert (len(log), time.slept) == (31, [])
        assert len(list(reader.read(SESSION))) == 2_000, "one that waits may use the same reader"
        reader.close()


def test_what_is_new_is_sent_while_the_server_limits_how_often_it_may_be_read(tmp_path: Path) -> None:
    with DevServer() as devserver:
        keys = {"public_key": devserver.public_key, "secret_key": devserver.secret_key}
        sinks = {"langfuse": {"host": devserver.url, "visibility_lag": 0.05, **keys}}
        workplace = Workplace(tmp_path, sinks, delivery="external")
        assert workplace.call("ship").returncode == 0, "from here on, what is recorded was not sent by anybody before"
        devserver.faults.add(Fault(route=f"POST {INGESTION}", reset="after", times=1))
        devserver.faults.add(Fault(route=f"GET {OBSERVATIONS}", status=429, headers={"Retry-After": "100"}))
        workplace.record("unanswered")
        assert workplace.call("ship", "--patience", "0.5").returncode == 1
        workplace.record("new")
        assert workplace.call("ship", "--patience", "2").returncode == 1, "the first session is still in doubt"
        devserver.faults.clear()
        reader = LangfuseReader(settings_of(devserver))
        assert {span.session_id for span in reader.read(Query(session_id="new"))} == {"new"}
        reader.close()
