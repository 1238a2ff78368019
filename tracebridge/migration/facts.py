"""Collects what the gate decides on, from the state, the journals and the evidence."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.accounting import account_for
from tracebridge.delivery.choice import first_ns_of
from tracebridge.delivery.evidence import Compared, Validation
from tracebridge.delivery.portion import Journal, Portion, Standing, recorded
from tracebridge.delivery.rules import current_rules, rules_from_text
from tracebridge.delivery.state import State
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.migration.conditions import AHEAD_S, Facts
from tracebridge.migration.tiers import JOURNAL, Switch
from tracebridge.policy import Policy
from tracebridge.validation.continuous import least_rest_s
from tracebridge.validation.owed import parts_apart_of
from tracebridge.validation.scope import Scope

_DELIVERED_WITHIN_S: Final = 60.0
"""How long something recorded may be on its way, in seconds: the gate opens with nothing older that waits."""


class _Kept(msgspec.Struct, frozen=True):
    """One session's journal that a sink's sampling keeps, as it is now."""

    journal: Journal
    is_left_behind: bool
    size: int
    written_ns: int


_FROM_BEST_TO_WORST: Final = ("clean", "young", "ahead", "other_rules", "outdated", "uncompared", "defective")
"""What may be known of a session; of one in several journals, the worst of them."""


class _Session(NamedTuple):
    """What is known of a session by some of its journals."""

    verdict: str
    began_ns: int

    def with_journal(self, verdict: str, began_ns: int) -> _Session:
        """The same by one journal more."""
        worse = max(self.verdict, verdict, key=_FROM_BEST_TO_WORST.index)
        return _Session(worse, min(self.began_ns, began_ns))


def facts_for(settings: Settings, state: State, sink: SinkSettings, switch: Switch) -> Facts:
    """What is known of a sink that stays when `switch` is made."""
    now_ns = time.time_ns()
    is_readable = sink.capabilities.readable
    target = state.target(sink.name, sink.endpoint)
    account = state.account(target)
    replaced = None if switch.sink == JOURNAL else settings.sink(switch.sink)
    is_paused = account.condition is not None and account.condition.state == "paused"
    known = Facts(
        sink=sink.name,
        now_ns=now_ns,
        is_readable=is_readable,
        policy=sink.policy,
        replaced=settings.capture if replaced is None else replaced.policy,
        cuts=tuple(sorted(cuts_of(sink) - cuts_of(replaced))),
        oldest_ns=account_for(state, target, sink.policy).oldest_ns,
        dead=account.dead_spans,
        gone=tuple(str(folder) for folder in state.folders().values() if not folder.is_dir()),
        apart=tuple(part.path for _, part in parts_apart_of(state, target, sink.policy)),
        paused=account.condition.detail or "no reason is known" if account.condition and is_paused else "",
    )
    newest = newest_of_everything(state.evidence.validations(target))
    if not is_readable:
        return known
    # what a validation finds under way, because it was just written, is left to the next one
    since_ns = newest.began_ns - int((_DELIVERED_WITHIN_S + least_rest_s(sink)) * 1e9) if newest else now_ns
    counted = _compared(known, state, target, current_rules(sink), since_ns)
    return msgspec.structs.replace(
        counted,
        validated_ns=newest.ended_ns if newest else 0,
        # another sink has been sent no more than its own policy keeps, with which this one's is compared
        narrowed_by=counted.narrowed_by if switch.sink == JOURNAL else (),
    )


def newest_of_everything(validations: list[Validation]) -> Validation | None:
    """The newest of some validations that ended, was not asked for a part only, and has compared something.

    One that found nothing new has not asked the backend, which may have lost since what it held then.
    """
    return next(
        (one for one in validations if one.ended_ns and _is_of_everything(one.scope) and _has_compared(one.summary)),
        None,
    )


def _is_of_everything(scope: str) -> bool:
    try:
        asked = msgspec.json.decode(scope, type=Scope)
    except msgspec.DecodeError:
        return False
    # what was compared clean before need not be compared again
    return msgspec.structs.replace(asked, since_last=False) == Scope()


class _Summary(msgspec.Struct):
    sessions: int = 0


def _has_compared(summary: str) -> bool:
    try:
        return msgspec.json.decode(summary, type=_Summary).sessions > 0
    except msgspec.DecodeError:
        return False


def _compared(known: Facts, state: State, target: int, rules: str, young_since_ns: int) -> Facts:
    compared = {one.key: one for one in state.evidence.compared(target)}
    due_ns = {
        (folder, name): deadline_ns + INCOMPLETE_GRACE_NS
        for folder in state.folders()
        for name, deadline_ns in state.deadlines(target, folder).items()
    }
    sessions: dict[str, _Session] = {}
    left_behind: set[str] = set()
    earlier: set[str] = set()
    narrowed_by: set[str] = set()
    is_cut_earlier = False
    for kept in _kept(state, target, known.policy):
        session_id = kept.journal.session_id
        if kept.is_left_behind:
            left_behind.add(session_id)
            continue
        began_ns, is_legible = _began_ns(kept)
        if began_ns is None:
            continue  # it holds no whole event, so there is nothing to compare
        found = compared.get(kept.journal.key)
        # what is dated later than now was not written just now
        is_ahead = kept.written_ns > known.now_ns + int(AHEAD_S * 1e9)
        verdict = _verdict(kept, found, rules)
        if is_ahead and verdict == "outdated":
            verdict = "ahead"
        if found is not None and verdict == "clean":
            earlier.update(found.earlier)
            narrowed_by.update(found.narrowed_by)
            is_cut_earlier = is_cut_earlier or found.is_cut
        # what is overdue is not open any more: nobody has sent its end
        written_ns = 0 if is_ahead else kept.written_ns
        is_young = max(written_ns, due_ns.get(kept.journal.key, 0)) >= young_since_ns
        # and what cannot be read is compared by no validation to come
        if is_young and is_legible and verdict not in ("clean", "defective"):
            verdict = "young"
        # an old folder may hold its past, and the trace folder the rest
        sessions[session_id] = sessions.get(session_id, _Session("clean", began_ns)).with_journal(verdict, began_ns)
    counts = Counter(session.verdict for session in sessions.values())
    begins = [session.began_ns for session in sessions.values() if session.verdict == "clean"]
    return msgspec.structs.replace(
        known,
        **{verdict: counts[verdict] for verdict in _FROM_BEST_TO_WORST},
        owed=len(sessions) - counts["young"],
        left_behind=len(left_behind),
        first_ns=min(begins, default=0),
        last_ns=max(begins, default=0),
        earlier=tuple(rules_from_text(text).policy for name in sorted(earlier) if (text := state.rules(name))),
        narrowed_by=tuple(sorted(narrowed_by)),
        is_cut_earlier=is_cut_earlier,
    )


def _began_ns(kept: _Kept) -> tuple[int | None, bool]:
    """When a journal began, None if it holds no whole event, and whether it can be read; if not, some time after."""
    try:
        return first_ns_of(kept.journal.events), True
    except FileNotFoundError:
        return None, True  # it was removed, because every sink has it
    except OSError:
        return kept.written_ns, False


def _verdict(kept: _Kept, found: Compared | None, rules: str) -> str:
    if found is None:
        return "uncompared"
    if found.rules != rules:
        return "other_rules"
    if found.defects:
        return "defective"
    return "clean" if found.is_current(kept.size, kept.written_ns, rules) else "outdated"


def _kept(state: State, target: int, policy: Policy) -> Iterator[_Kept]:
    """The journals that the sink's sampling keeps, those that were left behind included."""
    portion = Portion.of(state, target, policy)
    for journal in recorded(state):
        standing = portion.standing(journal)
        if not standing.is_in:
            continue
        try:
            status = journal.events.stat()
        except FileNotFoundError:
            continue  # it was removed, because every sink has it
        if status.st_size:
            yield _Kept(journal, standing is Standing.LEFT_BEHIND, status.st_size, status.st_mtime_ns)


def cuts_of(sink: SinkSettings | None) -> set[str]:
    """The names of the declared losses by which a sink cuts content; the journal and a defective sink name none."""
    if sink is None or sink.sink_type is None:
        return set()
    return {loss.name for loss in sink.capabilities.losses if loss.cuts_content}
