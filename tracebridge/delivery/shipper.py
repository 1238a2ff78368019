"""`Shipper`: brings one sink everything that the journal holds and the sink has not got.

One round reads what is unread, sends it in batches and deals with the answers. Everything that must survive a crash
is written down before it is acted on: a batch is in flight, together with the cursors behind it, before it is sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.delivery import poison
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.collect import Collector
from tracebridge.delivery.fit import Fitting, UnfitError
from tracebridge.delivery.health import Health
from tracebridge.delivery.lookup import find_span, find_spans
from tracebridge.delivery.narrowing import JOURNAL_GONE, narrow_waiting
from tracebridge.delivery.outbox import Outbox
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.prior import Prior, SpanId
from tracebridge.delivery.read_back import ReadBack
from tracebridge.delivery.receipts import receipt_of
from tracebridge.delivery.records import Batch, DeadLetter, Suspicion
from tracebridge.delivery.rules import Rules
from tracebridge.delivery.senders import Senders
from tracebridge.delivery.settle import Settled, Settlement, missing_trace_by_trace
from tracebridge.delivery.splitting import halves, part_of, within
from tracebridge.delivery.state import State
from tracebridge.delivery.steady_clock import SteadyClock
from tracebridge.delivery.switched_off import switch_on
from tracebridge.delivery.unforked import unforked
from tracebridge.delivery.watch import SessionKey, SessionWatch
from tracebridge.errors import BackendError
from tracebridge.journal import layout
from tracebridge.log import log
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
_MOST_REFUSALS: Final = 100
"""How many refusals are told that differ in their words."""


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

        Args:
            settings: the sink's.
            trace_dir: the folder of the journals.
            pace: how fast to work.
            had_shipper: whether the sink's lock was held before, in this folder.
            backoff: how long to leave a backend alone that fails.

        Raises:
            MissingExtraError: the sink's packages are not installed.
            StateError: the state cannot be used.
        """
        with unforked():
            self._capabilities = settings.capabilities
        self._name = settings.name
        self._policy = settings.policy
        self._pace = pace
        with ExitStack() as opened:
            with unforked():
                self._sink = settings.open_sink()
            opened.callback(self._sink.close)
            self._state = State.for_shipping(layout.state_file(trace_dir))
            opened.callback(self._state.close)
            self._senders = Senders(MAX_IN_FLIGHT, f"tracebridge-{settings.name}-send")
            opened.callback(self._senders.close)
            backoff = backoff or Backoff()
            self._first_wait_s = backoff.first_s
            self._begin(settings, trace_dir, backoff, had_shipper=had_shipper)
            self._opened = opened.pop_all()

    def _begin(self, settings: SinkSettings, trace_dir: Path, backoff: Backoff, *, had_shipper: bool) -> None:
        """Take up what the last shipper left."""
        self._read_back = ReadBack(settings.open_reader, self._pace)
        self._target = self._state.target(settings.name, settings.endpoint)
        switch_on(self._state, self._target, is_readable=self._capabilities.readable)
        self._prior = Prior(
            self._state, self._target, trace_dir, self._capabilities, self._read_back, had_shipper=had_shipper
        )
        self._health = Health(settings.name, backoff, partial(self._state.set_condition, self._target))
        self._fitting = Fitting(settings.policy, self._capabilities, self._sink, self._keep_rules)
        narrowing = partial(policies.apply, settings.policy)
        self._watch = SessionWatch(self._state, self._target, trace_dir, settings.policy, narrowing)
        self._collector = Collector(
            self._watch,
            self._fitting.encode,
            self._held,
            self._pace,
            settings.policy,
            max_bytes=self._capabilities.max_request_bytes,
            max_spans=self._capabilities.max_request_spans,
        )
        self._sending: dict[Future[Receipt], _Sent] = {}
        self._answered = threading.Event()
        self._outbox = Outbox()
        self._clock = SteadyClock()
        self._known_witnesses = self._state.witnesses(self._target)
        self._settlement = Settlement(
            self._capabilities.visibility_lag_s,
            self._known_witnesses,
            by_trace=bool(self._capabilities.hidden_from_search),
        )
        self._has_said_so = False
        self._refusals_told: set[str] = set()
        self._looked_for = 0
        self._has_looked = False
        self._has_letters = False  # dead letters are still to be sent again, or to be asked for
        self._look_at = 0.0
        self._encoding = narrow_waiting(self._state, self._target, settings.policy, self._fitting.encode, self._pace)
        self._fitting.take_cut()  # what waits was counted when it was read
        for batch in self._state.in_flight(self._target):
            if batch.fate == "unsent":
                self._outbox.add([batch])
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
        if self._health.is_held_back:
            return Round(is_done=False, wait_s=self._health.wait_s)
        self._send_ready(also_suspects=self._health.is_trusted)
        is_time = request > self._looked_for or self._collector.has_more or time.monotonic() >= self._look_at
        if is_time and self._has_room():
            self._look(request)
        # a backend that may be down is tried with others before it is with what it failed on
        self._send_ready(also_suspects=not self._collector.has_more)
        is_delivered = not (self._is_waiting() or self._collector.has_skipped or self._has_letters)
        if is_delivered and self._has_looked:
            self._health.say("idle", "everything is delivered")
        elif self._is_held_up_by_reading():
            self._health.say("waiting", self._read_back.trouble)
        return Round(
            is_done=is_delivered and self._looked_for >= request,
            wait_s=min(self._until_next_look(), self._until_next_reading(), self._until_next_sending()),
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
        trouble = self._health.trouble or self._read_back.trouble
        if trouble or not waiting:
            return trouble
        return (
            f"{waiting} requests were not answered, and do not show at the backend; what they held is sent again once "
            "it is certain that they did not arrive"
        )

    def close(self) -> None:
        """Stop sending; what is in flight stays written down for the next shipper."""
        self._pace.idle()
        # a plug-in that raises keeps nothing else open
        with self._opened:
            self._read_back.close()

    # --- reading and sending ----------------------------------------------------------------------------------------

    def _look(self, request: int) -> None:
        """Read what is unread, as long as there is room for it on the way."""
        self._revive_dead_letters()
        self._watch.refresh(self._pace)
        while self._has_room() and not self._health.is_held_back and self._write_down_more():
            self._send_ready(also_suspects=self._health.is_trusted)
            self._take_answers()
        if not self._collector.has_more and self._has_room() and not self._health.is_held_back:
            self._looked_for = max(self._looked_for, request)
            self._has_looked = True
            self._look_at = time.monotonic() + self._gathering_s()
            self._watch.settle()

    def _gathering_s(self) -> float:
        """How long events may gather now: what was passed over gathers no longer than it has to."""
        if self._collector.has_skipped and self._prior.wait_s > 0:
            return min(self._prior.wait_s, LOOK_EVERY_S)
        return LOOK_EVERY_S

    def _until_next_look(self) -> float:
        """In seconds; while there is no room an answer will end the wait."""
        return max(0.0, self._look_at - time.monotonic()) if self._has_room() else self._until_room()

    def _until_next_sending(self) -> float:
        return self._outbox.wait_s(time.monotonic()) if self._has_room() else self._until_room()

    def _until_room(self) -> float:
        return min(LOOK_EVERY_S, self._pace.request_wait_s() or LOOK_EVERY_S)

    def _send_ready(self, *, also_suspects: bool) -> None:
        while self._has_room() and not self._health.is_held_back:
            # one suspect at a time: if it makes the backend hang, there is room for others
            is_suspect_out = any(sent.batch.suspicion.strikes for sent in self._sending.values())
            batch = self._outbox.take(time.monotonic(), also_aside=also_suspects and not is_suspect_out)
            if batch is None:
                return
            self._send(batch)

    def _has_room(self) -> bool:
        if self._pace.request_wait_s() > 0:
            # nothing is read that could not be sent: it would have to be kept
            return False
        # after trouble, one at a time until the backend has taken something
        if len(self._settlement) >= MAX_UNSETTLED or not self._health.is_trusted:
            # those that wait for their fate need something that is sent later, by which it can be told
            return not self._sending
        bytes_out = sum(sent.size for sent in self._sending.values())
        return len(self._sending) < MAX_IN_FLIGHT and bytes_out < MAX_BYTES_IN_FLIGHT

    def _is_waiting(self) -> bool:
        """Whether something that was read is not at the backend for certain."""
        return bool(self._sending or len(self._outbox) or len(self._settlement))

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
            collected.left_out,
            self._fitting.take_cut(),
        )
        self._outbox.add(written)
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

    def _keep_rules(self, rules: Rules) -> None:
        self._state.keep_rules(rules.fingerprint, rules.text)

    def _send(self, batch: Batch) -> None:
        if not batch.parts:
            batch = msgspec.structs.replace(batch, parts=self._state.parts(batch))
        batch = self._state.set_fate(batch, "unknown")
        self._pace.request()
        request = self._sink.join(batch.parts)
        future = self._senders.submit(self._sink.deliver, request)
        self._sending[future] = _Sent(batch, self._clock.now(), time.monotonic(), len(request))
        future.add_done_callback(lambda _: self._answered.set())

    # --- answers ----------------------------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        for future in [future for future in self._sending if future.done()]:
            sent = self._sending.pop(future)
            self._answer(sent, receipt_of(future))

    def _answer(self, sent: _Sent, receipt: Receipt) -> None:
        batch = sent.batch
        match receipt.outcome:
            case Outcome.ACCEPTED if receipt.rejected <= 0:
                self._state.confirm(self._target, batch)
                self._settlement.accepted(batch, sent.at)
                self._keep_witnesses()
                self._health.accepted()
                self._health.warns(receipt.message)
            case Outcome.ACCEPTED:
                self._health.accepted()
                self._partly_refused(batch, sent.at, receipt)
            case Outcome.RETRY:
                self._health.failed(receipt.message, receipt.retry_after_s)
                self._outbox.add([self._state.set_fate(batch, "unsent")])
            case Outcome.UNKNOWN:
                # of a backend that serves others meanwhile, the batch is to blame
                if not self._health.has_served_since(sent.since):
                    self._health.failed(receipt.message, receipt.retry_after_s)
                self._unknown(self._state.suspect(batch, self._struck(batch, receipt.message)), sent.at)
            case Outcome.REJECTED:
                self._health.answered()
                self._refused(batch, receipt.message)
            case Outcome.TOO_LARGE:
                self._health.answered()
                self._too_large(batch, receipt.message)
            case Outcome.UNAUTHORIZED:
                self._health.refuses_credentials(receipt.message)
                self._outbox.add([self._state.set_fate(batch, "unsent")])

    def _refused(self, batch: Batch, reason: str) -> None:
        """Something in the batch is not to the backend's liking: what, is found by halving."""
        if len(batch.parts) == 1:
            self._bury(batch, reason)
        else:
            self._outbox.add_first(self._state.replace(self._target, batch, halves(batch)))

    def _bury(self, batch: Batch, reason: str) -> None:
        count = len(batch.refs)
        who = "a span was refused and is a dead letter now" if count == 1 else f"{count} spans are dead letters now"
        self._say_once(f"{who}: {reason}")
        self._state.bury(self._target, batch, reason)

    def _say_once(self, text: str) -> None:
        """What is said already is counted: a wrong address may refuse every span there is."""
        if text not in self._refusals_told and len(self._refusals_told) < _MOST_REFUSALS:
            self._refusals_told.add(text)
            log.error("sink %s: %s", self._name, text)

    def _too_large(self, batch: Batch, reason: str) -> None:
        if len(batch.parts) > 1:
            self._outbox.add_first(self._state.replace(self._target, batch, halves(batch)))
            return
        (part,), (ref,) = batch.parts, batch.refs
        self._fitting.refused(len(part))
        span = find_span(self._state.folders().values(), ref, self._policy)
        if span is None:
            self._bury(batch, f"{reason}; it cannot be cut, because its journal is gone")
            return
        try:
            cut = self._fitting.below(span, len(part) // 2)
        except UnfitError as error:
            self._fitting.forget_refusals()
            self._bury(batch, f"{reason}; {error}")
            return
        smaller = msgspec.structs.replace(part_of(batch, [0]), parts=(cut,))
        self._outbox.add_first(self._state.replace(self._target, batch, [smaller]))
        if part == self._fitting.whole(span):  # else it was cut before, and counted then
            self._state.count(self._target, "cut_spans", 1)

    def _partly_refused(self, batch: Batch, sent_at: float, receipt: Receipt) -> None:
        """The backend says how many it refused and not which: those that it does not show, or else all may be meant."""
        reason = f"{receipt.rejected} of {len(batch.parts)} spans refused: {receipt.message}"
        if self._capabilities.readable:
            self._say_once(reason)
            self._settlement.add(_without_parts(batch), sent_at, refused=reason)
        elif receipt.rejected >= len(batch.parts) or self._capabilities.idempotent:
            self._refused(batch, reason)
        else:
            self._bury(batch, reason)

    def _struck(self, batch: Batch, failure: str) -> Suspicion:
        out = (sent.batch for sent in self._sending.values())
        waiting = list(chain(out, self._outbox, self._settlement))
        is_all = self._has_looked and not self._collector.has_more
        return poison.struck(
            batch,
            failure,
            served=self._state.served(self._target),
            only_suspects=is_all and all(map(poison.is_suspect, waiting)),
            only_halves=is_all and all(map(poison.is_half, waiting)),
        )

    def _again(self, batch: Batch) -> None:
        """Send a batch again, which certainly did not arrive or may have; or what is left of it, if it is poisoned."""
        if not poison.is_poisoned(batch):
            batch = self._state.set_fate(batch, "unsent")
            if batch.suspicion.strikes:
                self._outbox.set_aside(batch, time.monotonic() + poison.aside_s(batch.suspicion, self._first_wait_s))
            else:
                self._outbox.add([batch])
            return
        whole = msgspec.structs.replace(batch, parts=self._state.parts(batch))
        if len(whole.parts) == 1:
            held = batch.suspicion
            self._bury(whole, f"the backend failed on it {held.strikes} times while it took others: {held.failure}")
            return
        suspects = map(poison.half_under_suspicion, halves(whole))
        self._outbox.add_first(self._state.replace(self._target, whole, suspects))

    # --- dead letters -----------------------------------------------------------------------------------------------

    def _revive_dead_letters(self) -> None:
        """Send those again that somebody asked for, made anew from the journal where it is still there."""
        retried = self._state.dead.retried(self._target)
        letters = self._still_absent(retried) if retried and self._capabilities.readable else retried
        if letters:
            self._revive(letters)
        # very many come in portions
        self._has_letters = bool(retried) and bool(self._state.dead.retried(self._target))

    def _revive(self, letters: list[DeadLetter]) -> None:
        spans = find_spans(self._state.folders().values(), [letter.ref for letter in letters], self._policy)
        parts = [
            self._encoded_again(letter, spans.get((letter.ref.trace_id, letter.ref.span_id))) for letter in letters
        ]
        revived = [(part, letter) for part, letter in zip(parts, letters, strict=True) if part]
        batch = Batch(
            parts=tuple(part for part, _ in revived), refs=tuple(letter.ref for _, letter in revived), fate="unsent"
        )
        batches = within(batch, self._fitting.max_bytes, self._capabilities.max_request_spans) if revived else []
        self._outbox.add(self._state.revive(self._target, [letter for _, letter in revived], batches))
        self._state.dead.give_up_retrying([letter for part, letter in zip(parts, letters, strict=True) if not part])

    def _still_absent(self, letters: list[DeadLetter]) -> list[DeadLetter]:
        """Those that the backend does not show by now; none as long as it cannot be asked."""
        if not self._read_back.is_time:
            return []
        try:
            # they may be of any time, and of few traces
            absent = set(missing_trace_by_trace(self._read_back.reader(), [letter.ref for letter in letters]))
        except BackendError as error:
            self._cannot_read_back(error)
            return []
        self._read_back.worked()
        self._state.dead.found(self._target, [one for place, one in enumerate(letters) if place not in absent])
        return [letters[place] for place in sorted(absent)]

    def _encoded_again(self, letter: DeadLetter, span: Span | None) -> bytes:
        """A dead letter, made of its span if a journal still holds that; empty if that cannot be done."""
        is_kept = policies.keeps_session(self._policy, letter.ref.session_id)
        if not is_kept or (span is not None and not policies.keeps_span(self._policy, span)):
            why: object = "the policy leaves it out"
        elif span is None:
            if letter.id > self._encoding.latest_wider:
                return self._state.dead.part(letter.id)
            why = JOURNAL_GONE
        else:
            try:
                return self._fitting.encode(span)
            except Exception as error:  # a sink's defect, or a span that is too large
                why = error
        log.error("sink %s: the dead letter %d cannot be sent again: %s", self._name, letter.id, why)
        return b""

    # --- reading back -----------------------------------------------------------------------------------------------

    def _unknown(self, batch: Batch, sent_at: float) -> None:
        """A batch was sent, and no answer tells whether it arrived."""
        if self._capabilities.readable:
            self._settlement.add(_without_parts(batch), sent_at)
        else:
            self._send_again_unproven(batch, len(batch.refs))

    def _send_again_unproven(self, batch: Batch, repeats: int) -> None:
        self._state.count(self._target, "possible_repeats", repeats)
        self._again(batch)

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
        has_work = self._sending or len(self._outbox) or self._collector.has_more or self._collector.has_skipped
        return self._has_looked and not has_work and not self._health.is_held_back

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
            (batch,) = self._state.replace(self._target, whole, [part_of(whole, settled.absent)])
        if settled.refused:
            whole = msgspec.structs.replace(batch, parts=self._state.parts(batch))
            if settled.is_proven and len(settled.absent) == len(settled.batch.refs):
                # one of them may have cost the others their place
                self._refused(whole, settled.refused)
            else:
                self._bury(whole, settled.refused)
        elif settled.is_proven:
            self._again(batch)
        else:
            log.warning(
                "sink %s: %d spans do not show, and nothing proves that they will not: they are sent again, "
                "and may be there twice",
                self._name,
                len(batch.refs),
            )
            self._send_again_unproven(batch, len(batch.refs))

    def _held(self, key: SessionKey, stream: SessionStream) -> Container[SpanId] | None:
        """What the backend holds of a session that this state did not see from its beginning."""
        try:
            return self._prior.held(key, stream)
        except BackendError as error:
            self._cannot_read_back(error)
            return None

    def _is_held_up_by_reading(self) -> bool:
        """Whether all that could be sent waits until the backend tells what it holds."""
        has_work = self._sending or len(self._outbox) or self._collector.has_more or self._health.is_held_back
        return bool(self._read_back.trouble) and not has_work

    def _cannot_read_back(self, error: BackendError) -> None:
        if self._read_back.trouble != str(error):
            log.warning("sink %s: cannot be read back: %s", self._name, error)
        self._read_back.failed(error)

    def _until_next_reading(self) -> float:
        if self._collector.has_skipped or self._has_letters:
            return max(self._read_back.wait_s, SETTLE_EVERY_S)
        return max(self._settlement.next_look_s(self._clock.now()), self._read_back.wait_s, 0.0)


class _Sent(NamedTuple):
    """A request that is out."""

    batch: Batch
    at: float
    """When it was sent, by the settlement's clock."""
    since: float
    """When it was sent, by the monotonic clock."""
    size: int


def _without_parts(batch: Batch) -> Batch:
    """It may wait for long: its spans are in the state and need not be in memory."""
    return msgspec.structs.replace(batch, parts=())
