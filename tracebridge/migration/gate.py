"""The gate: plans one step, says what stands in its way, and makes it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from tracebridge.config import Demands, Settings, SinkSettings
from tracebridge.delivery.lock import ShipperLock
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.migration.conditions import Condition, conditions_for
from tracebridge.migration.configuration_file import ConfigurationFile
from tracebridge.migration.facts import facts_for
from tracebridge.migration.history import (
    Entry,
    Record,
    entries,
    interrupted_return,
    is_of,
    last_to_undo,
    making,
    settle,
)
from tracebridge.migration.tiers import JOURNAL, MigrationError, Switch, Tier, after, tier_of
from tracebridge.migration.yaml_edit import Change, set_value, undo


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A step that could be made."""

    switch: Switch
    before: Tier
    after: Tier
    conditions: tuple[Condition, ...]
    """All that must hold; none where a sink is only switched on."""

    @property
    def blockers(self) -> tuple[Condition, ...]:
        """What stands in its way."""
        return tuple(condition for condition in self.conditions if not condition.holds)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """How strict the gate is asked to be."""

    demands: Demands = Demands()
    accepted: tuple[str, ...] = ()
    """Narrowings that are agreed to, by name."""
    successors: tuple[str, ...] = ()
    """The sinks that must hold everything; all that stay if none is named."""


def plan_of(settings: Settings, state: State, switch: Switch, asked: Asked) -> Plan:
    """What a step comes to, and what stands in its way.

    Raises:
        MigrationError: nothing would be left to hold what is recorded, or a sink was named that does not stay.
    """
    return Plan(
        switch=switch,
        before=tier_of(settings),
        after=tier_of(after(settings, switch)),
        conditions=() if switch.on else tuple(_conditions(settings, state, switch, asked)),
    )


def advance(
    settings: Settings,
    file: ConfigurationFile,
    state: State,
    plan: Plan,
    asked: Asked,
    override: str,
    *,
    dry_run: bool = False,
) -> None:
    """Make a step that was planned, and write it down; with `dry_run` only find out whether it could be made.

    Raises:
        MigrationError: something stands in its way and `override` gives no reason, or the file cannot be changed.
        EditError: the file cannot be changed without touching more.
    """
    if plan.blockers and not override:
        raise MigrationError(f"cannot {plan.switch}: {len(plan.blockers)} conditions do not hold")
    text, change = set_value(file.text, plan.switch.path, plan.switch.on)
    file.check(text, settings, plan.switch)
    if dry_run:
        return
    settle(state, file.path, file.text)
    record = Record(
        file=str(file.path.absolute()),
        switch=plan.switch,
        change=change,
        before=plan.before.name,
        after=plan.after.name,
        conditions=plan.conditions,
        demands=asked.demands,
        accepted=asked.accepted,
        override=override,
    )
    with making(state, "advance", record) as write_down:
        file.write(text, write_down)


class TakenBack(NamedTuple):
    """A step that was taken back."""

    step: Entry
    switch: Switch
    """What that changed."""
    was_before: bool
    """Whether an earlier rollback did it, whose process was killed while files came back: only they are left to do."""


def step_back(settings: Settings, file: ConfigurationFile, state: State, *, dry_run: bool = False) -> TakenBack:
    """Take the last step back, and nothing that was written into the file since.

    If the rollback before was killed while files came back, it is that one which goes on: no other step is taken back.

    Raises:
        MigrationError: there is none, it was made in another file, or the file cannot be changed.
        EditError: what the step has changed was changed again by somebody else.
    """
    settle(state, file.path, file.text)
    history = entries(state)
    interrupted = interrupted_return(history, file.path)
    if interrupted is not None:
        undone = next(entry for entry in history if entry.id == interrupted.record.undoes)
        return TakenBack(undone, interrupted.record.switch, was_before=True)
    last = last_to_undo(history)
    if last is None:
        raise MigrationError(f"{settings.trace_dir}: no step was made with `tracebridge migrate advance`")
    made_in = Path(last.record.file)
    if not is_of(last.record, file.path):
        raise MigrationError(f"the last step changed {made_in}: name that file with --config")
    switch = Switch(sink=last.record.switch.sink, on=not last.record.switch.on)
    done = last.record.change
    assert done is not None, "each advance changes the file"
    text = undo(file.text, done)
    file.check(text, settings, switch)
    if dry_run:
        return TakenBack(last, switch, was_before=False)
    is_back_to_files = switch == Switch(sink=JOURNAL, on=True)
    change = Change(path=switch.path, value=switch.on, old=done.new, new=done.old)
    record = Record(
        file=last.record.file,
        switch=switch,
        change=change,
        before=tier_of(settings).name,
        after=tier_of(after(settings, switch)).name,
        undoes=last.id,
        returning=is_back_to_files,
    )

    with making(state, "rollback", record) as write_down:

        def just_before() -> None:
            if is_back_to_files:
                # from now on nobody who runs already deletes any more
                layout.kept_marker(settings.trace_dir).touch()
            write_down()

        file.write(text, just_before)
    return TakenBack(last, switch, was_before=False)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """One at a time makes a step in a trace folder.

    Raises:
        MigrationError: another process does.
    """
    lock = ShipperLock(layout.locks_folder(settings.trace_dir) / "_migration.lock")
    if not lock.acquire():
        raise MigrationError(f"{settings.trace_dir}: process {lock.holder()} makes a step at this moment")
    try:
        yield
    finally:
        lock.release()


def _conditions(settings: Settings, state: State, switch: Switch, asked: Asked) -> Iterator[Condition]:
    stays = [sink for sink in after(settings, switch).sinks if sink.enabled]
    defective = [sink for sink in stays if sink.defect]
    for sink in defective:
        yield Condition(
            sink=sink.name, name="usable", holds=False, value=sink.defect, wanted="a plug-in that works", command=""
        )
    usable = [sink for sink in stays if not sink.defect]
    successors = _successors(settings, usable, asked.successors, is_last=not defective)
    state.folder(settings.trace_dir)
    for sink in usable:
        found = conditions_for(facts_for(settings, state, sink, switch), asked.demands, asked.accepted)
        # of a sink that is not to hold everything, what it still waits for counts
        wanted = None if sink in successors else {"pending", "dead", "paused"}
        yield from (one for one in found if wanted is None or one.name in wanted)


def _successors(
    settings: Settings, stays: list[SinkSettings], named: Collection[str], *, is_last: bool
) -> list[SinkSettings]:
    if not stays and is_last:
        raise MigrationError(f"{settings.source}: nothing else is switched on, so what is recorded would reach nobody")
    unknown = set(named) - {sink.name for sink in stays}
    if unknown:
        raise MigrationError(f"{settings.source}: {', '.join(sorted(unknown))} does not stay switched on")
    return [sink for sink in stays if not named or sink.name in named]
