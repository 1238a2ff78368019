"""`Validator`: compares what one sink should hold, by the journal, with what its reader shows."""

from __future__ import annotations

import shlex
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.delivery.choice import Choice
from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.rules import current_rules, rules_from_text, rules_of
from tracebridge.delivery.state import State
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.errors import BackendError, ConfigurationError
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.session_stream import SessionStream
from tracebridge.sink import Query, Reader
from tracebridge.span import Span
from tracebridge.validation.comparison import Comparison, SpanId, compare
from tracebridge.validation.verdict import Tally, Verdict

RECHECK_S: Final = 0.25
LEAST_PATIENCE_S: Final = 2.0
"""How long spans that do not show yet are waited for, at least, in seconds; else three times the sink's lag."""
_MARGIN_NS: Final = 60 * 1_000_000_000

Progress = Callable[[int, int], None]
"""Is told how many sessions of how many are done."""

Keep = Callable[[str, Comparison, list[Compared]], None]
"""Is given each session that was compared whole, what it came to, and the evidence of it, one a journal."""


class _Journal(NamedTuple):
    """One of the files in which a session is recorded: an old folder may hold its past, the trace folder the rest."""

    number: int
    """The number of the folder of sessions that it was found in."""
    folder: Path
    """The session's own folder."""


class _Expected(msgspec.Struct, frozen=True):
    """What the journals of one session say that a backend should hold."""

    spans: list[Span]
    is_closed: bool
    sizes: dict[_Journal, int]
    """Bytes of each journal that were read."""

    @property
    def is_outdated(self) -> bool:
        """Whether something was written since."""
        return any(layout.events_file(journal.folder).stat().st_size > size for journal, size in self.sizes.items())


class Validator:
    """Validates one sink over the sessions of a trace folder and of every folder that was backfilled."""

    def __init__(self, sink: SinkSettings, trace_dir: Path) -> None:
        """Open the sink's reader and the state.

        Raises:
            ConfigurationError: the sink cannot be read back.
            MissingExtraError: the sink's packages are not installed.
            StateError: the state cannot be used.
        """
        if sink.sink_type is None or sink.settings is None:
            raise ConfigurationError(f"sink {sink.name}: switch it on to validate it")
        self._capabilities = sink.sink_type.capabilities(sink.settings)
        if not self._capabilities.readable:
            raise ConfigurationError(
                f"sink {sink.name}: cannot be read back, so it cannot be validated; "
                "an OpenTelemetry sink needs `reader:`"
            )
        self._sink = sink
        self._endpoint = sink.sink_type.endpoint(sink.settings)
        self._trace_dir = trace_dir
        self._reader: Reader = sink.sink_type.open_reader(sink.settings)
        try:
            self._state = State(layout.state_file(trace_dir))
        except BaseException:
            self._reader.close()
            raise
        self._target = self._state.target(sink.name, self._endpoint)
        self._state.folder(trace_dir)

    def close(self) -> None:
        """Release the reader and the state."""
        self._reader.close()
        self._state.close()

    def validate(
        self,
        session_id: str | None = None,
        progress: Progress | None = None,
        *,
        only: Container[str] | None = None,
        keep: Keep | None = None,
    ) -> Verdict:
        """Compare every owed session, those of them whose ids are in `only`, or the one called `session_id`."""
        tally = Tally(self._sink.name, self._endpoint)
        owed = self._owed(session_id)
        if only is not None:
            owed = {owed_id: journals for owed_id, journals in owed.items() if owed_id in only}
        if session_id is not None:
            if not owed:
                tally.could_not_compare("no such session in the trace folder or in a backfilled one", session_id)
        else:
            for folder in self._gone():
                tally.could_not_compare(
                    f"{folder}: this backfilled folder is gone, so nothing tells what was sent from it; bring it back, "
                    f"or give it up with `tracebridge forget --folder {shlex.quote(str(folder))}`"
                )
        deadline = time.monotonic() + max(LEAST_PATIENCE_S, 3 * self._capabilities.visibility_lag_s)
        remaining = deque(owed)
        while remaining:
            owed_id = remaining.popleft()
            if not self._validate_session(owed_id, owed[owed_id], deadline, tally, keep):
                break
            if progress is not None:
                progress(len(owed) - len(remaining), len(owed))
        for owed_id in remaining:
            tally.could_not_compare("not reached: the backend cannot be read", owed_id)
        return tally.verdict()

    def _owed(self, session_id: str | None) -> dict[str, list[_Journal]]:
        """The journals of every session that the sink should hold, or of the one that is asked for."""
        owed: dict[str, list[_Journal]] = {}
        choice, ramp = Choice(self._state.choices()), self._state.ramp(self._target)
        for number, path in self._state.folders().items():
            for folder in layout.session_folders(path):
                found_id = layout.session_id_of(folder)
                events = layout.events_file(folder)
                is_owed = policies.keeps_session(self._sink.policy, found_id) and ramp.takes(found_id, events)
                if session_id in (None, found_id) and is_owed and choice.takes(number, events):
                    owed.setdefault(found_id, []).append(_Journal(number, folder))
        return owed

    def _gone(self) -> list[Path]:
        """The backfilled folders that are not there any more."""
        folders = self._state.folders()
        own = self._state.folder(self._trace_dir)
        return [folder for number, folder in folders.items() if number != own and not folder.is_dir()]

    def _validate_session(
        self, session_id: str, journals: list[_Journal], deadline: float, tally: Tally, keep: Keep | None
    ) -> bool:
        """Compare one session; False if the backend cannot be read, so that going on is useless."""
        try:
            expected = _expected(journals, self._sink.policy)
            if not expected.is_closed:
                tally.could_not_compare("still open: its last run has not ended", session_id)
                return True
            if not expected.spans:
                # its writer died before the first event: there is nothing to compare, which is no comparison
                return True
            comparison = self._compared(expected, session_id, deadline)
            is_outdated = expected.is_outdated
        except OSError as error:
            tally.could_not_compare(f"its journal cannot be read: {error}", session_id)
            return True
        except BackendError as error:
            tally.could_not_compare(f"the backend cannot be read: {error}", session_id)
            return False
        if comparison is None:
            tally.could_not_compare("not delivered yet; run `tracebridge ship`", session_id)
        elif comparison.defects and is_outdated:
            tally.could_not_compare("written to while it was compared; validate it again", session_id)
        else:
            tally.add(comparison, Counter(span.kind for span in expected.spans))
            if keep is not None:
                keep(session_id, comparison, self._evidence(expected, comparison))
        return True

    def _evidence(self, expected: _Expected, comparison: Comparison) -> list[Compared]:
        rules = current_rules(self._sink)
        return [
            Compared(
                folder=journal.number,
                session=journal.folder.name,
                compared_ns=time.time_ns(),
                size=size,
                rules=rules,
                spans=comparison.expected,
                defects=len(comparison.defects),
            )
            for journal, size in expected.sizes.items()
        ]

    def _compared(self, expected: _Expected, session_id: str, deadline: float) -> Comparison | None:
        """Compare, again and again while something accepted does not show yet, up to the deadline.

        All sessions share the deadline: what was accepted before the first was compared has had its time by then.
        None if something is missing that was not delivered.
        """
        while True:
            # asked before the backend is: what is delivered in between is not missing
            is_pending = self._is_pending(expected, session_id)
            observed = self._observed(session_id, expected.spans)
            wanted = self._under_the_rules_sent(expected, observed)
            comparison = compare(wanted, observed, self._capabilities.losses)
            if not _has_missing(comparison):
                return comparison
            if is_pending:
                return None
            if time.monotonic() > deadline:
                return comparison
            time.sleep(RECHECK_S)

    def _observed(self, session_id: str, expected: list[Span]) -> list[Span]:
        """What the backend shows of a session, and, of what is missing there, what it shows elsewhere."""
        observed = list(self._reader.read(_query(session_id, expected)))
        missing = {_id(span) for span in expected} - {_id(span) for span in observed}
        if missing:
            # a span that lost its session is not missing but different
            elsewhere = Query(trace_ids=tuple(sorted({trace_id for trace_id, _ in missing})))
            observed += [span for span in self._reader.read(elsewhere) if _id(span) in missing]
        return observed

    def _under_the_rules_sent(self, expected: _Expected, observed: list[Span]) -> list[Span]:
        """The expected spans, each under the rules that the backend's copy says it was sent with."""
        current = rules_of(self._sink.policy, self._capabilities).fingerprint
        sent_with = {_id(span): span.fingerprint for span in observed if span.fingerprint}
        under: dict[str, dict[SpanId, Span]] = {}
        for fingerprint in set(sent_with.values()) - {current}:
            text = self._state.rules(fingerprint)
            if text is not None:
                earlier = _expected(expected.sizes, rules_from_text(text).policy).spans
                under[fingerprint] = {_id(span): span for span in earlier}
        if not under:
            return expected.spans
        return [under.get(sent_with.get(_id(span), ""), {}).get(_id(span), span) for span in expected.spans]

    def _is_pending(self, expected: _Expected, session_id: str) -> bool:
        for journal, size in expected.sizes.items():
            cursor = self._state.cursor(self._target, journal.number, journal.folder.name)
            if cursor is None or cursor.offset < size or cursor.checkpoint.opened:
                return True
        return any(ref.session_id == session_id for batch in self._state.in_flight(self._target) for ref in batch.refs)


def _expected(journals: Iterable[_Journal], policy: Policy) -> _Expected:
    spans: list[Span] = []
    sizes: dict[_Journal, int] = {}
    is_closed = True
    for journal in journals:
        stream = SessionStream(layout.events_file(journal.folder), partial(policies.apply, policy))
        # asked before the file is read: what is written meanwhile must not be given up unseen
        began_ns = time.time_ns()
        found = [span for step in stream.steps() for span in step.spans]
        found += stream.expire(began_ns - INCOMPLETE_GRACE_NS)
        # the same run may lie in two folders, one a copy of the other; a backend should hold it once
        known = {_id(span) for span in spans}
        spans += [span for span in found if _id(span) not in known]
        sizes[journal] = stream.offset
        is_closed = is_closed and stream.is_idle
    return _Expected(spans, is_closed, sizes)


def _id(span: Span) -> SpanId:
    return span.trace_id, span.span_id


def _query(session_id: str, spans: list[Span]) -> Query:
    """All of a session, in a window: what moved out of it is looked for by its trace."""
    if not spans:
        return Query(session_id=session_id)
    return Query(
        session_id=session_id,
        start_ns=max(0, min(span.start_ns for span in spans) - _MARGIN_NS),
        end_ns=max(span.start_ns for span in spans) + _MARGIN_NS,
    )


def _has_missing(comparison: Comparison) -> bool:
    return any(finding.kind == "missing" for finding in comparison.findings)
