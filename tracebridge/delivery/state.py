"""`State`: what delivery must remember across restarts, in one SQLite file below the trace folder.

It follows what is open, what is in flight and which sessions are kept, never the number of events.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from tracebridge.delivery.connection import Connection
from tracebridge.errors import StateError
from tracebridge.session_stream import Cursor

SCHEMA_VERSION: Final = 1
BUSY_S: Final = 30.0
"""How long another connection's transaction is waited for, in seconds."""
_APPLICATION_ID: Final = 0x54424447  # "TBDG": marks the file as ours

_SCHEMA: Final = """
CREATE TABLE target (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    UNIQUE (sink, endpoint)
);
CREATE TABLE folder (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE cursor (
    target INTEGER NOT NULL REFERENCES target,
    folder INTEGER NOT NULL REFERENCES folder,
    session TEXT NOT NULL,
    position INTEGER NOT NULL,
    cursor BLOB NOT NULL,
    PRIMARY KEY (target, folder, session)
) WITHOUT ROWID;
CREATE TABLE in_flight (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL REFERENCES target,
    fate TEXT NOT NULL,
    written_ns INTEGER NOT NULL,
    spans INTEGER NOT NULL,
    events INTEGER NOT NULL,
    parts BLOB NOT NULL,
    refs BLOB NOT NULL
);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL REFERENCES target,
    died_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    part BLOB NOT NULL,
    ref BLOB NOT NULL
);
CREATE TABLE counter (
    target INTEGER NOT NULL REFERENCES target,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (target, name)
) WITHOUT ROWID;
CREATE TABLE condition (
    target INTEGER PRIMARY KEY REFERENCES target,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    since_ns INTEGER NOT NULL
);
CREATE TABLE problem (
    folder INTEGER NOT NULL REFERENCES folder,
    session TEXT NOT NULL,
    offset INTEGER NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (folder, session, offset)
) WITHOUT ROWID;
CREATE TABLE rules (fingerprint TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""

Fate = Literal["unknown", "unsent"]
"""Of a batch in flight. `unknown`: it may have been sent. `unsent`: the backend certainly does not hold it."""

Counter = Literal["confirmed_spans", "confirmed_events", "confirmed_requests", "possible_repeats"]


class SpanRef(msgspec.Struct, frozen=True, array_like=True):
    """Names a span that was sent: enough to look for it at the backend."""

    trace_id: str
    span_id: str
    session_id: str
    start_ns: int
    events: int
    """How many events the span was made of."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Encoded spans that go out as one request."""

    parts: tuple[bytes, ...]
    refs: tuple[SpanRef, ...]
    id: int = 0
    """0 until it is written down."""
    fate: Fate = "unknown"
    written_ns: int = 0


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """A session's cursor, moved on."""

    folder: int
    session_id: str
    cursor: Cursor


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A span that the backend will not take, and why."""

    sink: str
    reason: str
    died_ns: int
    ref: SpanRef


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is doing, as its shipper last wrote it down."""

    state: str
    detail: str
    since_ns: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What one target has been given so far."""

    sink: str
    endpoint: str
    sessions: int
    in_flight_spans: int
    dead_spans: int
    counters: dict[str, int]
    condition: Condition | None


class State:
    """One connection to the state. One thread at a time uses it; any number of threads and processes hold their own."""

    def __init__(self, path: Path, busy_s: float = BUSY_S) -> None:
        """Open the state, creating it if there is none.

        Other connections' transactions are waited for at most `busy_s`, each time.

        Raises:
            StateError: the file is newer than this tracebridge, not a tracebridge state, or damaged.
            ForkedError: this process was forked at a moment that keeps it from using the state.
        """
        self._path = path
        self._busy_s = busy_s
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Connection(path, busy_s)
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from error
        try:
            self._keep_a_write_ahead_log()
            self._prepare()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise _unusable(path, error) from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    # --- names ------------------------------------------------------------------------------------------------------

    def target(self, sink: str, endpoint: str) -> int:
        """The number of a sink's backend: a sink that is pointed elsewhere starts anew there."""
        self._db.execute("INSERT OR IGNORE INTO target (sink, endpoint) VALUES (?, ?)", (sink, endpoint))
        row = self._db.execute("SELECT id FROM target WHERE sink = ? AND endpoint = ?", (sink, endpoint)).fetchone()
        return int(row[0])

    def folder(self, path: Path) -> int:
        """The number of a folder of sessions; from now on shippers read it too."""
        name = str(path.resolve())
        self._db.execute("INSERT OR IGNORE INTO folder (path) VALUES (?)", (name,))
        return int(self._db.execute("SELECT id FROM folder WHERE path = ?", (name,)).fetchone()[0])

    def folders(self) -> dict[int, Path]:
        """Every folder that is read, by number."""
        return {int(number): Path(path) for number, path in self._db.execute("SELECT id, path FROM folder ORDER BY id")}

    def keep_rules(self, fingerprint: str, text: str) -> None:
        """Remember what a fingerprint stands for."""
        self._db.execute("INSERT OR IGNORE INTO rules VALUES (?, ?)", (fingerprint, text))

    def rules(self, fingerprint: str) -> str | None:
        """What a fingerprint stands for, or None if this state never sent anything with it."""
        row = self._db.execute("SELECT text FROM rules WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return None if row is None else str(row[0])

    # --- cursors ----------------------------------------------------------------------------------------------------

    def cursor(self, target: int, folder: int, session_id: str) -> Cursor | None:
        """How far a session was read for a target; None if it never was."""
        row = self._db.execute(
            "SELECT cursor FROM cursor WHERE target = ? AND folder = ? AND session = ?", (target, folder, session_id)
        ).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=Cursor)

    def positions(self, target: int, folder: int) -> dict[str, int]:
        """How many bytes of each session of a folder were read for a target."""
        rows = self._db.execute(
            "SELECT session, position FROM cursor WHERE target = ? AND folder = ?", (target, folder)
        )
        return dict(rows)

    def open_sessions(self, target: int, folder: int) -> list[str]:
        """The sessions of a folder in which something is open for a target."""
        rows = self._db.execute("SELECT session, cursor FROM cursor WHERE target = ? AND folder = ?", (target, folder))
        return [session for session, cursor in rows if msgspec.msgpack.decode(cursor, type=Cursor).checkpoint.opened]

    # --- batches ----------------------------------------------------------------------------------------------------

    def write_down(
        self,
        target: int,
        batches: Iterable[Batch],
        advances: Iterable[Advance],
        problems: Iterable[tuple[int, str, int, str]],
    ) -> list[Batch]:
        """In one step: the batches are in flight, their events are read. Returns the batches with their numbers."""
        with self._transaction():
            for advance in advances:
                self._db.execute(
                    "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?, ?)",
                    (
                        target,
                        advance.folder,
                        advance.session_id,
                        advance.cursor.offset,
                        msgspec.msgpack.encode(advance.cursor),
                    ),
                )
            self._db.executemany("INSERT OR IGNORE INTO problem VALUES (?, ?, ?, ?)", problems)
            return [self._insert(target, batch) for batch in batches]

    def in_flight(self, target: int) -> Iterator[Batch]:
        """The batches of a target whose fate is not settled, oldest first."""
        numbers = self._db.execute("SELECT id FROM in_flight WHERE target = ? ORDER BY id", (target,)).fetchall()
        for (number,) in numbers:
            row = self._db.execute(
                "SELECT fate, written_ns, parts, refs FROM in_flight WHERE id = ?", (number,)
            ).fetchone()
            if row is not None:
                yield Batch(
                    id=number,
                    fate=row[0],
                    written_ns=row[1],
                    parts=msgspec.msgpack.decode(row[2], type=tuple[bytes, ...]),
                    refs=msgspec.msgpack.decode(row[3], type=tuple[SpanRef, ...]),
                )

    def set_fate(self, batch: Batch, fate: Fate) -> None:
        """Write down that a batch was, or is about to be, sent, or that it certainly did not arrive."""
        self._db.execute("UPDATE in_flight SET fate = ? WHERE id = ?", (fate, batch.id))

    def confirm(self, target: int, batch: Batch) -> None:
        """The backend has taken the batch."""
        with self._transaction():
            self._db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))
            self._count_confirmed(target, batch.refs)

    def replace(self, target: int, batch: Batch, successors: Iterable[Batch]) -> list[Batch]:
        """In one step: the batch is given up for smaller ones. What they leave out is confirmed."""
        with self._transaction():
            self._db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))
            inserted = [self._insert(target, successor) for successor in successors]
            left = {ref for successor in inserted for ref in successor.refs}
            self._count_confirmed(target, [ref for ref in batch.refs if ref not in left])
            return inserted

    def bury(self, target: int, batch: Batch, reason: str) -> None:
        """The backend will never take the batch: its spans go to the dead letters, with the reason."""
        died_ns = time.time_ns()
        with self._transaction():
            self._db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))
            self._db.executemany(
                "INSERT INTO dead (target, died_ns, reason, part, ref) VALUES (?, ?, ?, ?, ?)",
                [
                    (target, died_ns, reason, part, msgspec.msgpack.encode(ref))
                    for part, ref in zip(batch.parts, batch.refs, strict=True)
                ],
            )

    def count(self, target: int, name: Counter, by: int) -> None:
        """Add to one of a target's counters."""
        with self._transaction():
            self._count(target, name, by)

    # --- what people and other parts ask ----------------------------------------------------------------------------

    def set_condition(self, target: int, state: str, detail: str) -> None:
        """Write down how a sink is doing."""
        self._db.execute(
            "INSERT OR REPLACE INTO condition VALUES (?, ?, ?, ?)", (target, state, detail, time.time_ns())
        )

    def in_flight_events(self, target: int) -> int:
        """How many events stand behind the spans of a target that are in flight."""
        return self._number("SELECT coalesce(sum(events), 0) FROM in_flight WHERE target = ?", target)

    def account(self, target: int) -> Account:
        """What a target has been given so far."""
        sink, endpoint = self._db.execute("SELECT sink, endpoint FROM target WHERE id = ?", (target,)).fetchone()
        condition = self._db.execute(
            "SELECT state, detail, since_ns FROM condition WHERE target = ?", (target,)
        ).fetchone()
        return Account(
            sink=sink,
            endpoint=endpoint,
            sessions=self._number("SELECT count(*) FROM cursor WHERE target = ?", target),
            in_flight_spans=self._number("SELECT coalesce(sum(spans), 0) FROM in_flight WHERE target = ?", target),
            dead_spans=self._number("SELECT count(*) FROM dead WHERE target = ?", target),
            counters=dict(self._db.execute("SELECT name, value FROM counter WHERE target = ?", (target,))),
            condition=None
            if condition is None
            else Condition(state=condition[0], detail=condition[1], since_ns=condition[2]),
        )

    def dead_letters(self, target: int) -> list[DeadLetter]:
        """The spans that a target's backend will not take, oldest first."""
        rows = self._db.execute(
            "SELECT sink, reason, died_ns, ref FROM dead JOIN target ON target.id = dead.target"
            " WHERE dead.target = ? ORDER BY dead.id",
            (target,),
        )
        return [
            DeadLetter(sink=sink, reason=reason, died_ns=died_ns, ref=msgspec.msgpack.decode(ref, type=SpanRef))
            for sink, reason, died_ns, ref in rows
        ]

    def problems(self) -> list[tuple[Path, str, int, str]]:
        """Broken journal lines: folder, session id, byte offset, what is wrong."""
        rows = self._db.execute(
            "SELECT path, session, offset, problem FROM problem JOIN folder ON folder.id = problem.folder"
            " ORDER BY path, session, offset"
        )
        return [(Path(path), session, offset, problem) for path, session, offset, problem in rows]

    # --- the file itself --------------------------------------------------------------------------------------------

    def _keep_a_write_ahead_log(self) -> None:
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # when several open a new file at once, SQLite does not wait here, whatever its time-out
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _prepare(self) -> None:
        with self._transaction():
            application, version = self._pragma("application_id"), self._pragma("user_version")
            if application == 0 and version == 0 and not self._number("SELECT count(*) FROM sqlite_master"):
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif application != _APPLICATION_ID:
                raise StateError(f"{self._path}: this SQLite file is not a tracebridge state. Move it away.")
            elif version > SCHEMA_VERSION:
                raise StateError(
                    f"{self._path}: written by a newer tracebridge (schema {version}, this one knows "
                    f"{SCHEMA_VERSION}). Use that version, or move the file away to start with a new state."
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db.unforked():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _insert(self, target: int, batch: Batch) -> Batch:
        written_ns = time.time_ns()
        row = self._db.execute(
            "INSERT INTO in_flight (target, fate, written_ns, spans, events, parts, refs) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                target,
                batch.fate,
                written_ns,
                len(batch.parts),
                sum(ref.events for ref in batch.refs),
                msgspec.msgpack.encode(batch.parts),
                msgspec.msgpack.encode(batch.refs),
            ),
        )
        return msgspec.structs.replace(batch, id=int(row.lastrowid or 0), written_ns=written_ns)

    def _count(self, target: int, name: Counter, by: int) -> None:
        self._db.execute(
            "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT (target, name) DO UPDATE SET value = value + ?",
            (target, name, by, by),
        )

    def _count_confirmed(self, target: int, refs: Collection[SpanRef]) -> None:
        if refs:
            self._count(target, "confirmed_spans", len(refs))
            self._count(target, "confirmed_events", sum(ref.events for ref in refs))
            self._count(target, "confirmed_requests", 1)

    def _number(self, query: str, *values: int) -> int:
        return int(self._db.execute(query, values).fetchone()[0])

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])


def _unusable(path: Path, error: sqlite3.DatabaseError) -> StateError:
    return StateError(
        f"{path}: the delivery state cannot be used ({error}). Move the file away to start with a new one; "
        "the journal is not affected."
    )
