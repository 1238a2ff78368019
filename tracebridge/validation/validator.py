"""`Validator`: compares what one sink should hold, by the journal, with what its reader shows."""

from __future__ import annotations

import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.portion import Journal
from tracebridge.delivery.rules import current_rules, rules_from_text
from tracebridge.delivery.state import SpanRef, State
from tracebridge.errors import BackendError, ConfigurationError, IncompleteAnswerError
from tracebridge.journal import layout
from tracebridge.journal.spooled import deleted_ns
from tracebridge.session_stream import is_another
from tracebridge.sink import ComputingReader, Query, Reader
from tracebridge.span import Span
from tracebridge.validation.comparison import (
    Comparison,
    Earlier,
    Finding,
    SpanId,
    compare,
    without_copies,
    without_moves,
)
from tracebridge.validation.expected import Expected, expected_of, id_of
from tracebridge.validation.owed import Owed, Owing, owing, parts_apart_of
from tracebridge.validation.remedy import remedy
from tracebridge.validation.scope import Scope
from tracebridge.validation.verdict import Tally, Verdict
from tracebridge.validation.windows import FEWEST, MARGIN_NS, read_window, windows

RECHECK_S: Final = 0.25
LEAST_PATIENCE_S: Final = 2.0
"""How long spans that do not show yet are waited for, at least, in seconds; else three times the sink's lag."""
_MOST_PLACED: Final = 100
"""Of how many findings it is looked up in which line of which file they were recorded."""

_NO_READER: Final = "it cannot be read back, so it cannot be validated; an OpenTelemetry sink needs `reader:`"
_UNREAD: Final = "its journal cannot be read"

Progress = Callable[[int, int], None]
"""Is told how many sessions of how many are done."""


Tell = Callable[[str, Comparison], None]
"""Is told the id of a session that was compared whole, and what it came to."""


class _Outcome(NamedTuple):
    """What became of one session."""

    session_id: str
    is_readable: bool = True
    """Whether the backend can be read."""
    comparison: Comparison | None = None
    """None if it could not be compared."""
    evidence: list[Compared] = []  # noqa: RUF012  # never changed
    """One for each of its journals."""


class _Sent(NamedTuple):
    """A span as it was sent under earlier rules."""

    span: Span
    is_cut: bool


def without_reader(sink: SinkSettings, scope: Scope) -> Verdict:
    """The verdict on a sink that cannot be read back, or whose plug-in cannot be used: nothing could be compared."""
    endpoint = "" if sink.defect else sink.endpoint
    tally = Tally(sink.name, endpoint, scope, Owing(sessions=(), drawn_from=0, sampled_out=0, known_clean=0))
    tally.could_not_compare(sink.defect or _NO_READER)
    return tally.verdict()


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
        self._capabilities = sink.capabilities
        if not self._capabilities.readable:
            raise ConfigurationError(f"sink {sink.name}: {_NO_READER}")
        self._sink = sink
        self._trace_dir = trace_dir
        self._rules = current_rules(sink)
        self._reader: Reader = sink.open_reader()
        try:
            self._state = State(layout.state_file(trace_dir))
        except BaseException:
            self._reader.close()
            raise
        self._resend = False
        self._deleted_ns: dict[str, int] = {}
        self._target = self._state.target(sink.name, sink.endpoint)
        self._state.folder(trace_dir)

    def close(self) -> None:
        """Release the reader and the state."""
        with closing(self._state):
            self._reader.close()

    def validate(
        self,
        scope: Scope = Scope(),  # noqa: B008
        progress: Progress | None = None,
        *,
        only: Container[str] | None = None,
        tell: Tell | None = None,
        resend: bool = False,
    ) -> Verdict:
        """Compare every owed session of a scope, and write down of each what came of it.

        A validation that is interrupted is taken up again with `since_last`.

        Args:
            scope: which sessions to compare.
            progress: is told how far it has come.
            only: the ids of the sessions of the scope to which it is confined.
            tell: is told what each session comes to, once that is written down.
            resend: whether what the backend has taken and does not hold is to be sent again by the next shipper.
        """
        self._resend = resend
        owed = owing(self._state, self._target, self._sink.policy, scope, self._rules)
        if only is not None:
            chosen = tuple(one for one in owed.sessions if one.session_id in only)
            owed = msgspec.structs.replace(owed, sessions=chosen)
        self._deleted_ns = deleted_ns(self._state.folders().values(), {one.session_id for one in owed.sessions})
        tally = Tally(self._sink.name, self._sink.endpoint, scope, owed)
        self._tell_what_is_gone(scope, owed.drawn_from + owed.sampled_out, tally)
        self._tell_what_is_apart(scope, tally)
        number = self._state.evidence.begin(self._target, scope.text)
        deadline = time.monotonic() + max(LEAST_PATIENCE_S, 3 * self._capabilities.visibility_lag_s)
        done, is_readable = 0, True
        for window in windows(owed.sessions):
            for outcome in self._window(window, deadline, tally, is_readable=is_readable):
                is_readable = outcome.is_readable
                self._state.evidence.add(self._target, number, outcome.evidence)
                done += 1
                if progress is not None:
                    progress(done, len(owed.sessions))
                if tell is not None and outcome.comparison is not None:
                    tell(outcome.session_id, outcome.comparison)
        verdict = tally.verdict()
        if is_readable:
            # one that could not ask the backend is no validation
            self._state.evidence.end(number, msgspec.json.encode(verdict.summary).decode())
        return verdict

    def _tell_what_is_gone(self, scope: Scope, known: int, tally: Tally) -> None:
        if scope.session_id is not None:
            if not known:
                tally.could_not_compare("no such session in the trace folder or in a backfilled one", scope.session_id)
            return
        folders = self._state.folders()
        own = self._state.folder(self._trace_dir)
        for number, folder in folders.items():
            if number != own and not folder.is_dir():
                tally.could_not_compare(
                    f"{folder}: this backfilled folder is gone, so nothing tells what was sent from it; bring it back, "
                    f"or give it up with `tracebridge forget --folder {shlex.quote(str(folder))}`"
                )

    def _tell_what_is_apart(self, scope: Scope, tally: Tally) -> None:
        for session_id, part in parts_apart_of(self._state, self._target, self._sink.policy):
            if scope.session_id in (None, session_id):
                tally.could_not_compare(f"{part.path}: {part.reason}", session_id)

    def _tell_what_is_unread(self, expected: Expected, session_id: str, tally: Tally) -> None:
        first = expected.first_unread
        if first is not None:
            more = f", and {expected.unread - 1:,} more such lines" if expected.unread > 1 else ""
            tally.could_not_compare(
                f"{first.file}, byte {first.offset}: {first.text}{more}; no backend has it: take it out",
                session_id,
            )

    def _window(
        self, window: Sequence[Owed], deadline: float, tally: Tally, *, is_readable: bool
    ) -> Iterator[_Outcome]:
        """Compare some sessions."""
        expected: dict[str, Expected] = {}
        for owed in window:
            try:
                found = self._expected(owed.journals)
            except OSError as error:
                tally.could_not_compare(f"{_UNREAD}: {error}", owed.session_id)
                found = None
            if found is None:
                yield _Outcome(owed.session_id, is_readable)
            else:
                expected[owed.session_id] = found
                self._tell_what_is_unread(found, owed.session_id, tally)
        clean = self._clean_at_once(expected) if is_readable else {}
        # while the reader still knows what it has read of them
        for session_id, comparison in clean.items():
            yield self._counted(session_id, expected.pop(session_id), comparison, tally)
        for session_id, session in expected.items():
            if not is_readable:
                tally.could_not_compare("not reached: the backend cannot be read", session_id)
                yield _Outcome(session_id, is_readable)
                continue
            try:
                outcome = self._one_by_one(session_id, session, deadline, tally)
            except IncompleteAnswerError as error:
                # the next session may be shown whole
                tally.could_not_compare(str(error), session_id)
                outcome = _Outcome(session_id)
            except BackendError as error:
                tally.could_not_compare(f"the backend cannot be read: {error}", session_id)
                is_readable = False
                outcome = _Outcome(session_id, is_readable)
            except OSError as error:
                # it was there before: what was sent under earlier rules is read once more
                tally.could_not_compare(f"{_UNREAD}: {error}", session_id)
                outcome = _Outcome(session_id)
            yield outcome

    def _expected(self, journals: Sequence[Journal]) -> Expected | None:
        """What the journals of a session say; None if they are gone, for the spool removes what every sink has.

        Raises:
            OSError: one cannot be read.
        """
        while journals:
            try:
                return expected_of(journals, self._sink.policy)
            except FileNotFoundError:
                there = [journal for journal in journals if journal.events.exists()]
                if len(there) == len(journals):
                    raise
                journals = there
        return None

    def _clean_at_once(self, expected: dict[str, Expected]) -> dict[str, Comparison]:
        """The sessions that are clean by what shows of the time they all lie in; nothing is said of the others."""
        closed = {
            session_id: session
            for session_id, session in expected.items()
            if session.is_closed and not self._was_cut(session)
        }
        if len(closed) < FEWEST:
            return {}
        try:
            found = read_window(self._reader, list(closed.values()))
        except BackendError:
            return {}  # the first session that is asked for tells
        by_session: dict[str, list[Span]] = defaultdict(list)
        foreign: dict[str, list[Span]] = defaultdict(list)
        for span in found or ():
            if span.fingerprint:
                by_session[span.session_id].append(span)
            else:
                foreign[span.trace_id].append(span)
        clean: dict[str, Comparison] = {}
        for session_id, session in closed.items() if found is not None else ():
            traces = {span.trace_id for span in session.spans}
            observed = by_session[session_id] + [span for trace_id in traces for span in foreign.get(trace_id, ())]
            try:
                comparison = self._comparison(session, observed, session_id)
            except OSError:
                continue  # it is told when it is asked for
            if not comparison.defects:
                clean[session_id] = comparison
        return clean

    def _one_by_one(self, session_id: str, expected: Expected, deadline: float, tally: Tally) -> _Outcome:
        """Compare one session by asking for it.

        Raises:
            BackendError: the backend cannot be read.
        """
        if not expected.is_closed:
            tally.could_not_compare("still open: its last run has not ended", session_id)
            return _Outcome(session_id)
        if not expected.spans and not self._was_cut(expected):
            # its writer died before the first event: there is nothing to compare, which is no comparison
            return _Outcome(session_id)
        comparison, is_pending = self._settled(expected, session_id, deadline)
        if is_pending:
            tally.could_not_compare("not delivered yet; run `tracebridge ship`", session_id)
            tally.pending(comparison)
            return _Outcome(session_id)
        if comparison.defects and expected.is_outdated:
            tally.could_not_compare("written to while it was compared; validate it again", session_id)
            return _Outcome(session_id)
        return self._counted(session_id, expected, comparison, tally)

    def _counted(self, session_id: str, expected: Expected, comparison: Comparison, tally: Tally) -> _Outcome:
        refused = self._refused(session_id) if comparison.defects else frozenset()
        if self._resend:
            tally.resent += self._sent_again(expected, comparison, refused)
        room = max(0, _MOST_PLACED - tally.examples)
        findings = [
            self._placed(finding, expected, refused) if place < room else finding
            for place, finding in enumerate(comparison.findings)
        ]
        comparison = msgspec.structs.replace(comparison, findings=tuple(findings))
        known = self._reader.server_computed if isinstance(self._reader, ComputingReader) else {}
        computed = [field for span in expected.spans for field in known.get(id_of(span), ())]
        tally.add(comparison, Counter(span.kind for span in expected.spans), expected.narrowed, computed)
        evidence = [
            Compared(
                folder=journal.number,
                session=journal.folder.name,
                # what is changed in it from then on was not compared
                compared_ns=expected.read_ns,
                size=end,
                rules=self._rules,
                spans=comparison.expected,
                # nor is what is in a line that nobody could read at the backend
                defects=len(comparison.defects) + expected.unread,
                earlier=comparison.earlier.rules,
                is_cut=comparison.earlier.is_cut,
                narrowed_by=expected.narrowed_by,
            )
            for journal, end in expected.ends.items()
        ]
        return _Outcome(session_id, True, comparison, evidence)

    def _refused(self, session_id: str) -> frozenset[SpanId]:
        """The spans of a session that are dead letters."""
        refs = (letter.ref for letter in self._state.dead.of(self._target))
        return frozenset((ref.trace_id, ref.span_id) for ref in refs if ref.session_id == session_id)

    def _sent_again(self, expected: Expected, comparison: Comparison, refused: frozenset[SpanId]) -> int:
        """Have what is missing sent again, but for dead letters, about which people decide; how many spans."""
        missing = {
            (finding.trace_id, finding.span_id) for finding in comparison.findings if finding.kind == "missing"
        } - refused
        self._state.dead.resend(self._target, [SpanRef.of(span) for span in expected.spans if id_of(span) in missing])
        return len(missing)

    def _placed(self, finding: Finding, expected: Expected, refused: frozenset[SpanId]) -> Finding:
        """The finding with where it was recorded, where it is looked at, and what can be done."""
        span_id = finding.trace_id, finding.span_id
        recorded = next((span for span in expected.spans if id_of(span) == span_id), None)
        return msgspec.structs.replace(
            finding,
            journal="" if recorded is None else expected.place(span_id, recorded),
            link=self._sink.trace_url(finding.trace_id),
            command=remedy(finding.kind, self._sink.name, finding.session_id, is_refused=span_id in refused),
        )

    def _settled(self, expected: Expected, session_id: str, deadline: float) -> tuple[Comparison, bool]:
        """Compare, again and again while something accepted does not show yet, up to the deadline.

        All sessions share the deadline: what was accepted before the first was compared has had its time by then.
        The flag says that something is missing that was not delivered.
        """
        while True:
            # asked before the backend is: what is delivered in between is not missing
            is_pending = self._is_pending(expected, session_id)
            comparison = self._comparison(expected, self._observed(session_id, expected), session_id)
            if not any(finding.kind == "missing" for finding in comparison.findings):
                return comparison, False
            if is_pending or time.monotonic() > deadline:
                return comparison, is_pending
            time.sleep(RECHECK_S)

    def _comparison(self, expected: Expected, observed: list[Span], session_id: str) -> Comparison:
        observed = self._recorded_in_what_is_there(expected, observed, session_id)
        wanted, earlier = self._under_the_rules_sent(expected, observed)
        losses = self._capabilities.losses
        comparison = without_moves(compare(wanted, observed, losses), wanted, observed, losses)
        comparison = without_copies(comparison, wanted)
        return msgspec.structs.replace(comparison, earlier=earlier)

    def _recorded_in_what_is_there(self, expected: Expected, observed: list[Span], session_id: str) -> list[Span]:
        """What is shown of a session, but for what was recorded in files that were deleted once it showed."""
        gone_ns = self._deleted_ns.get(session_id)
        if gone_ns is None:
            return observed
        recorded = {id_of(span) for span in expected.spans}
        return [span for span in observed if not span.fingerprint or id_of(span) in recorded or span.end_ns > gone_ns]

    def _observed(self, session_id: str, expected: Expected) -> list[Span]:
        """What the backend shows of a session, and, of what is missing there, what it shows elsewhere."""
        query = _query_of_all_times(session_id) if self._was_cut(expected) else _query(session_id, expected.spans)
        observed = list(self._reader.read(query))
        shown = {id_of(span) for span in observed}
        missing = {id_of(span) for span in expected.spans} - shown
        if missing:
            # a span that lost its session is not missing but different; and what a search did not find of the session
            # may be there, with more that nobody expects
            elsewhere = Query(trace_ids=tuple(sorted({trace_id for trace_id, _ in missing})))
            observed += [
                span
                for span in self._reader.read(elsewhere)
                if id_of(span) in missing or (span.session_id == session_id and id_of(span) not in shown)
            ]
        return observed

    def _under_the_rules_sent(self, expected: Expected, observed: list[Span]) -> tuple[list[Span], Earlier]:
        """The expected spans, each under the rules that the backend's copy says it was sent with."""
        shown = {id_of(span): span for span in observed if span.fingerprint}
        sent_with = {span_id: span.fingerprint for span_id, span in shown.items()}
        under: dict[SpanId, list[_Sent]] = defaultdict(list)
        for fingerprint in set(sent_with.values()) - {self._rules}:
            text = self._state.rules(fingerprint)
            if text is not None:
                rules = rules_from_text(text)
                earlier = expected_of(expected.sizes, rules.policy).spans
                for span in earlier:
                    if sent_with.get(id_of(span)) == fingerprint:
                        under[id_of(span)].append(self._as_sent(span, rules.mapping_version, shown[id_of(span)]))
        # what the policy does not keep was sent all the same if it was sent before the policy said so
        wanted = [
            span for span in expected.spans if id_of(span) in sent_with or policies.keeps_span(self._sink.policy, span)
        ]
        as_sent: list[Span] = []
        otherwise: dict[SpanId, _Sent] = {}
        for span in wanted:
            # a journal may hold copies of a span, which differ in their places
            copies = under[id_of(span)]
            sent = copies.pop(0) if copies else None
            as_sent.append(span if sent is None else sent.span)
            if sent is not None and sent.span != span:
                otherwise[id_of(span)] = sent
        return as_sent, Earlier(
            spans=len(otherwise),
            rules=tuple(sorted({sent_with[span_id] for span_id in otherwise})),
            is_cut=any(sent.is_cut for sent in otherwise.values()),
        )

    def _as_sent(self, span: Span, mapping_version: int, shown: Span) -> _Sent:
        as_sent = self._capabilities.as_sent
        if as_sent is None:
            return _Sent(span, is_cut=False)
        sent = as_sent(span, mapping_version, shown)
        return _Sent(sent, is_cut=sent != span)

    def _was_cut(self, expected: Expected) -> bool:
        """Whether a journal is shorter than what of it was read for delivery: nothing tells when the rest of it was."""
        cursors = (
            (self._state.cursor(self._target, journal.number, journal.folder.name), size)
            for journal, size in expected.sizes.items()
        )
        return any(cursor is not None and cursor.offset > size for cursor, size in cursors)

    def _is_pending(self, expected: Expected, session_id: str) -> bool:
        for journal, size in expected.sizes.items():
            cursor = self._state.cursor(self._target, journal.number, journal.folder.name)
            if cursor is None or cursor.offset < size or cursor.checkpoint.opened:
                return True
            if is_another(journal.events, cursor.head):
                return True
        return any(ref.session_id == session_id for batch in self._state.in_flight(self._target) for ref in batch.refs)


def _query_of_all_times(session_id: str) -> Query:
    return Query(session_id=session_id, start_ns=0)


def _query(session_id: str, spans: list[Span]) -> Query:
    """All of a session, in a window: what moved out of it is looked for by its trace."""
    if not spans:
        return Query(session_id=session_id)
    return Query(
        session_id=session_id,
        start_ns=max(0, min(span.start_ns for span in spans) - MARGIN_NS),
        end_ns=max(span.start_ns for span in spans) + MARGIN_NS,
    )
