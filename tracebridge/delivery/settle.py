"""`Settlement`: batches of which nobody knows whether they arrived, until reading back tells.

That a span is there is believed at once. That it is *absent* is believed only with proof: something that was sent at
least one visibility lag after it has been readable for one lag. So neither a backend that is minutes behind, nor one
that stores out of order within its lag, nor one that does both while it catches up, makes a span be sent twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from tracebridge.delivery.state import Batch, SpanRef, Witness
from tracebridge.errors import BusyBackendError, IncompleteAnswerError
from tracebridge.sink import Query, Reader

LONELY_LAGS: Final = 60.0
"""After how many lags a batch counts as absent without proof when nothing was accepted after it."""
BEHIND_LAGS: Final = 360.0
"""The same when something was, and does not show either: the backend is far behind; or when it shows only a part."""
_SHORTEST_LAG_S: Final = 0.01
_LONGEST_WAIT_S: Final = 60.0
_MARGIN_NS: Final = 1_000_000_000
"""Backends keep times less precisely than we do, so the window asked for is a little wider."""
_MOST_SESSIONS_ASKED_BY_NAME: Final = 3


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    batch: Batch
    absent: tuple[int, ...]
    """Places in the batch of the spans that the backend does not hold."""
    is_proven: bool
    """Whether that is certain; else the backend may show them one day after all."""
    refused: str
    """Why the backend refused some of the batch, if it said so."""


class _Unsettled:
    """A batch that waits for proof."""

    __slots__ = ("batch", "look_at", "missing", "refused", "sent_at", "wait_s")

    def __init__(self, batch: Batch, sent_at: float, refused: str, lag_s: float) -> None:
        self.batch = batch
        self.sent_at = sent_at
        self.refused = refused
        self.missing = list(range(len(batch.refs)))
        self.wait_s = lag_s
        self.look_at = sent_at + lag_s

    def look_in(self, seconds: float, now: float) -> None:
        """Look again in so many seconds, if not earlier."""
        self.wait_s = seconds
        self.look_at = now + seconds if self.look_at <= now else min(self.look_at, now + seconds)

    def look_later(self, now: float) -> None:
        """Look again after a longer time than before."""
        self.wait_s = min(2 * self.wait_s, max(_LONGEST_WAIT_S, self.wait_s))
        self.look_at = now + self.wait_s

    def settled(self, *, is_proven: bool) -> Settled:
        return Settled(batch=self.batch, absent=tuple(self.missing), is_proven=is_proven, refused=self.refused)


class Settlement:
    """The unsettled batches of one sink. Times are in seconds since the epoch, by a clock that never runs backwards."""

    def __init__(self, lag_s: float, witnesses: Iterable[Witness] = (), *, by_trace: bool = False) -> None:
        """`lag_s` is the backend's declared visibility lag, `witnesses` what an earlier settlement held.

        `by_trace` is as for `missing`.
        """
        self._by_trace = by_trace
        self._lag_s = max(lag_s, _SHORTEST_LAG_S)
        self._unsettled: list[_Unsettled] = []
        self._witnesses = list(witnesses)

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._unsettled)

    def __iter__(self) -> Iterator[Batch]:
        return (waiting.batch for waiting in self._unsettled)

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """What the next settlement should know if this one ends now."""
        return tuple(self._witnesses)

    def add(self, batch: Batch, sent_at: float, refused: str = "") -> None:
        """Take a batch that was sent at `sent_at`; `refused` is what the backend said if it took only a part."""
        self._unsettled.append(_Unsettled(batch, sent_at, refused, self._lag_s))

    def accepted(self, batch: Batch, sent_at: float) -> None:
        """Hear of a batch that the backend has taken: it may come to prove that an earlier one is absent."""
        witness = Witness(batch.refs[0], sent_at)
        helped = [waiting for waiting in self._unsettled if self._needs(witness, waiting)]
        if helped:
            self._witnesses.append(witness)
        for waiting in helped:
            waiting.look_in(self._lag_s, sent_at)

    def next_look_s(self, now: float) -> float:
        """How soon there is something to look for, in seconds; infinite while nothing waits."""
        return max(0.0, min((waiting.look_at for waiting in self._unsettled), default=float("inf")) - now)

    def settle(self, reader: Reader, now: float, *, is_idle: bool = True) -> list[Settled]:
        """Look for what it is time to look for, and return the batches whose fate is known now.

        As long as there is something to send, which is what `is_idle` denies, proof will come: nothing is given up.

        A backend that asks to be read later is left at that, once something is settled: the rest is due the next time.

        Raises:
            BackendError: the backend could not be read; nothing is settled.
        """
        due = [waiting for waiting in self._unsettled if waiting.look_at <= now]
        # the witnesses are read first: what does not show after one of them did is not on its way any more
        if due:
            for place, witness in enumerate(self._witnesses):
                self._witnesses[place] = self._seen(witness, reader, now)
        seen = [witness for witness in self._witnesses if witness.seen_at is not None]
        settled: list[Settled] = []
        for waiting in due:
            is_decided = self._is_decided(waiting, now, is_idle=is_idle)
            try:
                # while nothing can be concluded from what is missing, one span tells as much as all of them
                first = [waiting.batch.refs[waiting.missing[0]]]
                if is_decided or not missing(reader, first, by_trace=self._by_trace):
                    waiting.missing = self._still_missing(reader, waiting)
            except BusyBackendError:
                if not settled:
                    raise
                break
            except IncompleteAnswerError:
                # no witness proves anything of what is shown in part, and the others must not wait for it
                if now - waiting.sent_at >= BEHIND_LAGS * self._lag_s:
                    settled.append(waiting.settled(is_proven=False))
                    self._unsettled.remove(waiting)
                else:
                    waiting.look_later(now)
                continue
            verdict = self._verdict(waiting, now, is_decided=is_decided)
            if verdict is not None:
                settled.append(verdict)
                self._unsettled.remove(waiting)
            elif any(self._could_prove(witness, waiting) for witness in seen):
                waiting.look_in(self._lag_s, now)
            else:
                waiting.look_later(now)
        self._witnesses = [
            witness
            for witness in self._witnesses
            if any(self._could_prove(witness, waiting) for waiting in self._unsettled)
        ]
        return settled

    def _seen(self, witness: Witness, reader: Reader, now: float) -> Witness:
        try:
            if witness.seen_at is not None or missing(reader, [witness.ref], by_trace=self._by_trace):
                return witness
        except IncompleteAnswerError:
            return witness
        return msgspec.structs.replace(witness, seen_at=now)

    def _still_missing(self, reader: Reader, waiting: _Unsettled) -> list[int]:
        refs = [waiting.batch.refs[place] for place in waiting.missing]
        return [waiting.missing[place] for place in missing(reader, refs, by_trace=self._by_trace)]

    def _needs(self, witness: Witness, waiting: _Unsettled) -> bool:
        known = any(self._could_prove(other, waiting) for other in self._witnesses)
        return self._could_prove(witness, waiting) and not known

    def _could_prove(self, witness: Witness, waiting: _Unsettled) -> bool:
        """Whether it was sent late enough after what waits."""
        return witness.sent_at >= waiting.sent_at + self._lag_s

    def _proves(self, witness: Witness, waiting: _Unsettled, now: float) -> bool:
        """Whether what still does not show of `waiting` never will."""
        has_shown = witness.seen_at is not None and now >= witness.seen_at + self._lag_s
        return has_shown and self._could_prove(witness, waiting)

    def _is_decided(self, waiting: _Unsettled, now: float, *, is_idle: bool) -> bool:
        """Whether what does not show now is to be sent again, with proof or without."""
        if any(self._proves(witness, waiting, now) for witness in self._witnesses):
            return True
        is_behind = any(self._could_prove(witness, waiting) for witness in self._witnesses)
        lags = BEHIND_LAGS if is_behind else LONELY_LAGS
        return (is_behind or is_idle) and now - waiting.sent_at >= lags * self._lag_s

    def _verdict(self, waiting: _Unsettled, now: float, *, is_decided: bool) -> Settled | None:
        if not waiting.missing:
            return waiting.settled(is_proven=True)
        if not is_decided:
            return None
        return waiting.settled(is_proven=any(self._proves(witness, waiting, now) for witness in self._witnesses))


def missing(reader: Reader, refs: Collection[SpanRef], *, by_trace: bool) -> list[int]:
    """The places in `refs` of the spans that the backend does not show.

    `by_trace` asks for each trace, which takes more requests: for backends that hide something from a search.

    Raises:
        BackendError: the backend could not be read.
    """
    places = {(ref.trace_id, ref.span_id): place for place, ref in enumerate(refs)}
    for query in _by_trace(refs) if by_trace else _queries(refs):
        for span in reader.read(query):
            places.pop((span.trace_id, span.span_id), None)
            if not places:
                return []
    return sorted(places.values())


def missing_trace_by_trace(reader: Reader, refs: Sequence[SpanRef]) -> list[int]:
    """The places in `refs` of the spans that the backend does not show, or of whose trace it shows a part only.

    Raises:
        BackendError: the backend could not be read.
    """
    try:
        return missing(reader, refs, by_trace=True)
    except IncompleteAnswerError:
        pass  # asked for together, what one of them lacks says nothing of the others
    traces: dict[str, list[int]] = {}
    for place, ref in enumerate(refs):
        traces.setdefault(ref.trace_id, []).append(place)
    absent: list[int] = []
    for places in traces.values():
        try:
            absent += [places[number] for number in missing(reader, [refs[place] for place in places], by_trace=True)]
        except IncompleteAnswerError:
            absent += places
    return sorted(absent)


def _by_trace(refs: Iterable[SpanRef]) -> list[Query]:
    traces = dict.fromkeys(ref.trace_id for ref in refs)
    return [Query(trace_ids=tuple(traces), ids_only=True, is_patient=False)]


def _queries(refs: Iterable[SpanRef]) -> list[Query]:
    starts_ns = [ref.start_ns for ref in refs]
    start_ns, end_ns = max(0, min(starts_ns) - _MARGIN_NS), max(starts_ns) + _MARGIN_NS
    sessions = {ref.session_id for ref in refs}
    window = Query(start_ns=start_ns, end_ns=end_ns, ids_only=True, is_patient=False)
    if len(sessions) > _MOST_SESSIONS_ASKED_BY_NAME:
        return [window]
    return [msgspec.structs.replace(window, session_id=session) for session in sorted(sessions)]
