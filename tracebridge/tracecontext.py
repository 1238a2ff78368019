"""`TraceContext`: a span as services tell each other of it in HTTP headers (W3C Trace Context, levels 1 and 2).

And `Propagation`, what tells of the active span in this process, and is told.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

import msgspec

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

NOT_SAMPLED: Final = "00"
"""The flags of a trace that who began it does not want to be kept."""

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY: Final = r"[a-z0-9][a-z0-9_\-*/@]{0,255}"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(rf"{_KEY}={_VALUE}")
_MOST_MEMBERS: Final = 32
_SAMPLED: Final = 1
_RANDOM: Final = 2


class TraceContext(msgspec.Struct, frozen=True, kw_only=True):
    """A span that another one may be the child of, in this process or in another."""

    trace_id: str
    """32 lower-case hex digits, not all zero."""
    span_id: str
    """16 lower-case hex digits, not all zero."""
    is_sampled: bool = True
    """Whether who began the trace wants it to be kept."""
    is_random: bool = False
    """Whether who began the trace says that the last 7 bytes of its id are random: some sample by them."""
    tracestate: str = ""
    """What tracing systems pass along with it, as the header has it."""

    @property
    def traceparent(self) -> str:
        """The header of that name."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def flags(self) -> int:
        """The flags of the header, as a number; those that no level of the standard defines yet are not set."""
        return _SAMPLED * self.is_sampled | _RANDOM * self.is_random


def from_flags(trace_id: str, span_id: str, flags: int, tracestate: str) -> TraceContext:
    """Make a context of what is known to be valid, with the `flags` of `traceparent`."""
    return TraceContext(
        trace_id=trace_id,
        span_id=span_id,
        is_sampled=bool(flags & _SAMPLED),
        is_random=bool(flags & _RANDOM),
        tracestate=tracestate,
    )


class Propagation(Protocol):
    """The active span of one telemetry system, in the current thread or task."""

    def active(self) -> TraceContext | None:
        """The span that is active here; None if there is none, or only one of ours that is over."""
        ...

    def enter(self, context: TraceContext) -> object:
        """Make a span of ours the active one, and return what `leave` needs."""
        ...

    def leave(self, entered: object) -> None:
        """End that, wherever it is called: where something else is active by now, that stays."""
        ...


def from_headers(traceparent: object, tracestate: object = None) -> TraceContext | None:
    """Read the two headers; None if `traceparent` is none, for then a trace begins anew.

    A `tracestate` that breaks the rules is left out alone, as the standard wants it.
    """
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if isinstance(traceparent, str) else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return from_flags(trace_id, span_id, int(flags, 16), _valid_tracestate(tracestate))


def _valid_tracestate(tracestate: object) -> str:
    if not isinstance(tracestate, str):
        return ""
    members = [member.strip(" \t") for member in tracestate.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MOST_MEMBERS or len(keys) < len(members):
        return ""
    return ",".join(members) if all(map(_MEMBER.fullmatch, members)) else ""
