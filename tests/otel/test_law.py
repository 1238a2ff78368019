"""Law 2 of the sink contract, `read(deliver(span)) == span` up to the declared losses, over HTTP and gRPC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracebridge.assembler import Assembler, Place
from tracebridge.devserver import DevServer
from tracebridge.journal.reader import read_journal
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge_otel.configuration import OtelSettings, Protocol, ReaderSettings
from tracebridge_otel.factory import sink_type


def settings_for(server: DevServer, protocol: Protocol) -> OtelSettings:
    return OtelSettings(
        protocol=protocol,
        endpoint=f"http://{server.grpc_endpoint}" if protocol == "grpc" else server.url,
        compression="gzip",
        reader=ReaderSettings(url=server.url),
    )


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


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_what_was_delivered_reads_back_equal(devserver: DevServer, protocol: Protocol) -> None:
    sink_settings = settings_for(devserver, protocol)

    @given(st.lists(spans(), min_size=1, max_size=12, unique_by=lambda span: (span.trace_id, span.span_id)))
    @settings(max_examples=15)
    def law(batch: list[Span]) -> None:
        deliver(sink_settings, batch)
        query = Query(trace_ids=tuple(span.trace_id for span in batch))
        ids = {(span.trace_id, span.span_id) for span in batch}
        # an earlier example may have left other spans in the same trace, and the very same one again
        found = [span for span in read(sink_settings, query) if (span.trace_id, span.span_id) in ids]
        assert set(exact(batch, sink_settings)) <= set(exact(found, sink_settings))

    law()


def test_real_sessions_read_back_equal(devserver: DevServer, legacy_traces: Path) -> None:
    sink_settings = settings_for(devserver, "http/protobuf")
    real: list[Span] = []
    folders = sorted(legacy_traces.iterdir())
    for folder in folders:
        assembler = Assembler()
        with (folder / "events.jsonl").open("rb") as file:
            for ordinal, line in enumerate(read_journal(file, 0)):
                assert line.event is not None
                real += assembler.feed(line.event, Place(offset=line.offset, ordinal=ordinal))
    marked = [msgspec.structs.replace(span, fingerprint="f1") for span in real]
    for first in range(0, len(marked), 500):
        deliver(sink_settings, marked[first : first + 500])
    window = Query(start_ns=min(span.start_ns for span in marked), end_ns=max(span.start_ns for span in marked) + 1)
    assert len(folders) == 100
    assert exact(read(sink_settings, window), sink_settings) == exact(marked, sink_settings)
