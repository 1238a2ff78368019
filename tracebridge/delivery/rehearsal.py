"""`rehearse`: delivery as it would be, on a copy of the state and with nothing sent, to count what it comes to."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.choice import Window
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.shipper import Shipper
from tracebridge.delivery.state import State
from tracebridge.errors import StateError
from tracebridge.journal import layout
from tracebridge.sink import Capabilities, CuttingSink, Outcome, Reader, Receipt, Sink, SinkType
from tracebridge.span import Span

_WAIT_S: Final = 0.05

Progress = Callable[[int, int], None]
"""Is told how many bytes of journals of how many were read."""


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What delivering to one sink would come to, if it took everything at once."""

    sink: str
    endpoint: str
    spans: int
    events: int
    """Events that those spans are made of."""
    traces: int
    """Of a trace that several sessions share, each counts."""
    requests: int
    bytes: int
    """Of the requests' bodies before they are compressed, if the sink compresses them."""
    cut: int
    """Spans that are too large, or hold too large a value, and would be cut."""
    dead: int
    """Spans that the sink cannot encode, and that would become dead letters."""
    units: int | None
    """What the operator of such a backend counts them as for the bill; None where nothing is known of that."""


def rehearse(
    settings: Settings, folders: Iterable[Path], window: Window, progress: Progress = lambda *_: None
) -> list[Rehearsed]:
    """Tell what backfilling `folders` would send to each sink, beside what is pending anyway.

    The state of the trace folder is read, and neither written nor made. No backend is asked anything: what one holds
    already without this state knowing of it counts as if it were to be sent.

    Raises:
        MissingExtraError: a sink's packages are not installed.
        StateError: the state cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="tracebridge-") as name:
        place = Path(name)
        _copy_state(layout.state_file(settings.trace_dir), layout.state_file(place))
        with closing(State(layout.state_file(place))) as state:
            state.copied_from(settings.trace_dir)
            state.folder(settings.trace_dir)
            for folder in folders:
                state.backfill(folder, window)
        return [_rehearsed(sink, place, progress) for sink in settings.enabled_sinks]


def _copy_state(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True)
    if not path.exists():
        return
    # while nobody has it open, even a connection that only reads would leave files beside it
    immutable = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{immutable}", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise StateError(f"{path}: the delivery state cannot be read: {error}") from error


def _rehearsed(sink: SinkSettings, place: Path, progress: Progress) -> Rehearsed:
    assert sink.sink_type is not None, "only complete sinks are enabled"
    counts = _Counts()
    rehearsing = msgspec.structs.replace(sink, sink_type=_RehearsedType(sink.sink_type, counts))
    with closing(State(layout.state_file(place))) as state:
        target = state.target(sink.name, sink.endpoint)
        before = state.account(target)
        with closing(Shipper(rehearsing, place, FullSpeed())) as shipper:
            total = 0
            while not (round_ := shipper.round()).is_done:
                pending = shipper.pending_bytes()
                total = max(total, pending)
                progress(total - pending, total)
                shipper.wait(min(round_.wait_s, _WAIT_S))
        after = state.account(target)

    spans, units = after.more(before, "confirmed_spans"), sink.capabilities.billable_units
    return Rehearsed(
        sink=sink.name,
        endpoint=sink.endpoint,
        spans=spans,
        events=after.more(before, "confirmed_events"),
        traces=counts.traces,
        requests=counts.requests,
        bytes=counts.bytes,
        cut=after.more(before, "cut_spans"),
        dead=after.dead_spans - before.dead_spans,
        units=None if units is None else units(counts.traces, spans),
    )


class _Counts:
    """What one sink was given. Several threads may deliver at once."""

    def __init__(self) -> None:
        self.traces = 0
        self.requests = 0
        self.bytes = 0
        self._lock = Lock()
        self._session_id = ""
        # of one session only: they are read one after the other, and there may be millions of traces
        self._traces_of_session: set[str] = set()

    def span(self, span: Span) -> None:
        if span.session_id != self._session_id:
            self._session_id = span.session_id
            self._traces_of_session.clear()
        if span.trace_id not in self._traces_of_session:
            self._traces_of_session.add(span.trace_id)
            self.traces += 1

    def request(self, size: int) -> None:
        with self._lock:
            self.requests += 1
            self.bytes += size


class _RehearsedType:
    """A sink type whose sinks send nothing and whose readers are never asked."""

    def __init__(self, real: SinkType, counts: _Counts) -> None:
        self._real, self._counts = real, counts

    @property
    def settings(self) -> type[msgspec.Struct]:
        return self._real.settings

    @property
    def environment(self) -> Mapping[str, Sequence[str]]:
        return self._real.environment

    @property
    def extra(self) -> str:
        return self._real.extra

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        return msgspec.structs.replace(self._real.capabilities(settings), readable=False)

    def endpoint(self, settings: msgspec.Struct) -> str:
        return self._real.endpoint(settings)

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        return _RehearsedSink(self._real.open_sink(settings), self._counts)

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        raise NotImplementedError("a rehearsal reads nothing back")


class _RehearsedSink:
    """Takes everything and sends nothing."""

    def __init__(self, real: Sink, counts: _Counts) -> None:
        self._real, self._counts = real, counts

    def encode(self, span: Span) -> bytes:
        self._counts.span(span)
        return self._real.encode(span)

    def take_cut(self) -> int:
        return self._real.take_cut() if isinstance(self._real, CuttingSink) else 0

    def join(self, parts: Sequence[bytes]) -> bytes:
        return self._real.join(parts)

    def deliver(self, request: bytes) -> Receipt:
        self._counts.request(len(request))
        return Receipt(outcome=Outcome.ACCEPTED)

    def close(self) -> None:
        self._real.close()
