"""`Shipper`: brings one sink everything that the journal holds and the sink has not got.

One round reads what is unread, sends it in batches and deals with the answers. Everything that must survive a crash
is written down before it is acted on: a batch is in flight, together with the cursors behind it, before it is sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.delivery.backoff import LONGEST_ASKED_S, Backoff
from tracebridge.delivery.collect import Collector
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.rules import rules_of
from tracebridge.delivery.senders import Senders
from tracebridge.delivery.settle import missing
from tracebridge.delivery.state import Batch, State
from tracebridge.delivery.watch import SessionWatch
from tracebridge.errors import BackendError
from tracebridge.journal import layout
from tracebridge.sink import Outcome, Receipt
from tracebridge.span import Span

MAX_IN_FLIGHT: Final = 4
"""How many requests are out at once."""
LOOK_EVERY_S: Final = 0.5
"""How long events may gather before they are sent, in seconds: each request costs the agent's process some work."""
SETTLE_EVERY_S: Final = 0.05
PAUSED_RECHECK_S: Final = 300.0
"""How long a sink whose credentials were refused is left alone, in seconds."""

log = logging.getLogger("tracebridge")


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round came to."""

    is_done: bool
    """Whether everything that was written before the request that `round` was told of has been taken by the backend."""
    wait_s: float
    """How soon there is something to do again, in seconds, if nothing new is written before."""


class Shipper:
    """Ships to one sink. The caller holds the sink's lock and calls from one thread."""

    def __init__(self, settings: SinkSettings, trace_dir: Path, pace: Pace) -> None:
        """Open the sink and the state.

        Raises:
            MissingExtraError: the sink's packages are not installed.
            StateError: the state cannot be used.
        """
        if settings.sink_type is None or settings.settings is None:
            raise ValueError(f"sink {settings.name} is not complete")
        self._sink_type, self._sink_settings = settings.sink_type, settings.settings
        self._capabilities = self._sink_type.capabilities(self._sink_settings)
        self._name = settings.name
        self._pace = pace
        self._sink = self._sink_type.open_sink(self._sink_settings)
        try:
            self._state = State(layout.state_file(trace_dir))
        except BaseException:
            self._sink.close()
            raise
        self._target = self._state.target(settings.name, self._sink_type.endpoint(self._sink_settings))
        rules = rules_of(settings.policy, self._capabilities)
        self._fingerprint = rules.fingerprint
        self._state.keep_rules(rules.fingerprint, rules.text)
        narrowing = partial(policies.apply, settings.policy)
        self._watch = SessionWatch(self._state, self._target, trace_dir, settings.policy, narrowing)
        self._collector = Collector(
            self._watch,
            self._encoded,
            pace,
            max_bytes=self._capabilities.max_request_bytes,
            max_spans=self._capabilities.max_request_spans,
        )
        self._senders = Senders(MAX_IN_FLIGHT, f"tracebridge-{settings.name}-send")
        self._sending: dict[Future[Receipt], Batch] = {}
        self._answered = threading.Event()
        self._ready: deque[Batch] = deque()
        self._unsettled: deque[Batch] = deque()
        self._backoff = Backoff()
        self._not_before = 0.0
        self._trouble = ""
        self._said = ("", "")
        self._looked_for = 0
        self._look_at = 0.0
        for batch in self._state.in_flight(self._target):
            (self._ready if batch.fate == "unsent" else self._unsettled).append(batch)

    def round(self, request: int = 1) -> Round:
        """Do what can be done now, without waiting for the backend.

        Events are left to gather between two looks at the journal. A `request` of a higher number than any before asks
        to look now, at the latest.
        """
        self._take_answers()
        if self._is_held_back():
            return Round(is_done=False, wait_s=self._not_before - time.monotonic())
        self._settle_unknown()
        self._send_ready()
        is_time = request > self._looked_for or self._collector.has_more or time.monotonic() >= self._look_at
        if is_time and self._has_room():
            self._look(request)
        is_delivered = not (self._sending or self._ready or self._unsettled)
        if is_delivered and self._looked_for > 0:
            self._say("idle", "everything is delivered")
        return Round(
            is_done=is_delivered and self._looked_for >= request,
            wait_s=SETTLE_EVERY_S if self._unsettled else self._until_next_look(),
        )

    def wait(self, timeout_s: float) -> None:
        """Wait until an answer has come, `wake` was called or the time has passed."""
        self._pace.idle()
        self._answered.wait(max(0.0, timeout_s))
        self._answered.clear()

    def wake(self) -> None:
        """End a `wait`, from any thread."""
        self._answered.set()

    def pending_bytes(self) -> int:
        """How many bytes of the watched journals were not read yet."""
        return self._watch.pending_bytes()

    @property
    def trouble(self) -> str:
        """What keeps the sink from taking anything; empty while it works."""
        return self._trouble

    def close(self) -> None:
        """Stop sending; what is in flight stays written down for the next shipper."""
        self._pace.idle()
        self._senders.close()
        self._sink.close()
        self._state.close()

    # --- reading and sending ----------------------------------------------------------------------------------------

    def _look(self, request: int) -> None:
        """Read what is unread, as long as there is room for it on the way."""
        self._watch.refresh(self._pace)
        while self._has_room() and not self._is_held_back() and self._write_down_more():
            self._send_ready()
            self._take_answers()
        if not self._collector.has_more and self._has_room() and not self._is_held_back():
            self._looked_for = max(self._looked_for, request)
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self._watch.settle()

    def _until_next_look(self) -> float:
        """In seconds; while there is no room an answer will end the wait."""
        return max(0.0, self._look_at - time.monotonic()) if self._has_room() else LOOK_EVERY_S

    def _send_ready(self) -> None:
        while self._ready and self._has_room():
            self._send(self._ready.popleft())

    def _has_room(self) -> bool:
        return len(self._sending) < MAX_IN_FLIGHT

    def _is_held_back(self) -> bool:
        return time.monotonic() < self._not_before

    def _write_down_more(self) -> bool:
        """Read on, and write down what was read before any of it is sent; False if there was nothing to read."""
        collected = self._collector.collect()
        if collected.is_empty:
            return False
        self._ready.extend(
            self._state.write_down(self._target, collected.batches, collected.advances, collected.problems)
        )
        return True

    def _encoded(self, span: Span) -> bytes:
        return self._sink.encode(msgspec.structs.replace(span, fingerprint=self._fingerprint))

    def _send(self, batch: Batch) -> None:
        if batch.fate == "unsent":
            self._state.set_fate(batch, "unknown")
            batch = msgspec.structs.replace(batch, fate="unknown")
        request = self._sink.join(batch.parts)
        future = self._senders.submit(self._sink.deliver, request)
        self._sending[future] = batch
        future.add_done_callback(lambda _: self._answered.set())

    # --- answers ----------------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        for future in [future for future in self._sending if future.done()]:
            batch = self._sending.pop(future)
            self._answer(batch, _receipt(future))

    def _answer(self, batch: Batch, receipt: Receipt) -> None:
        match receipt.outcome:
            case Outcome.ACCEPTED if receipt.rejected == 0:
                self._state.confirm(self._target, batch)
                self._works_again()
            case Outcome.ACCEPTED:
                self._works_again()
                self._partly_rejected(batch, receipt)
            case Outcome.RETRY:
                self._back_off(receipt.message, receipt.retry_after_s)
                self._later(batch)
            case Outcome.UNKNOWN:
                self._back_off(receipt.message, receipt.retry_after_s)
                self._unsettled.append(batch)
            case Outcome.REJECTED | Outcome.TOO_LARGE:
                self._works_again()
                self._split_or_bury(batch, receipt.message)
            case Outcome.UNAUTHORIZED:
                self._hold_back(PAUSED_RECHECK_S, "paused", receipt.message)
                self._later(batch)

    def _later(self, batch: Batch) -> None:
        self._state.set_fate(batch, "unsent")
        self._ready.append(msgspec.structs.replace(batch, fate="unsent"))

    def _split_or_bury(self, batch: Batch, reason: str) -> None:
        if len(batch.parts) == 1:
            log.error("sink %s: a span was refused and is a dead letter now: %s", self._name, reason)
            self._state.bury(self._target, batch, reason)
            return
        middle = len(batch.parts) // 2
        halves = [_part_of(batch, range(middle)), _part_of(batch, range(middle, len(batch.parts)))]
        self._ready.extendleft(reversed(self._state.replace(self._target, batch, halves)))

    def _partly_rejected(self, batch: Batch, receipt: Receipt) -> None:
        """The backend says how many it refused and not which: those that it does not show, or else all may be meant."""
        reason = f"{receipt.rejected} of {len(batch.parts)} spans refused: {receipt.message}"
        refused = list(range(len(batch.parts)))
        if self._capabilities.readable:
            self._let_pass(self._capabilities.visibility_lag_s)
            try:
                refused = self._missing(batch)
            except BackendError as error:
                reason += f" (which ones could not be read back: {error})"
        if not refused:
            self._state.confirm(self._target, batch)
            return
        log.error("sink %s: %s", self._name, reason)
        for dead in self._state.replace(self._target, batch, [_part_of(batch, refused)]):
            self._state.bury(self._target, dead, reason)

    # --- batches of unknown fate ------------------------------------------------------------------------------------

    def _settle_unknown(self) -> None:
        for _ in range(len(self._unsettled)):
            batch = self._unsettled.popleft()
            if not self._capabilities.readable:
                self._state.count(self._target, "possible_repeats", len(batch.parts))
                self._later(batch)
            elif time.time_ns() < batch.written_ns + int(self._capabilities.visibility_lag_s * 1e9):
                self._unsettled.append(batch)
            elif not self._settled(batch):
                return

    def _settled(self, batch: Batch) -> bool:
        try:
            lost = self._missing(batch)
        except BackendError as error:
            self._unsettled.append(batch)
            self._back_off(str(error))
            return False
        if not lost:
            self._state.confirm(self._target, batch)
        elif len(lost) == len(batch.parts):
            self._later(batch)
        else:
            rest = _part_of(batch, lost)
            self._ready.extend(self._state.replace(self._target, batch, [rest]))
        return True

    def _missing(self, batch: Batch) -> list[int]:
        self._pace.idle()
        reader = self._sink_type.open_reader(self._sink_settings)
        try:
            return missing(reader, batch)
        finally:
            reader.close()

    def _let_pass(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait(left)

    # --- how it is going --------------------------------------------------------------------------------------------

    def _back_off(self, why: str, asked_s: float | None = None) -> None:
        # several requests that were out together and fail together are one failure
        seconds = (asked_s or 0.0) if self._is_held_back() else self._backoff.failed(asked_s)
        self._hold_back(min(seconds, LONGEST_ASKED_S), "backing off", why)

    def _hold_back(self, seconds: float, state: str, why: str) -> None:
        self._not_before = max(self._not_before, time.monotonic() + seconds)
        if self._trouble != why:
            log.warning("sink %s: %s: %s", self._name, state, why)
        self._trouble = why
        self._say(state, why)

    def _works_again(self) -> None:
        self._backoff.succeeded()
        if self._trouble:
            log.warning("sink %s: works again", self._name)
            self._trouble = ""
        self._say("shipping", "")

    def _say(self, state: str, detail: str) -> None:
        if self._said != (state, detail):
            self._said = (state, detail)
            self._state.set_condition(self._target, state, detail)


def _part_of(batch: Batch, places: Sequence[int]) -> Batch:
    return Batch(
        parts=tuple(batch.parts[place] for place in places),
        refs=tuple(batch.refs[place] for place in places),
        fate="unsent",
    )


def _receipt(future: Future[Receipt]) -> Receipt:
    error = future.exception()
    if error is not None:
        return Receipt(outcome=Outcome.UNKNOWN, message=f"{type(error).__name__}: {error}")
    return future.result()
