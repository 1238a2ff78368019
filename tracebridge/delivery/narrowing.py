"""What waits for a backend was encoded when it was read; if the policy is narrower now, it is made anew first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracebridge import policy as policies
from tracebridge.delivery.lookup import find_spans
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.receipts import words_of
from tracebridge.delivery.records import Batch, Encoding, SpanRef
from tracebridge.delivery.state import State
from tracebridge.policy import Policy
from tracebridge.span import Span

JOURNAL_GONE: Final = "it was encoded under a policy that left out less, and its journal is gone"


def narrow_waiting(state: State, target: int, policy: Policy, encode: Callable[[Span], bytes], pace: Pace) -> Encoding:
    """Bring a target's batches in flight under the policy; what it does not keep any more is left out.

    Returns under which policy what waits is encoded from now on, which the state remembers.
    """
    before = state.encoding(target)
    latest_wider = 0 if before is None else before.latest_wider
    # a state that does not know was shipped from by a tracebridge that did not write it down
    if before is not None and policies.is_wider(before.policy, policy):
        for batch in state.in_flight(target):
            _make_anew(state, target, batch, policy, encode, pace)
        latest_wider = state.account(target).latest_dead
    now = Encoding(policy=policy, latest_wider=latest_wider)
    if now != before:
        # last, so that whoever comes after a crash begins anew
        state.keep_encoding(target, now)
    return now


def _make_anew(
    state: State, target: int, batch: Batch, policy: Policy, encode: Callable[[Span], bytes], pace: Pace
) -> None:
    kept = [ref for ref in batch.refs if policies.keeps_session(policy, ref.session_id)]
    spans = find_spans(state.folders().values(), kept, policy)
    parts: list[bytes] = []
    refs: list[SpanRef] = []
    lost: list[tuple[SpanRef, str]] = []
    for ref in kept:
        pace.tick()
        span = spans.get((ref.trace_id, ref.span_id))
        if span is None:
            lost.append((ref, JOURNAL_GONE))
        elif policies.keeps_span(policy, span):
            try:
                part = encode(span)
            except Exception as error:  # a sink's defect, or a span that is too large
                lost.append((ref, f"cannot be encoded: {words_of(error)}"))
            else:
                parts.append(part)
                refs.append(ref)
    state.remake(target, batch, parts, refs, lost)
