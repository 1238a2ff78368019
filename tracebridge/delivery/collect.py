"""`Collector`: puts the spans of unread events together into batches, and tells whose cursors that moves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from tracebridge.delivery.pace import Pace
from tracebridge.delivery.state import Advance, Batch, SpanRef
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS, SessionKey, SessionWatch
from tracebridge.session_stream import Problem, SessionStream, Step
from tracebridge.span import Span

TARGET_BYTES: Final = 1 << 20
"""Encoded bytes at which a batch is full, if the backend does not take less."""

log = logging.getLogger("tracebridge")


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

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read."""
        return not (self.batches or self.advances or self.problems)


class Collector:
    """Reads the sessions that a watch names, one after the other, as far as the batches have room."""

    def __init__(
        self,
        watch: SessionWatch,
        encode: Callable[[Span], bytes],
        pace: Pace,
        *,
        max_bytes: int,
        max_spans: int,
    ) -> None:
        self._watch = watch
        self._encode = encode
        self._pace = pace
        self._max_bytes = max_bytes
        self._max_spans = max_spans
        self._sessions: Iterator[tuple[SessionKey, SessionStream]] | None = None
        self._current: tuple[SessionKey, SessionStream, Iterator[Step]] | None = None

    @property
    def has_more(self) -> bool:
        """Whether the last `collect` stopped because its batch was full."""
        return self._current is not None

    def collect(self) -> Collected:
        """Read on until a batch is full or all that is unread was read; an empty result means there was nothing."""
        draft = _Draft(self._max_bytes, self._max_spans)
        moved: dict[SessionKey, SessionStream] = {}
        problems: list[JournalProblem] = []
        while not draft.is_full and (current := self._current or self._next()) is not None:
            key, stream, steps = self._current = current
            try:
                for step in steps:
                    self._pace.tick()
                    moved[key] = stream
                    self._take(step, key, draft, problems)
                    if draft.is_full:
                        break
                else:
                    self._finish(key, stream, draft, moved)
                    self._current = None
            except OSError as error:
                # the next scan finds the session again if it can be read then
                log.warning("session %s cannot be read: %s", key.name, error)
                self._current = None
        return Collected(
            batches=draft.batches(),
            advances=[
                Advance(folder=key.folder, session_id=key.name, cursor=stream.cursor) for key, stream in moved.items()
            ],
            problems=problems,
        )

    def _next(self) -> tuple[SessionKey, SessionStream, Iterator[Step]] | None:
        if self._sessions is None:
            self._sessions = self._watch.unread()
        following = next(self._sessions, None)
        if following is None:
            self._sessions = None
            return None
        key, stream = following
        return key, stream, stream.steps()

    def _take(self, step: Step, key: SessionKey, draft: _Draft, problems: list[JournalProblem]) -> None:
        if step.problem is not None:
            problems.append(_reported(step.problem, key))
        self._add(step.spans, draft)

    def _finish(
        self, key: SessionKey, stream: SessionStream, draft: _Draft, moved: dict[SessionKey, SessionStream]
    ) -> None:
        given_up = stream.expire(time.time_ns() - INCOMPLETE_GRACE_NS)
        if given_up:
            moved[key] = stream
            self._add(given_up, draft)
        self._watch.let_go(key, stream)

    def _add(self, spans: list[Span], draft: _Draft) -> None:
        for span in spans:
            draft.add(self._encode(span), _ref(span))
            self._pace.tick()


class _Draft:
    """Encoded spans that become one batch, or more if they turn out to be too many bytes for one."""

    def __init__(self, max_bytes: int, max_spans: int) -> None:
        self._max_bytes = max_bytes
        self._target_bytes = min(max_bytes, TARGET_BYTES)
        self._max_spans = max_spans
        self._size = 0
        self._parts: list[bytes] = []
        self._refs: list[SpanRef] = []

    @property
    def is_full(self) -> bool:
        return self._size >= self._target_bytes or len(self._parts) >= self._max_spans

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
        return Batch(parts=tuple(self._parts[begin:end]), refs=tuple(self._refs[begin:end]))


def _ref(span: Span) -> SpanRef:
    return SpanRef(
        span.trace_id,
        span.span_id,
        span.session_id,
        span.start_ns,
        (span.opened is not None) + (span.closed is not None),
    )


def _reported(problem: Problem, key: SessionKey) -> JournalProblem:
    place = f"{problem.file}: byte {problem.offset}"
    log.warning("%s: %s; the line stays in the file and is not sent", place, problem.text)
    return JournalProblem(key.folder, key.name, problem.offset, problem.text)
