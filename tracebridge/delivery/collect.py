"""`Collector`: puts the spans of unread events together into batches, and tells whose cursors that moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator
from typing import Final, NamedTuple

import msgspec

from tracebridge.delivery.pace import Pace
from tracebridge.delivery.prior import SpanId
from tracebridge.delivery.receipts import words_of
from tracebridge.delivery.state import Advance, Batch, SpanRef
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS, SessionKey, SessionWatch
from tracebridge.line import one_line
from tracebridge.log import log
from tracebridge.policy import Policy, keeps_span
from tracebridge.session_stream import Problem, SessionStream, Step
from tracebridge.span import Span

TARGET_BYTES: Final = 1 << 20
"""Encoded bytes at which a batch is full, if the backend does not take less."""

SPANS_AT_ONCE: Final = 64
"""How many spans are read before they are encoded."""
BYTES_AT_ONCE: Final = 128 << 10
"""How much of a journal is read before its spans are encoded: they are all in memory meanwhile."""

_MOST_SESSIONS: Final = 500
"""How many sessions are read between two transactions: they are held in memory until their cursors are written down."""


class JournalProblem(NamedTuple):
    """A line of a journal that is not what it should be."""

    folder: int
    """The number of the folder in which its session lies."""
    session: str
    """The name of the session's own folder."""
    offset: int
    """Byte offset of the line."""
    text: str
    """What is wrong with it."""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """Batches, and the cursors behind them: to be written down together."""

    batches: list[Batch]
    advances: list[Advance]
    problems: list[JournalProblem]
    found: list[SpanRef]
    """Spans that need not be sent, because the backend holds them already."""
    repeats: int
    """How many spans of the batches the backend may hold already, where it cannot be asked."""
    unsendable: list[tuple[SpanRef, str]]
    """Spans that the sink cannot encode, and why."""
    left_out: list[SpanRef]
    """Spans that the sink's policy does not keep."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read."""
        return not (self.batches or self.advances or self.problems)


Held = Callable[[SessionKey, SessionStream], Container[SpanId] | None]
"""Which spans of a session the backend holds already; None if that cannot be told now."""


class Collector:
    """Reads the sessions that a watch names, one after the other, as far as the batches have room."""

    def __init__(
        self,
        watch: SessionWatch,
        encode: Callable[[Span], bytes],
        held: Held,
        pace: Pace,
        policy: Policy,
        *,
        max_bytes: int,
        max_spans: int,
    ) -> None:
        self._watch = watch
        self._encode = encode
        self._held = held
        self._pace = pace
        self._policy = policy
        self._max_bytes = max_bytes
        self._max_spans = max_spans
        self._sessions: Iterator[tuple[SessionKey, SessionStream]] | None = None
        self._current: _Reading | None = None
        self._told: set[type[Exception]] = set()
        self.has_skipped = False
        """Whether the last pass left sessions out because it cannot be told what the backend holds of them."""

    @property
    def has_more(self) -> bool:
        """Whether the last `collect` stopped because it had enough."""
        return self._current is not None or self._sessions is not None

    def collect(self) -> Collected:
        """Read on until a batch is full or all that is unread was read; an empty result means there was nothing."""
        draft = _Draft(self._max_bytes, self._max_spans)
        moved: dict[SessionKey, SessionStream] = {}
        problems: list[JournalProblem] = []
        while not draft.is_full and len(moved) < _MOST_SESSIONS:
            reading = self._current = self._current or self._next()
            if reading is None:
                break
            try:
                if self._read_on(reading, draft, moved, problems):
                    self._finish(reading, draft, moved)
                    self._current = None
            except OSError as error:
                # the next scan finds the session again if it can be read then
                log.warning("session %s cannot be read: %s", one_line(reading.key.name), error)
                self._current = None
        return Collected(
            batches=draft.batches(),
            advances=[
                Advance(folder=key.folder, session_id=key.name, cursor=stream.cursor) for key, stream in moved.items()
            ],
            problems=problems,
            found=draft.found,
            repeats=draft.repeats,
            unsendable=draft.unsendable,
            left_out=draft.left_out,
        )

    def _next(self) -> _Reading | None:
        if self._sessions is None:
            self._sessions = self._watch.unread()
            self.has_skipped = False
        for key, stream in self._sessions:
            held = self._held(key, stream)
            if held is not None:
                # asked before the file is read: what is written meanwhile must not be given up unseen
                return _Reading(key, stream, stream.steps(), held, stream.may_repeat, time.time_ns())
            self.has_skipped = True
        self._sessions = None
        return None

    def _read_on(
        self,
        reading: _Reading,
        draft: _Draft,
        moved: dict[SessionKey, SessionStream],
        problems: list[JournalProblem],
    ) -> bool:
        """Read a session until there is enough, or to its end; whether it was read to its end.

        Some spans are read before they are encoded together: a processor that is sent back and forth between the two
        for each span takes a tenth longer.
        """
        spans: list[Span] = []
        begin, at_once = reading.stream.offset, min(SPANS_AT_ONCE, draft.spans_left)
        try:
            for step in reading.steps:
                self._pace.tick()
                moved[reading.key] = reading.stream
                if step.problem is not None:
                    problems += _reported(step.problem, reading.key)
                spans += step.spans
                if len(spans) >= at_once or reading.stream.offset - begin >= BYTES_AT_ONCE:
                    self._add(spans, reading, draft)
                    spans = []
                    if draft.is_full:
                        return False
                    begin, at_once = reading.stream.offset, min(SPANS_AT_ONCE, draft.spans_left)
            return True
        finally:
            # also if the file cannot be read on: the cursor stands behind them
            self._add(spans, reading, draft)

    def _finish(self, reading: _Reading, draft: _Draft, moved: dict[SessionKey, SessionStream]) -> None:
        given_up = reading.stream.expire(reading.began_ns - INCOMPLETE_GRACE_NS)
        if given_up:
            moved[reading.key] = reading.stream
            self._add(given_up, reading, draft)
        self._watch.let_go(reading.key, reading.stream)

    def _add(self, spans: list[Span], reading: _Reading, draft: _Draft) -> None:
        for span in spans:
            if not keeps_span(self._policy, span):
                draft.left_out.append(SpanRef.of(span))
            elif (span.trace_id, span.span_id) in reading.held:
                draft.found.append(SpanRef.of(span))
            else:
                draft.repeats += reading.may_repeat
                self._draw_up(span, draft)
            self._pace.tick()

    def _draw_up(self, span: Span, draft: _Draft) -> None:
        try:
            part = self._encode(span)
        except Exception as error:  # a sink's defect, which must not cost the span nor hold up the others
            reason = f"cannot be encoded: {words_of(error)}"
            if type(error) not in self._told:
                self._told.add(type(error))
                log.exception("span %s is a dead letter now; more that fail so are counted, not logged", span.span_id)
            draft.unsendable.append((SpanRef.of(span), reason))
        else:
            draft.add(part, SpanRef.of(span))


class _Reading(NamedTuple):
    """A session that is being read, and what the backend holds of it already."""

    key: SessionKey
    stream: SessionStream
    steps: Iterator[Step]
    held: Container[SpanId]
    may_repeat: bool
    """Whether the backend may hold more of it, and cannot be asked."""
    began_ns: int
    """When reading began, by the wall clock."""


class _Draft:
    """Encoded spans that become one batch, or more if they turn out to be too many bytes for one."""

    def __init__(self, max_bytes: int, max_spans: int) -> None:
        self._max_bytes = max_bytes
        self._target_bytes = min(max_bytes, TARGET_BYTES)
        self._max_spans = max_spans
        self._size = 0
        self._parts: list[bytes] = []
        self._refs: list[SpanRef] = []
        self.found: list[SpanRef] = []
        self.repeats = 0
        self.unsendable: list[tuple[SpanRef, str]] = []
        self.left_out: list[SpanRef] = []

    @property
    def is_full(self) -> bool:
        return self._size >= self._target_bytes or self.spans_left <= 0

    @property
    def spans_left(self) -> int:
        """How many spans have room in it."""
        return self._max_spans - len(self._parts) - len(self.found) - len(self.left_out)

    def add(self, part: bytes, ref: SpanRef) -> None:
        self._parts.append(part)
        self._refs.append(ref)
        self._size += len(part)

    def batches(self) -> list[Batch]:
        batches: list[Batch] = []
        begin, size = 0, 0
        for place, part in enumerate(self._parts):
            if place > begin and (size + len(part) > self._max_bytes or place - begin >= self._max_spans):
                batches.append(self._batch(begin, place))
                begin, size = place, 0
            size += len(part)
        if begin < len(self._parts):
            batches.append(self._batch(begin, len(self._parts)))
        return batches

    def _batch(self, begin: int, end: int) -> Batch:
        return Batch(parts=tuple(self._parts[begin:end]), refs=tuple(self._refs[begin:end]), fate="unsent")


def _reported(problem: Problem, key: SessionKey) -> list[JournalProblem]:
    """Tell of a problem, and return it if it is one that stays in the file."""
    place = f"{one_line(str(problem.file))}: byte {problem.offset}"
    if not problem.is_of_line:
        log.warning("%s: %s", place, problem.text)
        return []
    log.warning("%s: %s; the line stays in the file and is not sent", place, problem.text)
    return [JournalProblem(key.folder, key.name, problem.offset, problem.text)]
