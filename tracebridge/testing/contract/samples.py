"""Spans to send: plain ones, and generated ones with nasty values."""

from __future__ import annotations

import secrets
import time
from typing import get_args

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tracebridge.span import Span, SpanKind
from tracebridge.testing.strategies import spans


def sample(mark: str = "nothing") -> Span:
    """A tool span as delivery would send it, with ids of its own; `mark` is what its tool was called with."""
    now_ns = time.time_ns()
    return Span(
        kind="tool",
        trace_id=secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        name="look_up",
        start_ns=now_ns - 1_000_000_000,
        end_ns=now_ns,
        session_id=f"contract-{secrets.token_hex(4)}",
        run_id="run-1",
        turn=1,
        input={"order": mark},
        output={"status": "shipped"},
        status="ok",
        fingerprint="0123456789ab",
    )


def law_settings(examples: int) -> settings:
    """How a law is tried on generated spans.

    A failure shows its example as it is: to look for a smaller one takes minutes where each is sent and read back.
    """
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def batches(max_size: int = 10) -> st.SearchStrategy[list[Span]]:
    """Spans of one trace, of every kind, with whatever values their events could give them."""
    return st.lists(spans(), min_size=1, max_size=max_size).map(_in_one_trace)


def every_kind() -> list[Span]:
    """Spans of one trace, one of each kind: chance may leave a kind out."""
    names = {"tool": "look_up", "event": "note"}
    return _in_one_trace(
        [
            msgspec.structs.replace(sample(), kind=kind, name=names.get(kind, kind), metadata={"plan": "pro"})
            for kind in get_args(SpanKind)
        ]
    )


def _in_one_trace(some: list[Span]) -> list[Span]:
    # drawn anew in each example, so that one does not find what another has left
    trace_id = secrets.token_hex(16)
    return [
        msgspec.structs.replace(span, trace_id=trace_id, span_id=f"{number:016x}")
        for number, span in enumerate(some, 1)
    ]
