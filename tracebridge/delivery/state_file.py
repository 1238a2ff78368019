"""`StateFile`: the SQLite file behind the state: its schema, its upgrades, and one connection to it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tracebridge.delivery.connection import Connection
from tracebridge.errors import DamagedStateError, PassingStateError, StateError

SCHEMA_VERSION: Final = 5
_PAGE_BYTES: Final = 16_384
"""A batch in flight is a megabyte, and each page of it is written, checked and freed on its own."""
BUSY_S: Final = 30.0
"""How long another connection's transaction is waited for, in seconds."""
_APPLICATION_ID: Final = 0x54424447  # "TBDG": marks the file as ours
_DAMAGE: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))

_SCHEMA: Final = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE target (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    since_ns INTEGER NOT NULL DEFAULT 0,
    off_since_ns INTEGER NOT NULL DEFAULT 0,
    witnesses BLOB NOT NULL DEFAULT x'90',
    UNIQUE (sink, endpoint)
);
CREATE TABLE folder (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, since_ns INTEGER NOT NULL DEFAULT 0);
CREATE TABLE cursor (
    target INTEGER NOT NULL REFERENCES target,
    folder INTEGER NOT NULL REFERENCES folder,
    session TEXT NOT NULL,
    position INTEGER NOT NULL,
    cursor BLOB NOT NULL,
    deadline_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (target, folder, session)
) WITHOUT ROWID;
CREATE TABLE in_flight (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL REFERENCES target,
    fate TEXT NOT NULL,
    written_ns INTEGER NOT NULL,
    spans INTEGER NOT NULL,
    events INTEGER NOT NULL,
    sent_ns INTEGER NOT NULL DEFAULT 0,
    suspicion BLOB NOT NULL DEFAULT x''
);
CREATE TABLE content (batch INTEGER PRIMARY KEY REFERENCES in_flight, parts BLOB NOT NULL, refs BLOB NOT NULL);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL REFERENCES target,
    died_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    part BLOB NOT NULL,
    ref BLOB NOT NULL,
    is_retried INTEGER NOT NULL DEFAULT 0
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
    since_ns INTEGER NOT NULL,
    until_ns INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE problem (
    folder INTEGER NOT NULL REFERENCES folder,
    session TEXT NOT NULL,
    offset INTEGER NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (folder, session, offset)
) WITHOUT ROWID;
CREATE INDEX retried ON dead (target) WHERE is_retried;
CREATE TABLE rules (fingerprint TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE validation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target INTEGER NOT NULL REFERENCES target,
    began_ns INTEGER NOT NULL,
    ended_ns INTEGER NOT NULL DEFAULT 0,
    scope TEXT NOT NULL,
    summary TEXT NOT NULL DEFAULT ''
);
CREATE TABLE compared (
    target INTEGER NOT NULL REFERENCES target,
    folder INTEGER NOT NULL REFERENCES folder,
    session TEXT NOT NULL,
    validation INTEGER NOT NULL REFERENCES validation,
    compared_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    rules TEXT NOT NULL,
    spans INTEGER NOT NULL,
    defects INTEGER NOT NULL,
    earlier TEXT NOT NULL DEFAULT '',
    is_cut INTEGER NOT NULL DEFAULT 0,
    narrowed_by TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (target, folder, session)
) WITHOUT ROWID;
CREATE TABLE step (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ns INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    record TEXT NOT NULL
);
"""

_UPGRADES: Final = {
    # what a state of schema 1 does not know it must have delivered itself: `since_ns` 0 says that nothing is older.
    # A cursor's deadline of 0 lets the next shipper look at the session, and find the right one
    1: """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    ALTER TABLE target ADD COLUMN since_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE target ADD COLUMN off_since_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE target ADD COLUMN witnesses BLOB NOT NULL DEFAULT x'90';
    ALTER TABLE folder ADD COLUMN since_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE cursor ADD COLUMN deadline_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE in_flight ADD COLUMN sent_ns INTEGER NOT NULL DEFAULT 0;
    UPDATE in_flight SET sent_ns = written_ns;
    """,
    2: """
    ALTER TABLE in_flight ADD COLUMN suspicion BLOB NOT NULL DEFAULT x'';
    ALTER TABLE dead ADD COLUMN is_retried INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE condition ADD COLUMN until_ns INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX retried ON dead (target) WHERE is_retried;
    """,
    3: """
    CREATE TABLE content (batch INTEGER PRIMARY KEY REFERENCES in_flight, parts BLOB NOT NULL, refs BLOB NOT NULL);
    INSERT INTO content SELECT id, parts, refs FROM in_flight;
    ALTER TABLE in_flight DROP COLUMN parts;
    ALTER TABLE in_flight DROP COLUMN refs;
    CREATE TABLE validation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        target INTEGER NOT NULL REFERENCES target,
        began_ns INTEGER NOT NULL,
        ended_ns INTEGER NOT NULL DEFAULT 0,
        scope TEXT NOT NULL,
        summary TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE compared (
        target INTEGER NOT NULL REFERENCES target,
        folder INTEGER NOT NULL REFERENCES folder,
        session TEXT NOT NULL,
        validation INTEGER NOT NULL REFERENCES validation,
        compared_ns INTEGER NOT NULL,
        size INTEGER NOT NULL,
        rules TEXT NOT NULL,
        spans INTEGER NOT NULL,
        defects INTEGER NOT NULL,
        PRIMARY KEY (target, folder, session)
    ) WITHOUT ROWID;
    CREATE TABLE step (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ns INTEGER NOT NULL,
        who TEXT NOT NULL,
        action TEXT NOT NULL,
        record TEXT NOT NULL
    );
    """,
    # what was compared says nothing of the rules that it was sent with, so it is compared again
    4: """
    ALTER TABLE compared ADD COLUMN earlier TEXT NOT NULL DEFAULT '';
    ALTER TABLE compared ADD COLUMN is_cut INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE compared ADD COLUMN narrowed_by TEXT NOT NULL DEFAULT '';
    DELETE FROM compared;
    """,
}
"""By schema version, what makes a file of that version one of the next."""

_TABLES: Final = frozenset(
    (
        *("about", "target", "folder", "cursor", "in_flight", "content", "dead", "counter", "condition", "problem"),
        *("rules", "validation", "compared", "step"),
    )
)


class StateFile:
    """One connection to the file. One thread at a time uses it."""

    def __init__(self, path: Path, busy_s: float = BUSY_S) -> None:
        """Open the file, creating it if there is none and upgrading it if it is older.

        Other connections' transactions are waited for at most `busy_s`, each time.

        Raises:
            DamagedStateError: SQLite cannot make sense of the file.
            PassingStateError: the file is out of reach at the moment.
            StateError: the file is newer than this tracebridge, or not a tracebridge state.
            ForkedError: this process was forked at a moment that keeps it from using the state.
        """
        self.path = path
        self._busy_s = busy_s
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = Connection(path, busy_s)
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from error
        try:
            # of a new file only, and before the log
            self._connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            self._keep_a_write_ahead_log()
            self._identity = _identity(path)
            self._prepare()
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise _unusable(path, error) from error
            raise

    @property
    def db(self) -> Connection:
        """The connection.

        Raises:
            PassingStateError: the file was deleted or replaced since it was opened; what is written to it would be
                lost.
        """
        if _identity(self.path) != self._identity:
            raise PassingStateError(f"{self.path}: the delivery state was deleted or replaced while it was in use")
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of what is done inside happens, or nothing."""
        with self.db.unforked() as unforked:
            unforked.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                # a full disk has rolled it back already
                if unforked.in_transaction:
                    unforked.execute("ROLLBACK")
                raise
            unforked.execute("COMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """All that is asked inside is as of one moment; one inside of another is of the outer one's."""
        with self.db.unforked() as unforked:
            if unforked.in_transaction:
                yield self._connection
                return
            unforked.execute("BEGIN")
            try:
                yield self._connection
            finally:
                if unforked.in_transaction:
                    unforked.execute("ROLLBACK")

    def check(self) -> None:
        """Look through the whole file.

        Raises:
            DamagedStateError: something in it is damaged.
        """
        try:
            (found,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, error) from error
        if found != "ok" or not tables >= _TABLES:
            missing = ", ".join(sorted(_TABLES - tables))
            raise DamagedStateError(_words(self.path, found if found != "ok" else f"it lacks {missing}"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _keep_a_write_ahead_log(self) -> None:
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # when several open a new file at once, SQLite does not wait here, whatever its time-out
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _prepare(self) -> None:
        with self.transaction() as db:
            application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
            if application == 0 and version == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                _run(db, _SCHEMA)
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            elif application != _APPLICATION_ID:
                raise StateError(f"{self.path}: this SQLite file is not a tracebridge state. Move it away.")
            elif version > SCHEMA_VERSION:
                raise StateError(
                    f"{self.path}: written by a newer tracebridge (schema {version}, this one knows "
                    f"{SCHEMA_VERSION}). Use that version, or move the file away to start with a new state."
                )
            else:
                for older in range(version, SCHEMA_VERSION):
                    _run(db, _UPGRADES[older])
            if version != SCHEMA_VERSION:
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def begin_anew(path: Path) -> None:
    """Put a new state in the place of a damaged one, which stays beside it for people to look at."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    begun = StateFile(fresh)
    begun.db.execute("INSERT INTO about VALUES ('successor_of', ?)", (aside.name,))
    begun.close()
    # the log first: the new file must not meet the log of the old one
    for ending in ("-shm", "-wal"):
        part = path.with_name(path.name + ending)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + ending))
    os.link(path, aside)
    # in one step, so that nobody who opens it now finds no state at all, and begins one that knows of no other
    os.replace(fresh, path)


def _run(db: Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def _pragma(db: Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _unusable(path: Path, error: sqlite3.DatabaseError) -> StateError:
    # a connection that could not be made at all has no code
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN)
    if code & 0xFF in _DAMAGE:
        return DamagedStateError(_words(path, str(error)))
    return PassingStateError(f"{path}: the delivery state cannot be used at the moment ({error}).")


def _words(path: Path, what: str) -> str:
    return (
        f"{path}: the delivery state is damaged ({what}). Move the file away to start with a new one, or let "
        "`tracebridge ship` do so; the journal is not affected."
    )
