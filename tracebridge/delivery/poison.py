"""Poison: a batch on which a backend fails again and again while it serves others.

Backends answer 500 to a span that they cannot digest, or hang on it, as they do when they are down. What tells the two
apart is what happens to other requests. A failure is a strike if the backend has served another request since the
failure before it. After `STRIKES` of them a batch is taken apart, its halves under suspicion; so the culprits stand
alone in the end, and become dead letters.

With nothing to send but what it has failed on, batches are each other's test: they are taken apart without proof, which
costs requests and no more. One span is given up only if the backend has served something since the trouble began.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tracebridge.delivery.records import Batch, Suspicion

STRIKES: Final = 3
"""After so many a batch is taken apart."""
LAST_STRIKE: Final = 8
"""After so many a span that stands alone is given up: more, because backends also fail at random."""


def struck(batch: Batch, failure: str, *, served: int, only_suspects: bool, only_halves: bool) -> Suspicion:
    """What is held against a batch after one more failure.

    Args:
        batch: the batch, and what was held against it before.
        failure: what happened, in words.
        served: how many requests the backend has taken so far.
        only_suspects: whether the backend has failed on all that waits, if anything does.
        only_halves: whether all that waits, if anything does, was taken apart, if it can be.
    """
    before = batch.suspicion
    is_first = before.strikes == 0
    since = before.since if before.is_half or not is_first else served
    may_test = only_suspects if len(batch.refs) > 1 else only_halves and before.is_half and served > since
    is_strike = is_first or served > before.served or may_test
    return Suspicion(
        strikes=before.strikes + is_strike, since=since, served=served, is_half=before.is_half, failure=failure
    )


def is_suspect(batch: Batch) -> bool:
    """Whether the backend has failed on the batch, or on one that it was a part of."""
    return batch.suspicion.is_half or batch.suspicion.strikes > 0


def is_half(batch: Batch) -> bool:
    """Whether the batch is suspect, and was a part of another or holds one span, which cannot be taken apart."""
    return is_suspect(batch) and (batch.suspicion.is_half or len(batch.refs) == 1)


def is_poisoned(batch: Batch) -> bool:
    """Whether something in the batch makes the backend fail, as far as can be told."""
    return batch.suspicion.strikes >= (LAST_STRIKE if len(batch.refs) == 1 else STRIKES)


def aside_s(suspicion: Suspicion, first_s: float) -> float:
    """How long a batch under suspicion is left aside while others go on, in seconds; `first_s` after no strike."""
    return first_s * 2.0 ** min(suspicion.strikes, STRIKES)


def half_under_suspicion(batch: Batch) -> Batch:
    """A half of a poisoned batch: one more strike is enough to take it apart; a span that is given up has its own."""
    strikes = 0 if len(batch.refs) == 1 else STRIKES - 1
    return msgspec.structs.replace(
        batch, suspicion=msgspec.structs.replace(batch.suspicion, strikes=strikes, is_half=True)
    )
