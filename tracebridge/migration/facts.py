"""Collects what the gate decides on, from the state, the journals and the evidence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.accounting import account_for
from tracebridge.delivery.choice import Choice, began_ns_of
from tracebridge.delivery.evidence import Compared, Validation
from tracebridge.delivery.rules import current_rules
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.migration.conditions import Facts
from tracebridge.migration.tiers import JOURNAL, Switch
from tracebridge.policy import Policy, keeps_session
from tracebridge.validation.continuous import least_rest_s
from tracebridge.validation.scope import Scope

_DELIVERED_WITHIN_S: Final = 60.0
"""How long something recorded may be on its way, in seconds: the gate opens with nothing older that waits."""


class _Journal(msgspec.Struct, frozen=True):
    """One session's journal that a sink is owed."""

    folder: int
    path: Path
    size: int
    written_ns: int

    @property
    def key(self) -> tuple[int, str]:
        return self.folder, self.path.parent.name


def facts_for(settings: Settings, state: State, sink: SinkSettings, switch: Switch) -> Facts:
    """What is known of a sink that stays when `switch` is made."""
    now_ns = time.time_ns()
    is_readable = sink.capabilities.readable
    target = state.target(sink.name, sink.endpoint)
    account = state.account(target)
    is_paused = account.condition is not None and account.condition.state == "paused"
    known = Facts(
        sink=sink.name,
        now_ns=now_ns,
        is_readable=is_readable,
        policy=sink.policy,
        replaced=_replaced(settings, switch),
        oldest_ns=account_for(state, target, sink.policy).oldest_ns,
        dead=account.dead_spans,
        gone=tuple(str(folder) for folder in state.folders().values() if not folder.is_dir()),
        paused=account.condition.detail or "no reason is known" if account.condition and is_paused else "",
    )
    newest = newest_of_everything(state.evidence.validations(target))
    if not is_readable:
        return known
    # what a validation finds under way, because it was just written, is left to the next one
    since_ns = newest.began_ns - int((_DELIVERED_WITHIN_S + least_rest_s(sink)) * 1e9) if newest else now_ns
    counted = _compared(known, state, target, current_rules(sink), since_ns)
    return msgspec.structs.replace(counted, validated_ns=newest.ended_ns if newest else 0)


def newest_of_everything(validations: list[Validation]) -> Validation | None:
    """The newest of some validations that ended and was not asked for a part only."""
    return next((one for one in validations if one.ended_ns and _is_of_everything(one.scope)), None)


def _is_of_everything(scope: str) -> bool:
    try:
        asked = msgspec.json.decode(scope, type=Scope)
    except msgspec.DecodeError:
        return False
    # what was compared clean before need not be compared again
    return msgspec.structs.replace(asked, since_last=False) == Scope()


def _compared(known: Facts, state: State, target: int, rules: str, young_since_ns: int) -> Facts:
    compared = {(one.folder, one.session): one for one in state.evidence.compared(target)}
    opened = {(folder, name) for folder in state.folders() for name in state.deadlines(target, folder)}
    counts = dict.fromkeys(
        ("owed", "clean", "defective", "outdated", "other_rules", "uncompared", "young", "left_behind"), 0
    )
    begins: list[int] = []
    ramp = state.ramp(target)
    for journal in _kept(state, known.policy):
        if not ramp.takes(layout.session_id_of(journal.path.parent), journal.path):
            counts["left_behind"] += 1
            continue
        found = compared.get(journal.key)
        began_ns = began_ns_of(journal.path)
        if began_ns is None:
            continue  # it holds no whole event, so there is nothing to compare
        verdict = _verdict(journal, found, rules)
        is_young = journal.written_ns >= young_since_ns
        if verdict not in ("clean", "defective") and (is_young or journal.key in opened):
            counts["young"] += 1
            continue
        counts["owed"] += 1
        counts[verdict] += 1
        if verdict == "clean":
            begins.append(began_ns)
    return msgspec.structs.replace(
        known,
        **counts,
        first_ns=min(begins, default=0),
        last_ns=max(begins, default=0),
    )


def _verdict(journal: _Journal, found: Compared | None, rules: str) -> str:
    if found is None:
        return "uncompared"
    if found.rules != rules:
        return "other_rules"
    if found.defects:
        return "defective"
    return "clean" if found.size == journal.size else "outdated"


def _kept(state: State, policy: Policy) -> Iterator[_Journal]:
    """The journals that a policy's sampling keeps."""
    choice = Choice(state.choices())
    for number, path in state.folders().items():
        for folder in layout.session_folders(path):
            events = layout.events_file(folder)
            if not keeps_session(policy, layout.session_id_of(folder)) or not choice.takes(number, events):
                continue
            try:
                status = events.stat()
            except FileNotFoundError:
                continue  # it was removed, because every sink has it
            if status.st_size:
                yield _Journal(number, events, status.st_size, status.st_mtime_ns)


def _replaced(settings: Settings, switch: Switch) -> Policy:
    """What that keeps which is switched off."""
    sink = None if switch.sink == JOURNAL else settings.sink(switch.sink)
    return settings.capture if sink is None else sink.policy
