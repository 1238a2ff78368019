"""`Restorer`: rebuilds the JSONL folder from what one sink's reader shows, session by session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from tracebridge import policy as policies
from tracebridge.assembler import disassemble
from tracebridge.config import SinkSettings
from tracebridge.errors import BackendError, ConfigurationError, IncompleteAnswerError
from tracebridge.event import Json, is_trace_id
from tracebridge.policy import Policy
from tracebridge.restore.folder import BeforeMove, OutFolder, already_there
from tracebridge.restore.foreign import adopt
from tracebridge.restore.inventory import Inventory, take_stock
from tracebridge.restore.metadata import metadata_of
from tracebridge.restore.rebuild import rebuild
from tracebridge.restore.record import Origin, Restoration, RestoredSession, Shortfall
from tracebridge.sink import Query
from tracebridge.span import Edge, Span

_TRACES_AT_ONCE: Final = 50
T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Is told how many sessions of how many are done."""

PolicyOf = Callable[[str], Policy | None]
"""The policy that spans with a fingerprint were sent under, if it is known."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions to restore: some by name, else those with a span that begins in a window, each whole."""

    session_ids: tuple[str, ...] = ()
    """A trace's id stands for a trace whose spans name no session."""
    start_ns: int = 0
    """Inclusive, in nanoseconds since the epoch."""
    end_ns: int | None = None
    """Exclusive."""


class Restorer:
    """Restores from one sink. In memory are the spans of one session, and the ids of all."""

    def __init__(
        self,
        sink: SinkSettings,
        out: Path,
        capture: Policy,
        policy_of: PolicyOf,
        before_move: BeforeMove | None = None,
    ) -> None:
        """Open the sink's reader; nothing is written yet.

        `capture` is what enters the journal: what it leaves out is in no original. `before_move` is as for `OutFolder`.

        Raises:
            ConfigurationError: the sink cannot be read back.
            MissingExtraError: the sink's packages are not installed.
        """
        if sink.sink_type is None or sink.settings is None:
            why = sink.defect or "its settings are not complete"
            raise ConfigurationError(f"sink {sink.name}: cannot be read back: {why}")
        self._capabilities = sink.capabilities
        if not self._capabilities.readable:
            raise ConfigurationError(
                f"sink {sink.name}: cannot be read back, so nothing can be restored from it; "
                "an OpenTelemetry sink needs `reader:`"
            )
        self._sink = sink
        self._out = out
        self._before_move = before_move
        self._capture = msgspec.structs.replace(capture, sample_rate=1.0)
        self._policy_of = policy_of
        self._reader = sink.open_reader()

    def close(self) -> None:
        """Release the reader."""
        self._reader.close()

    def restore(
        self, selection: Selection, *, skip_existing: bool = False, progress: Progress | None = None
    ) -> Restoration:
        """Restore what is selected. What was written before trouble stays, whole.

        Raises:
            BackendError: the backend cannot be read at all.
            ExistingSessionError: a session is there already, and `skip_existing` is not set.
            OutFolderError: the folder cannot be restored into.
        """
        with OutFolder(self._out, self._before_move) as out:
            stock = self._stock_of(selection)
            if not skip_existing:
                there = [name for name in (*stock.sessions, *stock.loose) if out.holds(name)]
                if there:
                    raise already_there(out.path, there)
            run = _Run(self, out, stock, skip_existing=skip_existing, is_by_name=bool(selection.session_ids))
            trouble = run.go(progress)
        return Restoration(
            sink=self._sink.name,
            endpoint=self._sink.endpoint,
            out=str(self._out),
            sessions=tuple(run.restored),
            skipped=tuple(run.skipped),
            not_found=tuple(run.not_found),
            probes=stock.probes,
            declared={loss.name: loss.words for loss in self._capabilities.losses},
            unlisted=self._capabilities.hidden_from_search,
            sampled=self._sink.policy.sample_rate,
            trouble=trouble,
            left=run.left,
        )

    def _stock_of(self, selection: Selection) -> Inventory:
        if selection.session_ids:
            return Inventory(sessions=tuple(dict.fromkeys(selection.session_ids)))
        window = Query(start_ns=selection.start_ns, end_ns=selection.end_ns, ids_only=True)
        is_everything = (selection.start_ns, selection.end_ns) == (Selection().start_ns, Selection().end_ns)
        return take_stock(self._reader.read(window), are_all=is_everything)

    def read(self, query: Query) -> tuple[list[Span], int]:
        """The spans that a query asks for, each once, and how many more copies there are."""
        found: dict[tuple[str, str, int | None, int | None], Span] = {}
        repeats = 0
        for span in self._reader.read(query):
            # a journal may name one span twice: then these are two spans, made of other events
            if (
                found.setdefault((span.trace_id, span.span_id, _place(span.opened), _place(span.closed)), span)
                is not span
            ):
                repeats += 1
        return list(found.values()), repeats

    def rebuilt(self, session_id: str, spans: list[Span], repeats: int, out: OutFolder) -> RestoredSession:
        """Write a session from spans of which some are tracebridge's: they hold its events."""
        own = [span for span in spans if span.fingerprint]
        found = rebuild(own, self._capabilities.losses, self._tells_all)
        shortfalls = found.shortfalls | self._losses_shown(own)
        told = _Told(own, found.events, shortfalls, found.losses, repeats, len(spans) - len(own))
        return _written(session_id, "tracebridge", told, out)

    def adopted(self, session_id: str, spans: list[Span], repeats: int, out: OutFolder) -> RestoredSession:
        """Write a session from spans that are all somebody else's."""
        found = adopt(session_id, spans)
        shortfalls = found.shortfalls | self._losses_shown(spans)
        told = _Told(spans, disassemble(found.spans), shortfalls, {}, repeats, 0)
        return _written(session_id, "other", told, out)

    def _losses_shown(self, spans: list[Span]) -> dict[str, int]:
        """By the name of a declared loss, how many spans it has struck, where they tell."""
        shown = {loss.name: loss.shows for loss in self._capabilities.losses if loss.shows is not None}
        counts = {name: sum(map(shows, spans)) for name, shows in shown.items()}
        return {name: count for name, count in counts.items() if count}

    def _tells_all(self, span: Span) -> bool:
        """Whether a span shows all that the journal holds of its events.

        A file without ids was not written under the capture policy: what that leaves out may be in it.
        """
        policy = self._policy_of(span.fingerprint)
        if policy is None:
            return False
        sent = msgspec.structs.replace(policy, sample_rate=1.0)
        is_captured = all(edge.ids for edge in (span.opened, span.closed) if edge is not None)
        return sent == Policy() or (is_captured and policies.narrow(self._capture, sent) == self._capture)


class _Told(msgspec.Struct, frozen=True):
    """What is known of a session, before it is written."""

    spans: list[Span]
    events: list[dict[str, Json]]
    shortfalls: dict[str, int]
    losses: dict[str, int]
    repeats: int
    others: int


class _Run:
    """One restoration on its way."""

    def __init__(
        self, restorer: Restorer, out: OutFolder, stock: Inventory, *, skip_existing: bool, is_by_name: bool
    ) -> None:
        self._restorer = restorer
        self._out = out
        self._skip_existing = skip_existing
        self._is_by_name = is_by_name
        self._mixed = stock.mixed
        self._queue: dict[str, None] = dict.fromkeys(stock.sessions)
        self._done: set[str] = set()
        self._loose = list(reversed(stock.loose))
        self._nameless: list[str] = []
        self._incomplete = 0
        self._trouble = ""
        self.restored: list[RestoredSession] = []
        self.skipped: list[str] = []
        self.not_found: list[str] = []

    @property
    def left(self) -> int:
        """How many sessions are not done."""
        return self._ahead + self._incomplete

    @property
    def _ahead(self) -> int:
        return len(self._queue) + len(self._loose) + bool(self._nameless)

    def go(self, progress: Progress | None) -> str:
        """Restore one after the other; returns why not all of them were, or nothing."""
        done = 0
        while self._ahead:
            try:
                self._next()
            except BackendError as error:
                return str(error)
            done += 1
            if progress is not None:
                progress(done, done + self._ahead)
        return self._trouble

    def _next(self) -> None:
        if self._queue:
            session_id = next(iter(self._queue))
            self._attempt(self._session, session_id)
            del self._queue[session_id]
            self._done.add(session_id)
        elif self._loose:
            self._attempt(self._trace, self._loose[-1])
            self._loose.pop()
        else:
            self._attempt(self._write_nameless, tuple(self._nameless))
            self._nameless.clear()

    def _attempt(self, restore: Callable[[T], None], what: T) -> None:
        """Restore one; what the backend does not show whole is left, for the next may be shown whole."""
        try:
            restore(what)
        except IncompleteAnswerError as error:
            self._trouble = self._trouble or str(error)
            self._incomplete += 1

    def _write_nameless(self, traces: tuple[str, ...]) -> None:
        spans, repeats = self._restorer.read(Query(trace_ids=traces))
        self._write("", [span for span in spans if span.fingerprint and not span.session_id], repeats)

    def _session(self, session_id: str) -> None:
        if self._skips(session_id):
            return
        spans, repeats = self._restorer.read(Query(session_id=session_id))
        if not spans and self._is_by_name and is_trace_id(session_id):
            spans, repeats = self._restorer.read(Query(trace_ids=(session_id,)))
            spans = [span for span in spans if not (span.session_id or span.fingerprint)]
        elif not any(span.fingerprint for span in spans):
            spans += self._rest_of_traces(session_id, spans)
        if spans:
            self._write(session_id, spans, repeats)
        else:
            self.not_found.append(session_id)

    def _rest_of_traces(self, session_id: str, spans: list[Span]) -> list[Span]:
        """Spans in a session's traces that name no session: senders often name it on the root alone."""
        traces = sorted({span.trace_id for span in spans})
        if self._mixed is not None:
            traces = [trace for trace in traces if trace in self._mixed]
        known = {(span.trace_id, span.span_id) for span in spans}
        rest: list[Span] = []
        for begin in range(0, len(traces), _TRACES_AT_ONCE):
            found, _ = self._restorer.read(Query(trace_ids=tuple(traces[begin : begin + _TRACES_AT_ONCE])))
            # of several sessions in one trace, one gets them
            first = _first_sessions(found)
            rest += [
                span
                for span in found
                if not span.session_id
                and not span.fingerprint
                and first.get(span.trace_id) == session_id
                and (span.trace_id, span.span_id) not in known
            ]
        return rest

    def _trace(self, trace_id: str) -> None:
        """Restore a trace whose spans name no session, unless reading it whole shows that they do."""
        if self._skips(trace_id):
            return
        spans, repeats = self._restorer.read(Query(trace_ids=(trace_id,)))
        named = {span.session_id for span in spans if span.session_id}
        if named:
            self._queue.update(dict.fromkeys(sorted(named - self._done)))
        elif any(span.fingerprint for span in spans):
            self._nameless.append(trace_id)
        elif spans:
            self._write(trace_id, spans, repeats)

    def _skips(self, session_id: str) -> bool:
        if self._skip_existing and self._out.holds(session_id):
            self.skipped.append(session_id)
            return True
        return False

    def _write(self, session_id: str, spans: list[Span], repeats: int) -> None:
        if session_id == "" and self._skips(session_id):
            return
        is_ours = any(span.fingerprint for span in spans)
        write = self._restorer.rebuilt if is_ours else self._restorer.adopted
        self.restored.append(write(session_id, spans, repeats, self._out))


def _written(session_id: str, origin: Origin, told: _Told, out: OutFolder) -> RestoredSession:
    folder = out.write(session_id, told.events, metadata_of(session_id, told.events))
    return RestoredSession(
        session_id=session_id,
        folder=folder.name,
        origin=origin,
        events=len(told.events),
        spans=dict(sorted(Counter(span.kind for span in told.spans).items())),
        repeats=told.repeats,
        others=told.others,
        losses=told.losses,
        shortfalls=tuple(Shortfall(name=name, count=count) for name, count in sorted(told.shortfalls.items())),
    )


def _place(edge: Edge | None) -> int | None:
    return None if edge is None else edge.ordinal


def _first_sessions(spans: Iterable[Span]) -> dict[str, str]:
    first: dict[str, str] = {}
    for span in spans:
        if span.session_id:
            first[span.trace_id] = min(first.get(span.trace_id, span.session_id), span.session_id)
    return first
