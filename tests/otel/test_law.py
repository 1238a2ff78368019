"""Law 2 of the sink contract, `read(deliver(span)) == span` up to the declared losses, over HTTP and gRPC."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tracebridge.assembler import Assembler, Place
from tracebridge.devserver import DevServer, Tempo
from tracebridge.journal.reader import read_journal
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge.validation import compare
from tracebridge_otel.configuration import Backend, OtelSettings, Protocol, ReaderSettings
from tracebridge_otel.factory import sink_type


def settings_for(server: DevServer, protocol: Protocol) -> OtelSettings:
    return OtelSettings(
        protocol=protocol,
        endpoint=f"http://{server.grpc_endpoint}" if protocol == "grpc" else server.url,
        compression="gzip",
        reader=ReaderSettings(url=server.url),
    )


def tempo_settings_for(server: DevServer, limit: int | None = None) -> OtelSettings:
    reader = ReaderSettings(type="tempo", url=server.url)
    return OtelSettings(endpoint=server.url, compression="gzip", max_attribute_bytes=limit, reader=reader)


def deliver(settings: OtelSettings, batch: Sequence[Span]) -> None:
    sink = sink_type.open_sink(settings)
    try:
        receipt = sink.deliver(sink.join([sink.encode(span) for span in batch]))
    finally:
        sink.close()
    assert (receipt.outcome, receipt.rejected) == (Outcome.ACCEPTED, 0), receipt


def read(settings: OtelSettings, query: Query) -> list[Span]:
    reader = sink_type.open_reader(settings)
    try:
        return list(reader.read(query))
    finally:
        reader.close()


def exact(spans: Iterable[Span], settings: OtelSettings) -> Counter[bytes]:
    """The spans, each as often as it is there, after the declared losses; 1, 1.0 and True differ."""
    for loss in sink_type.capabilities(settings).losses:
        spans = map(loss.apply, spans)
    return Counter(msgspec.json.encode(span, order="sorted") for span in spans)


@pytest.fixture
def tempo() -> Iterator[DevServer]:
    """A backend that cuts as Tempo does, and whose searches find spans of any age."""
    with DevServer(tempo=Tempo(searchable_s=None)) as server:
        yield server


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_what_was_delivered_reads_back_equal(devserver: DevServer, protocol: Protocol) -> None:
    holds(settings_for(devserver, protocol))


def test_what_was_delivered_to_tempo_reads_back_equal(tempo: DevServer) -> None:
    holds(tempo_settings_for(tempo))


def holds(sink_settings: OtelSettings) -> None:
    @given(st.lists(spans(), min_size=1, max_size=12, unique_by=lambda span: (span.trace_id, span.span_id)))
    @settings(max_examples=examples(15))
    def law(batch: list[Span]) -> None:
        deliver(sink_settings, batch)
        query = Query(trace_ids=tuple(span.trace_id for span in batch))
        ids = {(span.trace_id, span.span_id) for span in batch}
        # an earlier example may have left other spans in the same trace, and the very same one again
        found = [span for span in read(sink_settings, query) if (span.trace_id, span.span_id) in ids]
        assert set(exact(batch, sink_settings)) <= set(exact(found, sink_settings))

    law()


@pytest.fixture(scope="module")
def real_spans(legacy_traces: Path) -> list[Span]:
    """The spans of the 100 real sessions, as they are sent."""
    real: list[Span] = []
    folders = sorted(legacy_traces.iterdir())
    assert len(folders) == 100
    for folder in folders:
        assembler = Assembler()
        with (folder / "events.jsonl").open("rb") as file:
            for ordinal, line in enumerate(read_journal(file, 0)):
                assert line.event is not None
                real += assembler.feed(line.event, Place(offset=line.offset, ordinal=ordinal))
    return [msgspec.structs.replace(span, fingerprint="f1") for span in real]


def window_of(spans: Sequence[Span]) -> Query:
    starts_ns = [span.start_ns for span in spans]
    return Query(start_ns=min(starts_ns), end_ns=max(starts_ns) + 1)


def deliver_all(settings: OtelSettings, spans: Sequence[Span]) -> None:
    for first in range(0, len(spans), 500):
        deliver(settings, spans[first : first + 500])


def test_real_sessions_read_back_equal(devserver: DevServer, real_spans: list[Span]) -> None:
    sink_settings = settings_for(devserver, "http/protobuf")
    deliver_all(sink_settings, real_spans)
    found = read(sink_settings, window_of(real_spans))
    assert exact(found, sink_settings) == exact(real_spans, sink_settings)


def test_real_sessions_read_back_from_tempo_equal_up_to_the_cut_which_is_named(
    tempo: DevServer, real_spans: list[Span]
) -> None:
    sink_settings = tempo_settings_for(tempo)
    deliver_all(sink_settings, real_spans)
    found = read(sink_settings, window_of(real_spans))
    comparison = compare(real_spans, found, sink_type.capabilities(sink_settings).losses)
    assert comparison.findings == ()
    assert comparison.losses.keys() == {"attributes-cut-at-2048-bytes"}
    assert 0 < comparison.losses["attributes-cut-at-2048-bytes"] < len(real_spans)


def test_real_sessions_read_back_whole_from_a_tempo_that_cuts_nothing(real_spans: list[Span]) -> None:
    with DevServer(tempo=Tempo(searchable_s=None, max_attribute_bytes=0)) as server:
        sink_settings = tempo_settings_for(server, limit=0)
        deliver_all(sink_settings, real_spans)
        assert sink_type.capabilities(sink_settings).losses == ()
        assert exact(read(sink_settings, window_of(real_spans)), sink_settings) == exact(real_spans, sink_settings)


@pytest.mark.parametrize("limit", [2_048, 0])
def test_what_tempo_cuts_below_the_limit_that_the_settings_name_is_different_and_never_equal(limit: int) -> None:
    span = turn_of("x" * 5_000)
    with DevServer(tempo=Tempo(max_attribute_bytes=1_500)) as server:
        sink_settings = tempo_settings_for(server, limit)
        deliver(sink_settings, [span])
        found = read(sink_settings, Query(trace_ids=(span.trace_id,)))
    comparison = compare([span], found, sink_type.capabilities(sink_settings).losses)
    assert [finding.kind for finding in comparison.findings] == ["different"]


@pytest.mark.parametrize(("place", "kinds"), [(100, ["different"]), (4_000, [])])
def test_a_value_that_differs_within_what_was_sent_is_different_and_beyond_it_nobody_can_tell(
    tempo: DevServer, place: int, kinds: list[str]
) -> None:
    sent = turn_of("x" * 5_000)
    expected = turn_of("x" * place + "y" + "x" * (5_000 - place - 1))
    sink_settings = tempo_settings_for(tempo)
    deliver(sink_settings, [sent])
    found = read(sink_settings, Query(trace_ids=(sent.trace_id,)))
    comparison = compare([expected], found, sink_type.capabilities(sink_settings).losses)
    assert [finding.kind for finding in comparison.findings] == kinds


def turn_of(text: str) -> Span:
    return Span(
        kind="turn",
        trace_id="5" * 32,
        span_id="6" * 16,
        name="turn",
        start_ns=1_770_000_000_000_000_000,
        end_ns=1_770_000_000_000_000_001,
        session_id="s",
        input=text,
        fingerprint="f1",
    )


@pytest.mark.parametrize("reader", ["jaeger", "tempo"])
def test_a_session_whose_id_is_longer_than_the_limit_is_found_by_it(tempo: DevServer, reader: Backend) -> None:
    names = ["s" * 3_000 + end for end in "abc"]
    now_ns = time.time_ns() - 60_000_000_000
    sink_settings = msgspec.structs.replace(
        tempo_settings_for(tempo, 2_048), reader=ReaderSettings(type=reader, url=tempo.url)
    )
    now = msgspec.structs.replace(turn_of("x"), start_ns=now_ns, end_ns=now_ns)
    batch = [
        msgspec.structs.replace(now, trace_id=f"{number:032x}", session_id=name) for number, name in enumerate(names, 1)
    ]
    deliver(sink_settings, batch)
    for ids_only in (False, True):
        found = read(sink_settings, Query(session_id=names[1], ids_only=ids_only))
        assert [(span.session_id, span.trace_id) for span in found] == [(names[1], f"{2:032x}")]
