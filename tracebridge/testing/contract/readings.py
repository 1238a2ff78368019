"""`Reader`: law 2 of the contract, `read(deliver(span)) == span` up to the declared losses, and its queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import example, given

from tracebridge.assembler import disassemble
from tracebridge.errors import BackendError
from tracebridge.sink import Outcome, Query, Reader
from tracebridge.span import Span
from tracebridge.testing.contract.backend import BackendUnderTest, SpanId
from tracebridge.testing.contract.samples import batches, every_kind, law_settings, sample
from tracebridge.testing.contract.workplace import Workplace
from tracebridge.testing.faults import Fault
from tracebridge.validation.comparison import compare

_PATIENCE_S: Final = 5.0
_POLL_S: Final = 0.01


class ReadingCases:
    """Only for sinks that declare a reader; for others these are reported as not supported."""

    reading_examples = 10
    """How many generated batches are sent and read back."""

    def test_what_is_read_back_is_what_was_sent(self, backend: BackendUnderTest) -> None:
        """Law 2, on generated spans: they differ in nothing but the losses that the sink declares."""
        backend.require_reader()
        sink = backend.sink_type.open_sink(backend.settings)

        @law_settings(self.reading_examples)
        @given(batches())
        @example(every_kind())
        def law(batch: list[Span]) -> None:
            receipt = sink.deliver(sink.join([sink.encode(span) for span in batch]))
            assert receipt.outcome is Outcome.ACCEPTED, receipt
            found = _read(backend, Query(trace_ids=(batch[0].trace_id,)), len(batch))
            comparison = compare(batch, found, backend.capabilities.losses)
            assert comparison.findings == ()
            assert {span.span_id: span.fingerprint for span in found} == {
                span.span_id: span.fingerprint for span in batch
            }

        with closing(sink):
            law()

    def test_a_session_that_is_read_back_gives_its_events_back(self, backend: BackendUnderTest, tmp_path: Path) -> None:
        """The way back: from the backend's spans to the lines of the journal, in order."""
        backend.require_reader()
        work = Workplace(tmp_path, backend)
        work.record(2)
        work.deliver()
        expected = list(work.expected().values())
        session_id = expected[0].session_id
        owed = [span for span in expected if span.session_id == session_id]
        found = _read(backend, Query(session_id=session_id), len(owed))
        assert disassemble(found) == disassemble(owed)

    def test_a_query_gives_what_it_asks_for_and_nothing_else(self, backend: BackendUnderTest) -> None:
        """By session, by trace, by a window whose end is excluded, and by all of them at once."""
        backend.require_reader()
        wanted, same_session, other = sample(), sample(), sample()
        second = 1_000_000_000
        start_ns = wanted.start_ns // second * second
        wanted = msgspec.structs.replace(wanted, start_ns=start_ns)
        same_session = msgspec.structs.replace(
            same_session, session_id=wanted.session_id, start_ns=start_ns - 5 * second
        )
        other = msgspec.structs.replace(other, start_ns=start_ns + second)
        _deliver(backend, wanted, same_session, other)
        session, traces, end_ns = wanted.session_id, (wanted.trace_id,), start_ns + second
        asked = {
            "session": (Query(session_id=session), (wanted, same_session)),
            "traces": (Query(trace_ids=(wanted.trace_id, other.trace_id)), (wanted, other)),
            "window": (Query(start_ns=start_ns, end_ns=end_ns), (wanted,)),
            "session in a window": (Query(session_id=session, start_ns=start_ns, end_ns=end_ns), (wanted,)),
            "trace of another session": (Query(session_id=session, trace_ids=(other.trace_id,)), ()),
            "trace in a window": (Query(trace_ids=traces, start_ns=start_ns, end_ns=end_ns), (wanted,)),
        }
        everything = {_id(span) for span in (wanted, same_session, other)}
        _read(backend, Query(start_ns=start_ns - 10 * second, end_ns=start_ns + 10 * second), len(everything))
        found = {name: {_id(span) for span in _read(backend, query, 0)} for name, (query, _) in asked.items()}
        assert found == {name: {_id(span) for span in spans} for name, (_, spans) in asked.items()}

    def test_ids_only_and_enough_leave_out_no_more_than_they_say(self, backend: BackendUnderTest) -> None:
        """A query for ids gives all of them; one for which some are enough gives at least so many."""
        backend.require_reader()
        trace_id = sample().trace_id
        spans = [msgspec.structs.replace(sample(), trace_id=trace_id) for _ in range(5)]
        _deliver(backend, *spans)
        found = _read(backend, Query(trace_ids=(trace_id,), ids_only=True), len(spans))
        assert sorted(map(_id, found)) == sorted(map(_id, spans))
        few = _read(backend, Query(trace_ids=(trace_id,), ids_only=True, enough=2), 2)
        assert {_id(span) for span in few} <= {_id(span) for span in spans}

    def test_a_span_that_is_stored_twice_is_read_twice(self, backend: BackendUnderTest) -> None:
        """Else nobody would ever learn of it. A sink that declares itself idempotent stores it once."""
        backend.require_reader()
        span = sample()
        for _ in range(2):
            _deliver(backend, span)
        copies = 1 if backend.capabilities.idempotent else 2
        found = _read(backend, Query(trace_ids=(span.trace_id,)), copies)
        assert [_id(each) for each in found] == [_id(span)] * copies
        assert list(backend.stored()) == [_id(span)] * copies

    def test_a_backend_that_cannot_be_read_is_told_as_such(self, backend: BackendUnderTest) -> None:
        """By the one error that delivery and validation wait out; nothing else, and no empty answer."""
        backend.require_reader()
        backend.require("read_back")
        span = sample()
        _deliver(backend, span)
        backend.faults.add(Fault(route=backend.read_route, status=503, body="away"))
        with _open(backend) as reader, pytest.raises(BackendError) as error:
            list(reader.read(Query(trace_ids=(span.trace_id,))))
        assert [secret for secret in backend.secrets() if secret in str(error.value)] == []
        backend.faults.clear()
        assert len(_read(backend, Query(trace_ids=(span.trace_id,)), 1)) == 1


@contextmanager
def _open(backend: BackendUnderTest) -> Iterator[Reader]:
    reader = backend.sink_type.open_reader(backend.settings)
    try:
        yield reader
    finally:
        reader.close()


def _deliver(backend: BackendUnderTest, *spans: Span) -> None:
    sink = backend.sink_type.open_sink(backend.settings)
    try:
        receipt = sink.deliver(sink.join([sink.encode(span) for span in spans]))
    finally:
        sink.close()
    assert receipt.outcome is Outcome.ACCEPTED, receipt


def _read(backend: BackendUnderTest, query: Query, least: int) -> Sequence[Span]:
    """What the query gives, once it gives `least` spans or they have had the time to show."""
    deadline = time.monotonic() + _PATIENCE_S + backend.capabilities.visibility_lag_s
    with _open(backend) as reader:
        while len(found := list(reader.read(query))) < least and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    return found


def _id(span: Span) -> SpanId:
    return span.trace_id, span.span_id
