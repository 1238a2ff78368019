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
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.delivery.backoff import LONGEST_ASKED_S, Backoff
from tracebridge.delivery.collect import Collector
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.prior import Prior, SpanId
from tracebridge.delivery.read_back import ReadBack
from tracebridge.delivery.rules import rules_of
from tracebridge.delivery.senders import Senders
from tracebridge.delivery.settle import Settled, Settlement
from tracebridge.delivery.state import Batch, State
from tracebridge.delivery.steady_clock import SteadyClock
from tracebridge.delivery.watch import SessionKey, SessionWatch
from tracebridge.errors import BackendError
from tracebridge.journal import layout
from tracebridge.session_stream import SessionStream
from tracebridge.sink import Outcome, Receipt
from tracebridge.span import Span

MAX_IN_FLIGHT: Final = 4
"""How many requests are out at once."""
MAX_BYTES_IN_FLIGHT: Final = 8 << 20
"""How many bytes may be out before another request is made; one that is larger goes out alone."""
MAX_UNSETTLED: Final = 64
"""How many batches may wait for their fate to be told while others are sent."""
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

    def __init__(
        self,
        settings: SinkSettings,
        trace_dir: Path,
        pace: Pace,
        *,
        had_shipper: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        """Open the sink and the state.

        `had_shipper` says that the sink's lock was held before, in this folder; `backoff` how long a backend in
        trouble is left alone.

        Raises:
            MissingExtraError: the sink's packages are not installed.
            StateError: the state cannot be used.
        """
        self._capabilities = settings.capabilities
        self._name = settings.name
        self._pace = pace
        self._backoff = backoff or Backoff()
        with ExitStack() as opened:
            self._sink = settings.open_sink()
            opened.callback(self._sink.close)
            self._state = State.for_shipping(layout.state_file(trace_dir))
            opened.callback(self._state.close)
            self._senders = Senders(MAX_IN_FLIGHT, f"tracebridge-{settings.name}-send")
            opened.callback(self._senders.close)
            self._begin(settings, trace_dir, had_shipper=had_shipper)
            # from here on it is `close` that closes them
            opened.pop_all()

    def _begin(self, settings: SinkSettings, trace_dir: Path, *, had_shipper: bool) -> None:
        """Take up what the last shipper left."""
        self._read_back = ReadBack(settings.open_reader, self._pace)
        self._target = self._state.target(settings.name, settings.endpoint)
        self._state.switched_on(self._target)
        self._prior = Prior(
            self._state, self._target, trace_dir, self._capabilities, self._read_back, had_shipper=had_shipper
        )
        rules = rules_of(settings.policy, self._capabilities)
        self._fingerprint = rules.fingerprint
        self._state.keep_rules(rules.fingerprint, rules.text)
        narrowing = partial(policies.apply, settings.policy)
        self._watch = SessionWatch(self._state, self._target, trace_dir, settings.policy, narrowing)
        self._collector = Collector(
            self._watch,
            self._encoded,
            self._held,
            self._pace,
            max_bytes=self._capabilities.max_request_bytes,
            max_spans=self._capabilities.max_request_spans,
        )
        self._sending: dict[Future[Receipt], _Sent] = {}
        self._answered = threading.Event()
        self._ready: deque[Batch] = deque()
        self._clock = SteadyClock()
        self._known_witnesses = self._state.witnesses(self._target)
        self._settlement = Settlement(self._capabilities.visibility_lag_s, self._known_witnesses)
        self._not_before = 0.0
        self._has_said_so = False
        self._trouble = ""
        self._said = ("", "")
        self._looked_for = 0
        self._look_at = 0.0
        for batch in self._state.in_flight(self._target):
            if batch.fate == "unsent":
                self._ready.append(batch)
            else:
                # a wall clock that was set back since must not make it look as if it were sent in the future
                self._unknown(batch, min(batch.sent_ns / 1e9, self._clock.now()))

    def round(self, request: int = 1) -> Round:
        """Do what can be done now, without waiting for the backend.

        Events are left to gather between two looks at the journal. A `request` of a higher number than any before asks
        to look now, at the latest.
        """
        self._take_answers()
        self._settle()
        if self._is_held_back():
            return Round(is_done=False, wait_s=self._not_before - time.monotonic())
        self._send_ready()
        is_time = request > self._looked_for or self._collector.has_more or time.monotonic() >= self._look_at
        if is_time and self._has_room():
            self._look(request)
        is_delivered = not (self._sending or self._ready or len(self._settlement) or self._collector.has_skipped)
        if is_delivered and self._looked_for > 0:
            self._say("idle", "everything is delivered")
        return Round(
            is_done=is_delivered and self._looked_for >= request,
            wait_s=min(self._until_next_look(), self._until_next_reading()),
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
        """What keeps the sink from taking something; empty while it works."""
        waiting = len(self._settlement)
        if self._trouble or not waiting:
            return self._trouble
        return (
            f"{waiting} requests were not answered, and do not show at the backend; what they held is sent again once "
            "it is certain that they did not arrive"
        )

    def close(self) -> None:
        """Stop sending; what is in flight stays written down for the next shipper."""
        self._pace.idle()
        self._senders.close()
        self._sink.close()
        self._read_back.close()
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
        if len(self._settlement) >= MAX_UNSETTLED:
            # one at a time still goes out: without anything that is sent later, their fate could never be told
            return not self._sending
        bytes_out = sum(sent.size for sent in self._sending.values())
        return len(self._sending) < MAX_IN_FLIGHT and bytes_out < MAX_BYTES_IN_FLIGHT

    def _is_held_back(self) -> bool:
        return time.monotonic() < self._not_before

    def _write_down_more(self) -> bool:
        """Read on, and write down what was read before any of it is sent; False if there was nothing to read."""
        collected = self._collector.collect()
        if collected.is_empty:
            return False
        written = self._state.write_down(
            self._target,
            collected.batches,
            collected.advances,
            collected.problems,
            collected.found,
            collected.unsendable,
        )
        self._ready.extend(written)
        if collected.repeats:
            self._cannot_know(collected.repeats)
        return True

    def _cannot_know(self, repeats: int) -> None:
        if not self._has_said_so:
            self._has_said_so = True
            log.warning(
                "sink %s: %s, and this backend cannot be read back: what may have been delivered before is sent again, "
                "and may be there twice",
                self._name,
                f"the state that knew what was delivered {self._prior.lost_state}"
                if self._prior.lost_state
                else "a file was replaced",
            )
        self._state.count(self._target, "possible_repeats", repeats)

    def _encoded(self, span: Span) -> bytes:
        return self._sink.encode(msgspec.structs.replace(span, fingerprint=self._fingerprint))

    def _send(self, batch: Batch) -> None:
        if not batch.parts:
            batch = msgspec.structs.replace(batch, parts=self._state.parts(batch))
        batch = self._state.set_fate(batch, "unknown")
        request = self._sink.join(batch.parts)
        future = self._senders.submit(self._sink.deliver, request)
        self._sending[future] = _Sent(batch, self._clock.now(), len(request))
        future.add_done_callback(lambda _: self._answered.set())

    # --- answers ----------------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        for future in [future for future in self._sending if future.done()]:
            sent = self._sending.pop(future)
            self._answer(sent, _receipt(future))

    def _answer(self, sent: _Sent, receipt: Receipt) -> None:
        batch = sent.batch
        match receipt.outcome:
            case Outcome.ACCEPTED if receipt.rejected == 0:
                self._state.confirm(self._target, batch)
                self._settlement.accepted(batch, sent.at)
                self._keep_witnesses()
                self._works_again()
            case Outcome.ACCEPTED:
                self._works_again()
                self._partly_refused(batch, sent.at, receipt)
            case Outcome.RETRY:
                self._back_off(receipt.message, receipt.retry_after_s)
                self._later(batch)
            case Outcome.UNKNOWN:
                self._back_off(receipt.message, receipt.retry_after_s)
                self._unknown(batch, sent.at)
            case Outcome.REJECTED | Outcome.TOO_LARGE:
                self._works_again()
                self._split_or_bury(batch, receipt.message)
            case Outcome.UNAUTHORIZED:
                self._hold_back(PAUSED_RECHECK_S, "paused", receipt.message)
                self._later(batch)

    def _later(self, batch: Batch) -> None:
        self._ready.append(self._state.set_fate(batch, "unsent"))

    def _split_or_bury(self, batch: Batch, reason: str) -> None:
        if len(batch.parts) == 1:
            log.error("sink %s: a span was refused and is a dead letter now: %s", self._name, reason)
            self._state.bury(self._target, batch, reason)
            return
        middle = len(batch.parts) // 2
        halves = [_part_of(batch, range(middle)), _part_of(batch, range(middle, len(batch.parts)))]
        self._ready.extendleft(reversed(self._state.replace(self._target, batch, halves)))

    def _partly_refused(self, batch: Batch, sent_at: float, receipt: Receipt) -> None:
        """The backend says how many it refused and not which: those that it does not show, or else all may be meant."""
        reason = f"{receipt.rejected} of {len(batch.parts)} spans refused: {receipt.message}"
        log.error("sink %s: %s", self._name, reason)
        if self._capabilities.readable:
            self._settlement.add(_without_parts(batch), sent_at, refused=reason)
        else:
            self._state.bury(self._target, batch, reason)

    # --- reading back -----------------------------------------------------------------------------------------------

    def _unknown(self, batch: Batch, sent_at: float) -> None:
        """A batch was sent, and no answer tells whether it arrived."""
        if self._capabilities.readable:
            self._settlement.add(_without_parts(batch), sent_at)
        else:
            self._send_again_unproven(batch, len(batch.refs))

    def _send_again_unproven(self, batch: Batch, repeats: int) -> None:
        self._state.count(self._target, "possible_repeats", repeats)
        self._later(batch)

    def _settle(self) -> None:
        if self._settlement.next_look_s(self._clock.now()) > 0 or not self._read_back.is_time:
            return
        try:
            settled = self._settlement.settle(self._read_back.reader(), self._clock.now(), is_idle=self._is_idle())
        except BackendError as error:
            self._cannot_read_back(error)
        else:
            self._read_back.worked()
            for verdict in settled:
                self._conclude(verdict)
            self._keep_witnesses()

    def _is_idle(self) -> bool:
        """Whether there is nothing to send, as far as is known."""
        has_work = self._sending or self._ready or self._collector.has_more or self._collector.has_skipped
        return self._looked_for > 0 and not has_work and not self._is_held_back()

    def _keep_witnesses(self) -> None:
        """An agent that never runs for as long as proof takes must not begin anew to wait for it each time."""
        if self._settlement.witnesses != self._known_witnesses:
            self._known_witnesses = self._settlement.witnesses
            self._state.keep_witnesses(self._target, self._known_witnesses)

    def _conclude(self, settled: Settled) -> None:
        batch = settled.batch
        if not settled.absent:
            self._state.confirm(self._target, batch)
            return
        if len(settled.absent) < len(batch.refs):
            whole = msgspec.structs.replace(batch, parts=self._state.parts(batch))
            (batch,) = self._state.replace(self._target, whole, [_part_of(whole, settled.absent)])
        if settled.refused:
            whole = msgspec.structs.replace(batch, parts=self._state.parts(batch))
            self._state.bury(self._target, whole, settled.refused)
        elif settled.is_proven:
            self._later(batch)
        else:
            log.warning(
                "sink %s: %d spans do not show, and nothing proves that they will not: they are sent again, "
                "and may be there twice",
                self._name,
                len(batch.refs),
            )
            self._send_again_unproven(batch, len(batch.refs))

    def _held(self, key: SessionKey, stream: SessionStream) -> frozenset[SpanId] | None:
        """What the backend holds of a session that this state did not see from its beginning."""
        try:
            held = self._prior.held(key, stream)
        except BackendError as error:
            self._cannot_read_back(error)
            return None
        if held:
            self._read_back.worked()
        return held

    def _cannot_read_back(self, error: BackendError) -> None:
        self._read_back.failed()
        if self._trouble != str(error):
            log.warning("sink %s: cannot be read back: %s", self._name, error)
        self._trouble = str(error)

    def _until_next_reading(self) -> float:
        if self._collector.has_skipped:
            return max(self._read_back.wait_s, SETTLE_EVERY_S)
        return max(self._settlement.next_look_s(self._clock.now()), self._read_back.wait_s, 0.0)

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


class _Sent(NamedTuple):
    """A request that is out."""

    batch: Batch
    at: float
    """When it was sent, by the settlement's clock."""
    size: int


def _without_parts(batch: Batch) -> Batch:
    """It may wait for long: its spans are in the state and need not be in memory."""
    return msgspec.structs.replace(batch, parts=())


def _part_of(batch: Batch, places: Sequence[int]) -> Batch:
    return Batch(
        parts=tuple(batch.parts[place] for place in places),
        refs=tuple(batch.refs[place] for place in places),
        fate="unsent",
        sent_ns=batch.sent_ns,
    )


def _receipt(future: Future[Receipt]) -> Receipt:
    error = future.exception()
    if error is not None:
        return Receipt(outcome=Outcome.UNKNOWN, message=f"{type(error).__name__}: {error}")
    return future.result()
