"""`OpenTelemetryPropagation`: our spans as the active ones in OpenTelemetry, for the agent's instrumentations.

They find a parent there for the spans that they make, and write it into the headers of what they send. Nobody else's
provider, exporter or baggage is touched: our span is one that records nothing.
"""

from __future__ import annotations

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tracebridge.tracecontext import TraceContext, from_flags

_ENTERED = contexts.create_key("tracebridge-entered")


class _Entered:
    """A span of ours that is active in `context`, and what was active before."""

    __slots__ = ("before", "context", "is_over")

    def __init__(self, before: Context) -> None:
        self.before = before
        self.context = before
        self.is_over = False


class OpenTelemetryPropagation:
    """A `tracebridge.recording.propagation.Propagation` for OpenTelemetry's API."""

    def active(self) -> TraceContext | None:
        """The active span's context, whoever made it; what is left of ours that are over counts as none."""
        found = trace.get_current_span(_not_over(contexts.get_current())).get_span_context()
        if not found.is_valid:
            return None
        return from_flags(
            trace.format_trace_id(found.trace_id),
            trace.format_span_id(found.span_id),
            found.trace_flags,
            found.trace_state.to_header(),
        )

    def enter(self, context: TraceContext) -> object:
        """Attach a context in which the span is the active one."""
        entered = _Entered(contexts.get_current())
        span = NonRecordingSpan(
            SpanContext(
                trace_id=int(context.trace_id, 16),
                span_id=int(context.span_id, 16),
                is_remote=False,
                trace_flags=TraceFlags(context.flags),
                trace_state=TraceState.from_header([context.tracestate]) if context.tracestate else None,
            )
        )
        with_span = trace.set_span_in_context(span, entered.before)
        entered.context = contexts.set_value(_ENTERED, entered, with_span)
        contexts.attach(entered.context)
        return entered

    def leave(self, entered: object) -> None:
        """Attach what was active before, and not over yet, if the span is still the active one here.

        Attached and not detached: a generator may be closed in another task, where OpenTelemetry would complain of
        the token, and where something else is active.
        """
        assert isinstance(entered, _Entered)
        entered.is_over = True
        if contexts.get_current() is entered.context:
            contexts.attach(_not_over(entered.before))


def _not_over(context: Context) -> Context:
    """The context itself, or, where it stands for a span of ours that is over, what was active before that."""
    while isinstance(entered := contexts.get_value(_ENTERED, context), _Entered):
        if not entered.is_over or entered.context is not context:
            break
        context = entered.before
    return context
