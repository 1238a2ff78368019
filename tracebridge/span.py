"""`Span`: what a backend holds of a run, without a word that belongs to a vendor.

A span is made of an opening and a closing event (or of one event that stands alone). Every value of those events
has one home: a field of the span where there is one, the `Edge` of the event where there is none.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tracebridge.event import Json
from tracebridge.tracecontext import NOT_SAMPLED

SpanKind = Literal["session", "turn", "llm", "tool", "thinking", "event"]
"""What a span stands for. `event` is an event of a type that tracebridge does not know, kept as it is."""

Status = Literal["unset", "ok", "error"]
"""As OpenTelemetry's span status."""

Extent = Literal["whole", "incomplete", "late"]
"""`incomplete`: opened, and never closed while its run lasted. `late`: the closing event alone, either because it
came after its span was given up as incomplete, or because no opening event was ever written."""


class SpanError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What went wrong in a call, a turn or a session."""

    message: str
    type: str | None = None
    """The exception's class, or a backend's error code; None when the event gave only a text."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The managed prompt that an LLM request was made from."""

    name: str
    version: int


class Link(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A reference to a span of another trace, as OpenTelemetry's span links."""

    trace_id: str
    span_id: str


class Edge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a span keeps of its opening or closing event besides the values that have a field of their own."""

    ordinal: int
    """The event's place among the events of its session's journal, from 0."""
    timestamp: str
    """The event's timestamp as written."""
    seq: int | None = None
    """The writer's running number; None in files of the original format."""
    duration_ms: float | int | None = None
    """The duration as recorded, in milliseconds."""
    ids: bool = False
    """Whether the event named its trace and span itself (files of the original format do not)."""
    fields: dict[str, Json] = {}
    """Entries of the event's `data` that have no field in the span."""
    repeated: tuple[str, ...] = ()
    """Keys of a closing event's `data` that say again what the opening event said."""
    extra: dict[str, Json] = {}
    """Top-level entries of the line that the rest of the span does not tell."""
    absent: tuple[str, ...] = ()
    """Keys that such an event has as a rule and this one lacks: `run_id`, or `data.success` for one of `data`."""


class Span(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One operation of an agent: a run of a session, a turn, an LLM call, a tool call, a thought."""

    kind: SpanKind
    trace_id: str
    """32 lower-case hex digits."""
    span_id: str
    """16 lower-case hex digits."""
    parent_id: str = ""
    """16 lower-case hex digits; empty for the root of a trace."""
    remote_parent: bool = False
    """Whether the parent is a span of another service, so that this span is the agent's own root."""
    name: str
    """The tool's name, the type of an unknown event, and the span's kind elsewhere."""
    start_ns: int
    """Start in nanoseconds since the epoch."""
    end_ns: int
    """End in nanoseconds since the epoch."""
    extent: Extent = "whole"

    session_id: str
    run_id: str = ""
    turn: int = 0
    """The number of the turn in its run; 0 outside of turns."""
    user_id: str = ""
    agent_name: str = ""
    environment: str = ""
    release: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Json] = {}
    """The session's metadata, as known at the span's first event; the same on every span of a run."""

    input: Json = None
    """User input of a turn, messages of an LLM call, arguments of a tool call; None when there is none."""
    output: Json = None
    """Outcome of a session, output of a turn, content of a response, result of a tool call, text of a thought."""
    model: str = ""
    """The model that was asked for."""
    response_model: str = ""
    """The model that answered, where the response names another one than the request."""
    provider: str = ""
    model_parameters: dict[str, Json] = {}
    prompt: Prompt | None = None
    tool_definitions: list[Json] = []
    """The tools that were offered to the model."""
    tool_calls: list[Json] = []
    """The tool calls that the model answered with."""
    thinking: Json = None
    """The reasoning that came with a response."""
    finish_reason: str = ""
    response_id: str = ""
    time_to_first_token_ms: float | int | None = None
    usage: dict[str, Json] = {}
    """Token counts under the names that the agent gave them; see `tracebridge.usage` for their meaning."""
    cost: Json = None
    """Cost in US dollars as the agent gave it: a number, or an object of numbers."""
    tool_call_id: str = ""
    """The model's id for the call that a tool span answers."""

    status: Status = "unset"
    error: SpanError | None = None
    links: tuple[Link, ...] = ()
    opened: Edge | None = None
    """The opening event, or the only one; None in a `late` span."""
    closed: Edge | None = None
    """The closing event; None in an `incomplete` span and in one made of a single event."""
    fingerprint: str = ""
    """Names the rules (policy, redaction, mapping) that the span was sent with; empty before it is sent, and in
    spans that tracebridge did not send."""

    @property
    def is_sampled(self) -> bool:
        """Whether who began the trace, outside of the agent, wants it to be kept; True for what nobody else began."""
        edges = (self.opened, self.closed)
        return all(edge is None or edge.extra.get("trace_flags") != NOT_SAMPLED for edge in edges)
