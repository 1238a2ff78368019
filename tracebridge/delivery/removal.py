"""`Removal`: deletes the files of sessions that are old enough and of which every sink has what it is owed.

It serves the spool (`sinks.jsonl.enabled: false`) and `tracebridge prune`. A session goes only if its runs are over,
every sink that it is owed to has accepted all of it, and those that can be read back *show* all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.pace import FullSpeed, Pace
from tracebridge.delivery.portion import Journal, Portion
from tracebridge.delivery.read_back import ReadBack
from tracebridge.delivery.settle import missing
from tracebridge.delivery.state import SpanRef, State
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.errors import BackendError
from tracebridge.event import Json
from tracebridge.journal import deletion, layout
from tracebridge.journal.reader import is_read
from tracebridge.journal.spooled import Spooled, SpooledLog
from tracebridge.policy import Policy, keeps_session
from tracebridge.session_stream import SessionStream, head_of, is_another
from tracebridge.span import Span

VERIFY_AGAIN_S: Final = 600.0
"""How long a session that a backend did not show whole is left alone, in seconds."""
_VERIFIED_AT_ONCE: Final = 20_000
"""How many spans of a session are held in memory to be looked for together."""


class Refusal(msgspec.Struct, frozen=True):
    """A session that is old enough and has to stay."""

    session: str
    """The session's id."""
    reason: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass came to."""

    sessions: list[str]
    """The ids of the sessions whose files were deleted, or would be."""
    bytes: int
    """The size of their journals."""
    refused: list[Refusal]


class _Candidate(msgspec.Struct, frozen=True):
    """A session that is old enough."""

    folder: Path
    session_id: str
    size: int


class _Owed:
    """What one sink has got of the trace folder, as the state says at the beginning of a pass."""

    def __init__(self, state: State, target: int, folder: int, name: str, policy: Policy, read_back: ReadBack | None):
        self.target = target
        self.name = name
        self.read_back = read_back
        self.includes_unsampled = policy.include_unsampled
        self._state = state
        self._folder = folder
        self._portion = Portion.of(state, target, policy)
        self._positions = state.positions(target, folder)
        self._deadlines = state.deadlines(target, folder)
        self._in_flight = {ref.session_id for batch in state.in_flight(target) for ref in batch.refs}
        self._dead = {letter.ref.session_id for letter in state.dead.of(target)}

    def concerns(self, candidate: _Candidate) -> bool:
        """Whether the sink's share takes the session."""
        # a window says what is sent, not what may be deleted
        return not self._portion.standing(Journal(self._folder, candidate.folder)).is_left_out

    def reason_to_keep(self, candidate: _Candidate) -> str:
        """Why the sink needs the session's files; empty if it does not."""
        folder_name, events = candidate.folder.name, layout.events_file(candidate.folder)
        is_all_read = is_read(events, self._positions.get(folder_name, 0), candidate.size)
        if not is_all_read or candidate.session_id in self._in_flight or self._was_replaced(folder_name, events):
            return f"not all of it is delivered to {self.name}"
        if folder_name in self._deadlines:
            return f"something of it is still open for {self.name}"
        if candidate.session_id in self._dead:
            return f"{self.name} has dead letters of it"
        return ""

    def _was_replaced(self, folder_name: str, events: Path) -> bool:
        """Whether the file is another one than that which was read."""
        cursor = self._state.cursor(self.target, self._folder, folder_name)
        return cursor is not None and is_another(events, cursor.head)


class _OwedThoughOff(_Owed):
    """The same of a sink that is switched off: it is owed what it had begun, or had pending when it went off."""

    def concerns(self, candidate: _Candidate) -> bool:
        """Whether the sink had the session, or waits for it."""
        return candidate.folder.name in self._positions or candidate.session_id in self._in_flight | self._dead

    def reason_to_keep(self, candidate: _Candidate) -> str:
        """Why the sink needs the session's files; empty if it does not."""
        reason = super().reason_to_keep(candidate)
        return f"{reason}, which is switched off: switch it on, or `tracebridge forget` it" if reason else ""


class _OwedWithDefect:
    """A sink whose plug-in cannot be used: nobody knows what it has got, so it is owed everything."""

    read_back = None
    includes_unsampled = True

    def __init__(self, sink: SinkSettings) -> None:
        self.name = sink.name
        self._policy = sink.policy

    def concerns(self, candidate: _Candidate) -> bool:
        """Whether the sink's sampling takes the session."""
        return keeps_session(self._policy, candidate.session_id)

    def reason_to_keep(self, candidate: _Candidate) -> str:
        """Why the sink needs the session's files."""
        return f"the plug-in of {self.name} cannot be used, so nobody knows what it has got"


class _Verified(NamedTuple):
    """A span that every sink must show whose policy keeps it."""

    ref: SpanRef
    is_sampled: bool

    @classmethod
    def of(cls, span: Span) -> _Verified:
        return cls(SpanRef.of(span), span.is_sampled)


class Removal:
    """Deletes from one trace folder. Folders that were backfilled from elsewhere are never touched."""

    def __init__(self, settings: Settings, pace: Pace | None = None, noted_in: SpooledLog | None = None) -> None:
        """Open the state. What goes is noted in `noted_in`, if there is one.

        Raises:
            StateError: the state cannot be used.
        """
        self._settings = settings
        self._trace_dir = settings.trace_dir
        self._pace = pace or FullSpeed()
        self._log = noted_in
        self._state = State(layout.state_file(settings.trace_dir))
        self._folder = self._state.folder(settings.trace_dir)
        self._read_backs = {
            sink.name: ReadBack(sink.open_reader, self._pace)
            for sink in settings.enabled_sinks
            if sink.capabilities.readable
        }
        self._asked_by_trace = {sink.name for sink in settings.enabled_sinks if sink.capabilities.hidden_from_search}
        self._verify_at: dict[str, tuple[int, float]] = {}

    def close(self) -> None:
        """Close the state and the readers."""
        with ExitStack() as open_ones:
            open_ones.callback(self._state.close)
            for read_back in self._read_backs.values():
                open_ones.callback(read_back.close)

    def remove_older_than(
        self,
        seconds: float,
        *,
        dry_run: bool = False,
        wall_ns: Callable[[], int] = time.time_ns,
        is_over: Callable[[], bool] = bool,
    ) -> Removed:
        """Go through the folder once.

        Args:
            seconds: how long ago a session must have been written to last.
            dry_run: only tell what would be deleted.
            wall_ns: the wall clock.
            is_over: asked before each session; the pass ends when it says so.

        Raises:
            OSError: the folder cannot be changed.
        """
        if not dry_run:
            sweep(self._state, self._folder, self._trace_dir)
        defective = [_OwedWithDefect(sink) for sink in self._settings.defective_sinks]
        owed: list[_Owed | _OwedWithDefect] = [*self._owed(), *defective]
        result = Removed(sessions=[], bytes=0, refused=[])
        gone_bytes = 0
        for candidate in self._older_than(seconds, wall_ns()):
            self._pace.tick()
            if is_over():
                break
            reason = self._reason_to_keep(candidate, owed)
            if not reason and not dry_run:
                without = [sink.target for sink in owed if isinstance(sink, _Owed) and not sink.concerns(candidate)]
                reason = self._remove(candidate, without)
            if reason and not layout.events_file(candidate.folder).exists():
                continue  # another pass has deleted it meanwhile, and counts it
            if reason:
                result.refused.append(Refusal(candidate.session_id, reason))
            else:
                result.sessions.append(candidate.session_id)
                gone_bytes += candidate.size
        return msgspec.structs.replace(result, bytes=gone_bytes)

    def _remove(self, candidate: _Candidate, without: Sequence[int]) -> str:
        """Delete a session's files, which is noted before; why they stay, or empty."""
        name, session_id = candidate.folder.name, candidate.session_id
        noted = None if self._log is None else self._log.append(name, session_id, without)
        try:
            reason = deletion.remove(self._trace_dir, candidate.folder, candidate.size)
        except OSError:
            self._withdraw(noted)
            raise
        if reason:
            self._withdraw(noted)
        sweep(self._state, self._folder, self._trace_dir)
        return reason

    def _withdraw(self, noted: Spooled | None) -> None:
        if noted is not None and self._log is not None:
            self._log.withdraw(noted)

    def _owed(self) -> Iterator[_Owed]:
        state, folder = self._state, self._folder
        enabled = set()
        for sink in self._settings.enabled_sinks:
            target = state.target(sink.name, sink.endpoint)
            enabled.add(target)
            yield _Owed(state, target, folder, sink.name, sink.policy, self._read_backs.get(sink.name))
        for off in state.targets():
            if off.id not in enabled:
                yield _OwedThoughOff(state, off.id, folder, f"{off.sink} ({off.endpoint})", Policy(), None)

    def _older_than(self, seconds: float, now_ns: int) -> Iterator[_Candidate]:
        for folder in layout.session_folders(self._trace_dir):
            self._pace.tick()
            try:
                status = layout.events_file(folder).stat()
            except FileNotFoundError:
                continue
            if now_ns - status.st_mtime_ns >= seconds * 1e9:
                yield _Candidate(folder, layout.session_id_of(folder), status.st_size)

    def _reason_to_keep(self, candidate: _Candidate, owed: Sequence[_Owed | _OwedWithDefect]) -> str:
        if candidate.folder.is_symlink() or layout.events_file(candidate.folder).is_symlink():
            return "it is a link, and only what lies in the trace folder itself is deleted"
        concerned = [sink for sink in owed if sink.concerns(candidate)]
        for sink in concerned:
            if reason := sink.reason_to_keep(candidate):
                return reason
        size, verify_at = self._verify_at.get(candidate.folder.name, (-1, 0.0))
        if size == candidate.size and time.monotonic() < verify_at:
            return "it did not show whole a short while ago"
        reason = self._verified(candidate, [sink for sink in concerned if sink.read_back is not None])
        if reason:
            self._verify_at[candidate.folder.name] = candidate.size, time.monotonic() + VERIFY_AGAIN_S
        else:
            self._verify_at.pop(candidate.folder.name, None)
        return reason

    def _verified(self, candidate: _Candidate, readable: Sequence[_Owed | _OwedWithDefect]) -> str:
        """Read the journal, and back from every sink that can be read what is owed to it; why not, or empty."""
        stream = SessionStream(layout.events_file(candidate.folder), _everything)
        began_ns = time.time_ns()
        spans: list[_Verified] = []
        try:
            for step in stream.steps():
                self._pace.tick()
                if step.problem is not None and step.problem.is_unread:
                    return f"byte {step.problem.offset} of its file: {step.problem.text}; no sink has it"
                spans += map(_Verified.of, step.spans)
                if len(spans) >= _VERIFIED_AT_ONCE:
                    if reason := self._not_shown(spans, readable):
                        return reason
                    spans = []
        except OSError as error:
            return f"its file cannot be read: {error}"
        spans += map(_Verified.of, stream.expire(began_ns - INCOMPLETE_GRACE_NS))
        if not stream.is_idle:
            return "its last run is not over"
        return self._not_shown(spans, readable)

    def _not_shown(self, spans: list[_Verified], readable: Sequence[_Owed | _OwedWithDefect]) -> str:
        for sink in readable:
            assert sink.read_back is not None, "only those that can be read are asked"
            refs = [span.ref for span in spans if span.is_sampled or sink.includes_unsampled]
            if not refs:
                continue
            try:
                absent = missing(sink.read_back.reader(), refs, by_trace=sink.name in self._asked_by_trace)
            except BackendError as error:
                sink.read_back.close()
                return f"{sink.name} cannot be read back: {error}"
            if absent:
                return f"{len(absent)} of its spans do not show at {sink.name}"
        return ""


def sweep(state: State, folder: int, trace_dir: Path) -> None:
    """Forget and delete what was taken out of its place, by this process or by one that died.

    Args:
        state: what is to forget it.
        folder: the number of the trace folder in it.
        trace_dir: the trace folder.

    Raises:
        OSError: it cannot be deleted.
    """
    for gone in deletion.removed(trace_dir):
        try:
            with gone.path.open("rb") as file:
                head = head_of(file)
        except FileNotFoundError:
            continue  # another process has done so meanwhile
        state.forget_session(folder, gone.session, head)
        deletion.delete(trace_dir, gone)


def _everything(event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    """A narrowing that leaves all: only the ids of the spans are of interest."""
    return data
