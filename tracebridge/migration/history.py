"""The history: every step that was made, when, by whom, on which evidence, and what it changed."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from tracebridge import jsonvalue
from tracebridge.config import Demands
from tracebridge.delivery.evidence import Step
from tracebridge.delivery.state import State
from tracebridge.migration.conditions import Condition
from tracebridge.migration.tiers import Switch
from tracebridge.migration.yaml_edit import Change, holds

Action = Literal["advance", "rollback", "ramp"]
Outcome = Literal["made", "intended", "not made"]
"""What became of a step. `intended`: its process ended before it could say so; the next step finds out."""


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
    outcome: Outcome = "made"
    returning: bool = False
    """Of a rollback: files that the spool has deleted come back. It stays so if the process is killed meanwhile."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A step as the history tells it."""

    id: int
    at_ns: int
    who: str
    action: str
    record: Record


@contextmanager
def making(state: State, action: Action, record: Record) -> Iterator[Callable[[], None]]:
    """Make a step; what is given writes it down, just before it is made.

    It is written down as intended, so that a process that is killed leaves neither a step that nobody knows of, nor
    one that is told and was not made. It is made once the block has ended, and not if that fails.
    """
    number = 0

    def write_down() -> None:
        nonlocal number
        number = state.evidence.decide(operator(), action, _text(record, "intended"))

    try:
        yield write_down
    except Exception:
        if number:
            state.evidence.conclude(number, _text(record, "not made"))
        raise
    state.evidence.conclude(number, _text(record, "made"))


def is_of(record: Record, file: Path) -> bool:
    """Whether it is this configuration file that a step changes."""
    own = Path(record.file)
    return own.exists() and file.samefile(own)


def settle(state: State, file: Path, text: str) -> None:
    """Find out by a configuration file what became of the newest step that was to change it, if that was interrupted.

    Steps in other files, of whoever shares the trace folder, may have been made since.

    Raises:
        EditError: the text is not valid YAML.
    """
    changing = (entry for entry in reversed(entries(state)) if entry.record.change is not None)
    last = next((entry for entry in changing if is_of(entry.record, file)), None)
    if last is None or last.record.outcome != "intended":
        return
    assert last.record.change is not None, "only such steps were looked at"
    is_made = holds(text, last.record.change)
    state.evidence.conclude(last.id, _text(last.record, "made" if is_made else "not made"))


def entries(state: State) -> list[Entry]:
    """Every step, oldest first."""
    return [_entry(step) for step in state.evidence.steps()]


def last_to_undo(history: list[Entry]) -> Entry | None:
    """The newest advance that was not taken back."""
    made = [entry for entry in history if entry.record.outcome == "made"]
    undone = {entry.record.undoes for entry in made}
    return next((entry for entry in reversed(made) if entry.action == "advance" and entry.id not in undone), None)


def interrupted_return(history: list[Entry], file: Path) -> Entry | None:
    """The newest step in this configuration file, if it is a rollback that was killed while files came back.

    A share that was changed since, and a step that was not made, change nothing of that.
    """
    made = (entry for entry in reversed(history) if entry.record.outcome == "made" and entry.action != "ramp")
    last = next((entry for entry in made if is_of(entry.record, file)), None)
    return last if last is not None and last.record.returning else None


@contextmanager
def returning(state: State) -> Iterator[None]:
    """Inside, files come back, for whatever rollback. It is over once somebody can be told what came of it."""
    try:
        yield
    except Exception:
        _end_returns(state)
        raise
    _end_returns(state)


def operator() -> str:
    """The user of the operating system who does this; by number if it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _end_returns(state: State) -> None:
    for entry in entries(state):
        if entry.record.returning:
            record = msgspec.structs.replace(entry.record, returning=False)
            state.evidence.conclude(entry.id, _text(record, record.outcome))


def _text(record: Record, outcome: Outcome) -> str:
    return jsonvalue.encode(msgspec.structs.replace(record, outcome=outcome)).decode()


def _entry(step: Step) -> Entry:
    record = msgspec.json.decode(step.record, type=Record)
    return Entry(id=step.id, at_ns=step.at_ns, who=step.who, action=step.action, record=record)
