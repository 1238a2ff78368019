"""`ContinuousValidation`: compares what was recorded lately, again and again, beside the shipping.

It is a thread with a connection to the state and readers of its own. Its trouble is told in the log and keeps nobody
from shipping.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.lock import ShipperLock
from tracebridge.delivery.portion import Journal, Portion
from tracebridge.delivery.rules import current_rules
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.journal.reader import is_read
from tracebridge.line import one_line
from tracebridge.log import log
from tracebridge.threads import BackgroundThread
from tracebridge.validation.comparison import Comparison
from tracebridge.validation.sample import is_drawn
from tracebridge.validation.scope import Scope
from tracebridge.validation.validator import LEAST_PATIENCE_S, Validator


class ContinuousValidation:
    """Validates, every so often, the sessions that were delivered and not compared as they are now."""

    def __init__(self, settings: Settings, every_s: float, sample: float = 1.0) -> None:
        """`sample` is the share of sessions that is compared, the same ones every time."""
        self._settings = settings
        self._every_s = every_s
        self._sample = sample
        self._stopping = threading.Event()
        self._said: dict[str, str] = {}
        self._thread = BackgroundThread(target=self._run, name="tracebridge-validation")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End soon; what was compared is kept."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            for sink in self._settings.enabled_sinks:
                try:
                    self._pass(sink)
                except Exception as error:  # nothing of it may reach the shipping, and it is tried again
                    self._say(sink.name, f"{type(error).__name__}: {error}")

    def _pass(self, sink: SinkSettings) -> None:
        if not sink.capabilities.readable:
            self._say(sink.name, "it cannot be read back; an OpenTelemetry sink needs `reader:`")
            return
        # of several processes that are asked to validate, one does
        lock = ShipperLock(layout.locks_folder(self._settings.trace_dir) / "_validation.lock")
        if self._stopping.is_set() or not lock.acquire():
            return
        try:
            state = State(layout.state_file(self._settings.trace_dir))
            try:
                self._validate(sink, state)
            finally:
                state.close()
        finally:
            lock.release()

    def _validate(self, sink: SinkSettings, state: State) -> None:
        target = state.target(sink.name, sink.endpoint)
        chosen = set(self._chosen(sink, state, target))
        scope = Scope(sample=self._sample, since_last=True)

        def tell(session_id: str, comparison: Comparison) -> None:
            if comparison.defects:
                self._tell(sink.name, session_id, comparison)
            if self._stopping.is_set():
                raise _StoppedError

        validator = Validator(sink, self._settings.trace_dir)
        try:
            verdict = validator.validate(scope, only=chosen, tell=tell)
        except _StoppedError:
            return
        finally:
            validator.close()
        troubles = [one.reason for one in verdict.uncompared if "cannot be read" in one.reason]
        if troubles:
            self._say(sink.name, troubles[0])
        else:
            self._said.pop(sink.name, None)

    def _chosen(self, sink: SinkSettings, state: State, target: int) -> Iterator[str]:
        """The ids of the sessions to compare: drawn, delivered to their end, at rest, and not compared as they are."""
        rules = current_rules(sink)
        rest_s = least_rest_s(sink)
        compared = {one.key: one for one in state.evidence.compared(target)}
        in_flight = {ref.session_id for batch in state.in_flight(target) for ref in batch.refs}
        portion = Portion.of(state, target, sink.policy)
        for number, path in state.folders().items():
            positions, opened = state.positions(target, number), state.deadlines(target, number)
            for folder in layout.session_folders(path):
                journal = Journal(number, folder)
                session_id = journal.session_id
                if not is_drawn(session_id, self._sample):
                    continue
                try:
                    status = journal.events.stat()
                except FileNotFoundError:
                    continue  # every sink has it, so the spool has deleted it
                known = compared.get(journal.key)
                position = positions.get(folder.name)
                is_all_read = position is not None and is_read(journal.events, position, status.st_size)
                is_delivered = is_all_read and folder.name not in opened
                is_known = known is not None and known.is_current(status.st_size, status.st_mtime_ns, rules)
                is_at_rest = time.time() - status.st_mtime >= rest_s and session_id not in in_flight
                if is_delivered and is_at_rest and not is_known and portion.takes(journal):
                    yield session_id

    def _tell(self, sink: str, session_id: str, comparison: Comparison) -> None:
        counts = Counter(finding.kind for finding in comparison.defects)
        words = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
        log.error(
            "sink %s does not show session %s as it was recorded (%s): see `tracebridge validate --sink %s`",
            sink,
            one_line(session_id),
            words,
            sink,
        )

    def _say(self, sink: str, trouble: str) -> None:
        if self._said.get(sink) != trouble:
            self._said[sink] = trouble
            log.warning("sink %s is not validated: %s", sink, trouble)


def least_rest_s(sink: SinkSettings) -> float:
    """For how many seconds nothing must have been written to a session before it is compared, so that it shows."""
    return max(LEAST_PATIENCE_S, 3 * sink.capabilities.visibility_lag_s)


class _StoppedError(Exception):
    """The process ends."""
