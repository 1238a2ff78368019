"""What holds for the reader of each query API."""

from __future__ import annotations

import httpx

from tests.otel.test_law import deliver, read
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.wire import WireScope, WireSpan


class EveryReader:
    """Tests for a class that has fixtures: `settings` of an empty backend, and `one`, a span of the session `s`."""

    def test_a_span_that_is_stored_twice_is_read_twice(self, settings: OtelSettings, one: Span) -> None:
        for _ in range(2):
            deliver(settings, [one])
        assert len(read(settings, Query(trace_ids=(one.trace_id,)))) == 2
        assert len(read(settings, Query(session_id="s"))) == 2

    def test_what_is_not_there_is_nothing_and_no_error(self, settings: OtelSettings) -> None:
        assert read(settings, Query(trace_ids=("1" * 32,))) == []
        assert read(settings, Query(session_id="nobody")) == []

    def test_a_foreign_span_in_a_sessions_trace_is_read_with_it_and_without_our_mark(
        self, settings: OtelSettings, one: Span
    ) -> None:
        deliver(settings, [one])
        foreign = WireSpan(
            trace_id=one.trace_id, span_id="f" * 16, name="GET /", start_ns=one.start_ns, end_ns=one.start_ns
        )
        body = join([encode_span(foreign)], {"service.name": "tool-service"}, WireScope())
        headers = {"content-type": "application/x-protobuf"}
        httpx.post(settings.url, content=body, headers=headers).raise_for_status()
        marks = {span.span_id: span.fingerprint for span in read(settings, Query(trace_ids=(one.trace_id,)))}
        assert marks == {one.span_id: "f1", "f" * 16: ""}
        assert {span.span_id: span.fingerprint for span in read(settings, Query(session_id="s"))} == marks
