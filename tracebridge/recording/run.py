"""`Run`: one `trace_session` block, as a writer of events."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tracebridge import jsonvalue, policy
from tracebridge.event import EVENT_TYPES, SESSION_START, Json
from tracebridge.interruption import is_interruption
from tracebridge.journal.writer import Journal
from tracebridge.policy import Policy
from tracebridge.recording import oversize
from tracebridge.recording.ids import IdSource
from tracebridge.recording.pairing import OpenCalls
from tracebridge.recording.place import Place
from tracebridge.tracecontext import Propagation

MAX_EVENT_BYTES: Final = 16_000_000
"""The largest event that is recorded whole."""


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of the journal, in the order of its fields."""

    timestamp: str
    event_type: str
    session_id: str
    run_id: str
    turn: int
    duration_ms: float | None
    data: Any
    seq: int
    trace_id: str
    span_id: str
    parent_id: str | None = None
    trace_flags: str | None = None


class Capture:
    """What enters the journal: a policy, prepared for the agent's thread."""

    __slots__ = ("_max_event_bytes", "_policy", "always_seen", "unseen_bytes")

    def __init__(self, capture: Policy, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._policy = capture
        self._max_event_bytes = max_event_bytes
        self.always_seen = frozenset(kind for kind in EVENT_TYPES if policy.touches(capture, kind, 0))
        """The types of events that the policy may change whatever their size."""
        longest = max_event_bytes if capture.max_content_length is None else capture.max_content_length
        self.unseen_bytes = min(longest, max_event_bytes)
        """The size up to which the policy cannot change an event of any other type."""

    def kept(self, event_type: str, data: dict[str, Any]) -> dict[str, Json]:
        """Return what may be recorded of the data of an event."""
        return policy.apply(self._policy, event_type, jsonvalue.plain(data))

    def narrow(self, line: Line, encoded: bytes) -> bytes:
        """Return what may be recorded of a line that was encoded to `encoded`."""
        limit = self._policy.max_content_length
        if line.event_type in self.always_seen or (limit is not None and jsonvalue.may_hold_longer(encoded, limit)):
            # read from the bytes: what the agent gave may have changed since, and holds more than JSON values
            data: dict[str, Json] = jsonvalue.decode(encoded)["data"]
            kept = policy.apply(self._policy, line.event_type, data)
            if kept is not data:
                line.data = kept
                encoded = encode_line(line)
        if len(encoded) > self._max_event_bytes:
            data = jsonvalue.decode(encoded)["data"]
            envelope = len(encoded) - len(jsonvalue.encode(data))
            line.data = oversize.cut_to(data, self._max_event_bytes - envelope)
            encoded = encode_line(line)
        return encoded


class Run:
    """Writes the events of one run. It may be used by many threads at once."""

    __slots__ = (
        "_always_seen",
        "_capture",
        "_file",
        "_journal",
        "_next_seq",
        "_unseen_bytes",
        "calls",
        "handle",
        "monotonic_ns",
        "new_span_id",
        "new_trace_id",
        "propagation",
        "run_id",
        "session_id",
    )

    def __init__(
        self,
        *,
        session_id: str,
        journal: Journal,
        capture: Capture,
        ids: IdSource,
        monotonic_ns: Callable[[], int],
        propagation: Propagation | None = None,
    ) -> None:
        self.propagation = propagation
        self.handle: Callable[[], object] = object
        """Gives the `Session` that this run was opened by; None once nobody holds it, so that nothing more can come."""
        self.session_id = session_id
        self.run_id = ids.run_id()
        self.new_span_id = ids.span_id
        self.new_trace_id = ids.trace_id
        self.monotonic_ns = monotonic_ns
        self.calls = OpenCalls()
        self._journal = journal
        self._file = journal.file(session_id)
        self._capture = capture
        self._unseen_bytes = capture.unseen_bytes
        self._always_seen = capture.always_seen
        self._next_seq = itertools.count().__next__

    def record(
        self,
        event_type: str,
        data: dict[str, Any],
        place: Place,
        span_id: str,
        parent_id: str | None,
        now_ns: int,
        duration_ms: float | None = None,
    ) -> None:
        """Write one event of the span `span_id`, in the trace and turn of `place`."""
        line = Line(
            place.clock.timestamp(now_ns),
            event_type,
            self.session_id,
            self.run_id,
            place.turn,
            duration_ms,
            data,
            self._next_seq(),
            place.trace_id,
            span_id,
            parent_id,
            place.trace_flags,
        )
        try:
            encoded = _encode_lines([line])
        except Exception as error:
            if is_interruption(error):
                raise
            line.data = jsonvalue.plain(data)
            encoded = encode_line(line)
        if len(encoded) > self._unseen_bytes or event_type in self._always_seen:
            encoded = self._capture.narrow(line, encoded)
        self._file.append(encoded, now_ns)

    def write_metadata(self, created_at: str, metadata: dict[str, Any], known: dict[str, Any]) -> None:
        """Write what is known of the run to `metadata.json`."""
        kept = self._capture.kept(SESSION_START, {"metadata": metadata, "run_id": self.run_id, **known})
        document = {"session_id": self.session_id, "created_at": created_at, **kept}
        self._journal.write_metadata(self.session_id, self.run_id, document)

    def close_file(self) -> None:
        """Let go of the file; a later event opens it again."""
        self._file.close()


def encode_line(line: Line) -> bytes:
    """Return a line with its newline."""
    return _encode_lines([line])


_encode_lines = jsonvalue.ENCODER.encode_lines
