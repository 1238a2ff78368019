"""`Evidence`: which sessions were compared with a backend, when and with what result, and what was decided on it."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from tracebridge.delivery.state_file import StateFile


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The latest comparison of one session with one backend."""

    folder: int
    """The number of the folder of sessions."""
    session: str
    """The name of the session's own folder."""
    compared_ns: int
    size: int
    """Bytes of the session's journal that were compared. What was written since was not."""
    rules: str
    """Names what was compared under: policy, mapping and project."""
    spans: int
    defects: int
    """Findings that speak against the backend, and whole lines of the journal that nobody could read; 0: clean."""
    earlier: tuple[str, ...] = ()
    """Fingerprints of earlier rules under which something of it was sent, otherwise than it would be now. What those
    left out is not at the backend."""
    is_cut: bool = False
    """Whether some of that was cut for a limit that the backend had then."""
    narrowed_by: tuple[str, ...] = ()
    """The settings of the sink's policy by which it lacks something that its journal holds."""

    @property
    def key(self) -> tuple[int, str]:
        """Names the journal, as `Journal.key` does."""
        return self.folder, self.session

    def is_current(self, size: int, written_ns: int, rules: str) -> bool:
        """Whether the session would be compared as it was.

        Its journal has this size now and was written to last at this time, and these are the rules. What is changed in
        its place, as by somebody who blacks out a name, does not change the size.
        """
        return self.size == size and written_ns <= self.compared_ns and self.rules == rules


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """One run of validation."""

    id: int
    began_ns: int
    ended_ns: int
    """0 if it never ended."""
    scope: str
    """What it was asked to compare, as JSON."""
    summary: str
    """What it came to, as JSON; empty if it never ended."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One decision on the way from backend to backend."""

    id: int
    at_ns: int
    who: str
    """The user of the operating system."""
    action: str
    record: str
    """What it was decided on and what it changed, as JSON."""


class Evidence:
    """What speaks for each backend, and what was decided. One thread at a time uses it."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def begin(self, target: int, scope: str) -> int:
        """A validation begins; returns its number."""
        row = self._file.db.execute(
            "INSERT INTO validation (target, began_ns, scope) VALUES (?, ?, ?)", (target, time.time_ns(), scope)
        )
        return int(row.lastrowid or 0)

    def add(self, target: int, validation: int, compared: Iterable[Compared]) -> None:
        """Sessions were compared by a validation; what was known of them before is replaced."""
        with self._file.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO compared (target, folder, session, validation, compared_ns, size, rules, spans,"
                " defects, earlier, is_cut, narrowed_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(target, session.folder, session.session, validation, session.compared_ns),
                        *(session.size, session.rules, session.spans, session.defects),
                        *(" ".join(session.earlier), session.is_cut, " ".join(session.narrowed_by)),
                    )
                    for session in compared
                ],
            )

    def end(self, validation: int, summary: str) -> None:
        """A validation has come to an end."""
        self._file.db.execute(
            "UPDATE validation SET ended_ns = ?, summary = ? WHERE id = ?", (time.time_ns(), summary, validation)
        )

    def validations(self, target: int) -> list[Validation]:
        """The validations of a target, newest first."""
        rows = self._file.db.execute(
            "SELECT id, began_ns, ended_ns, scope, summary FROM validation WHERE target = ? ORDER BY id DESC", (target,)
        )
        return [
            Validation(id=number, began_ns=began_ns, ended_ns=ended_ns, scope=scope, summary=summary)
            for number, began_ns, ended_ns, scope, summary in rows
        ]

    def compared(self, target: int, validation: int | None = None) -> list[Compared]:
        """The latest comparison of each session with a target, or only those that one validation made."""
        rows = self._file.db.execute(
            "SELECT folder, session, compared_ns, size, rules, spans, defects, earlier, is_cut, narrowed_by"
            " FROM compared WHERE target = ? AND (? IS NULL OR validation = ?) ORDER BY folder, session",
            (target, validation, validation),
        )
        return [
            Compared(
                folder=folder,
                session=session,
                compared_ns=compared_ns,
                size=size,
                rules=rules,
                spans=spans,
                defects=defects,
                earlier=tuple(earlier.split()),
                is_cut=bool(is_cut),
                narrowed_by=tuple(narrowed_by.split()),
            )
            for folder, session, compared_ns, size, rules, spans, defects, earlier, is_cut, narrowed_by in rows
        ]

    def decide(self, who: str, action: str, record: str) -> int:
        """Write down a decision, for ever; returns its number."""
        row = self._file.db.execute(
            "INSERT INTO step (at_ns, who, action, record) VALUES (?, ?, ?, ?)", (time.time_ns(), who, action, record)
        )
        return int(row.lastrowid or 0)

    def conclude(self, step: int, record: str) -> None:
        """Say of a decision what became of it: `record` takes the place of the one that it was written down with."""
        self._file.db.execute("UPDATE step SET record = ? WHERE id = ?", (record, step))

    def steps(self) -> list[Step]:
        """Every decision, oldest first."""
        rows = self._file.db.execute("SELECT id, at_ns, who, action, record FROM step ORDER BY id")
        return [
            Step(id=number, at_ns=at_ns, who=who, action=action, record=record)
            for number, at_ns, who, action, record in rows
        ]
