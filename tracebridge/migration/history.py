"""The history: every step that was made, when, by whom, on which evidence, and what it changed."""

from __future__ import annotations

import getpass
import os
from typing import Literal

import msgspec

from tracebridge.config import Demands
from tracebridge.delivery.evidence import Step
from tracebridge.delivery.state import State
from tracebridge.migration.conditions import Condition
from tracebridge.migration.tiers import Switch
from tracebridge.migration.yaml_edit import Change

Action = Literal["advance", "rollback", "ramp"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a step was decided on, and what it changed."""

    file: str
    """The configuration file."""
    switch: Switch
    change: Change | None = None
    """None where the file stayed as it was."""
    before: str
    """The tier before the step."""
    after: str
    conditions: tuple[Condition, ...] = ()
    """How everything was that had to hold."""
    demands: Demands = Demands()
    accepted: tuple[str, ...] = ()
    override: str = ""
    """Why it was made though not all of that held."""
    backfill: bool = False
    """Of a share that was changed: whether the past was asked for."""
    undoes: int = 0
    """The number of the step that is taken back; 0 in one that takes none back."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A step as the history tells it."""

    id: int
    at_ns: int
    who: str
    action: str
    record: Record


def write_down(state: State, action: Action, record: Record) -> None:
    """Keep a step for ever."""
    state.evidence.decide(operator(), action, msgspec.json.encode(record).decode())


def entries(state: State) -> list[Entry]:
    """Every step, oldest first."""
    return [_entry(step) for step in state.evidence.steps()]


def last_to_undo(history: list[Entry]) -> Entry | None:
    """The newest advance that was not taken back."""
    undone = {entry.record.undoes for entry in history}
    return next((entry for entry in reversed(history) if entry.action == "advance" and entry.id not in undone), None)


def operator() -> str:
    """The user of the operating system who does this; by number if it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _entry(step: Step) -> Entry:
    record = msgspec.json.decode(step.record, type=Record)
    return Entry(id=step.id, at_ns=step.at_ns, who=step.who, action=step.action, record=record)
