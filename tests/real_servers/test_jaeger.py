"""Law 2, `read(deliver(span)) == span` up to the declared losses, on a real Jaeger, with each kind of storage."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.otel.test_law import deliver, exact, read
from tests.servers.jaeger import Jaeger, running_jaeger
from tests.workplace import Workplace, journal_events, restored
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge_otel.configuration import Protocol, Semconv
from tracebridge_otel.limit import cut_content
from tracebridge_otel.sink import OtelSink

pytestmark = pytest.mark.real_server

START_NS = 1_790_000_000_000_000_000


STORAGES = ["memory", "badger"]


@pytest.fixture(scope="module", params=STORAGES)
def jaeger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """One for all tests, that use ids of their own."""
    with running_jaeger(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@pytest.fixture(params=STORAGES)
def empty_jaeger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Jaeger]:
    with running_jaeger(tmp_path / "jaeger", request.param) as running:
        yield running


def in_traces_of_their_own(batch: Sequence[Span]) -> list[Span]:
    """The same spans in traces that the server has not seen, linked as they were."""
    salt = uuid.uuid4().hex

    def new(trace_id: str) -> str:
        return hashlib.sha256((salt + trace_id).encode()).hexdigest()[:32]

    return [
        msgspec.structs.replace(
            span,
            trace_id=new(span.trace_id),
            links=tuple(msgspec.structs.replace(link, trace_id=new(link.trace_id)) for link in span.links),
        )
        for span in batch
    ]


def tool(number: int, start_ns: int, session_id: str) -> Span:
    return Span(
        kind="tool",
        trace_id=uuid.uuid4().hex,
        span_id=f"{number + 1:016x}",
        name="search",
        start_ns=start_ns,
        end_ns=start_ns + 1_000_000,
        session_id=session_id,
        fingerprint="f",
    )


@pytest.mark.parametrize(
    ("protocol", "semconv"), [("http/protobuf", "genai"), ("grpc", "genai"), ("http/protobuf", "openinference")]
)
def test_what_was_delivered_reads_back_equal(jaeger: Jaeger, protocol: Protocol, semconv: Semconv) -> None:
    sink = jaeger.sink(protocol, semconv)

    @given(st.lists(spans(), min_size=1, max_size=12, unique_by=lambda span: (span.trace_id, span.span_id)))
    @settings(max_examples=examples(25))
    def law(batch: list[Span]) -> None:
        sent = in_traces_of_their_own(batch)
        deliver(sink, sent)
        found = read(sink, Query(trace_ids=tuple(span.trace_id for span in sent)))
        assert exact(found, sink) == exact(sent, sink)

    law()


def test_more_traces_than_a_search_returns_are_all_found_once(jaeger: Jaeger) -> None:
    sink, session_id = jaeger.sink(), uuid.uuid4().hex
    # neighbours are less than a microsecond apart, or many microseconds
    sent = [tool(number, START_NS + number // 3 * 40_000 + number % 3 * 300, session_id) for number in range(700)]
    deliver(sink, sent)
    window = Query(session_id=session_id, start_ns=START_NS, end_ns=START_NS + 1_000_000_000)
    assert exact(read(sink, window), sink) == exact(sent, sink)


def test_a_session_is_read_without_other_sessions(jaeger: Jaeger) -> None:
    sink, names = jaeger.sink(), ["a b&c=d", '"quoted"', "{}", "漢字"]
    sessions = {name: f"{name} {uuid.uuid4().hex}" for name in names}
    sent = [tool(number, START_NS, session_id) for number, session_id in enumerate(sessions.values())]
    deliver(sink, sent)
    for span in sent:
        assert exact(read(sink, Query(session_id=span.session_id)), sink) == exact([span], sink)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_what_badger_makes_no_key_of_is_told_from_trouble_that_passes_and_fits_under_a_limit(
    tmp_path: Path, protocol: Protocol
) -> None:
    long = msgspec.structs.replace(tool(0, START_NS, "s"), input={"text": "x" * 90_000})
    with running_jaeger(tmp_path, "badger") as jaeger:
        settings = jaeger.sink(protocol)
        with closing(OtelSink.open(settings)) as sink:
            receipt = sink.deliver(sink.join([sink.encode(long)]))
        assert (receipt.outcome, "Key with size" in receipt.message) == (Outcome.UNKNOWN, True)
        limited = msgspec.structs.replace(settings, max_attribute_bytes=64_000)
        deliver(limited, [long])
        (found,) = read(limited, Query(session_id="s"))
    assert found == cut_content(long, 64_000)


def test_what_is_not_there_is_nothing_and_no_error(jaeger: Jaeger) -> None:
    sink = jaeger.sink()
    assert read(sink, Query(trace_ids=(uuid.uuid4().hex,))) == []
    assert read(sink, Query(session_id=uuid.uuid4().hex)) == []


@pytest.mark.slow
@pytest.mark.parametrize("semconv", ["genai", "openinference"])
def test_a_hundred_real_sessions_are_backfilled_validated_and_rebuilt_from_it(
    empty_jaeger: Jaeger, legacy_traces: Path, tmp_path: Path, semconv: Semconv
) -> None:
    place = Workplace(tmp_path / "place", {"otel": {**empty_jaeger.section(), "semconv": semconv}})
    place.backfill(legacy_traces)
    verdict = place.verdicts()["otel"]
    assert (verdict["exit_code"], verdict["sessions"]) == (0, 100), verdict
    originals = journal_events(legacy_traces)
    assert restored(place.observed("otel")) == dict(sorted(originals.items()))
