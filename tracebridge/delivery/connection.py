"""`Connection`: a connection to an SQLite file that no forked child ever inherits.

SQLite counts in the process's memory which locks it holds on a file. A child inherits the counts but not the locks, so
that whatever it then does with the same file is not protected, and closing what it inherited can delete the log of its
parent's transactions. So before a fork every connection is brought to rest and closed; the parent opens it again when
it needs it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tracebridge.errors import ForkedError
from tracebridge.fork import call_around_fork

FORK_WAIT_S: Final = 1.0
"""The longest that a fork waits for connections to come to rest, in seconds."""

_LARGEST_LOG: Final = 64 << 20
"""The size in bytes down to which the file of transactions is cut whenever it was larger for a while."""


class Rows:
    """What a statement gave, all of it: a connection may be closed between two statements."""

    def __init__(self, rows: list[Any], lastrowid: int | None, rowcount: int) -> None:
        self._rows = iter(rows)
        self.lastrowid = lastrowid
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """All rows that were not taken yet."""
        return list(self._rows)


class Connection:
    """Executes statements, in autocommit mode. One thread at a time uses it."""

    def __init__(self, path: Path, busy_s: float) -> None:
        """Open the file, creating it if there is none; other connections' transactions are waited for `busy_s`.

        Raises:
            ForkedError: this process was forked while its parent was using SQLite.
            sqlite3.Error: the file cannot be opened.
        """
        self._path = path
        self._busy_s = busy_s
        self._guard = threading.RLock()
        self._depth = 0
        self._is_dead = False
        self._db: sqlite3.Connection | None = None
        _CONNECTIONS.add(self)
        with self._guard:
            self._db = self._connect("rwc")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Execute one statement, to its end."""
        with self.unforked() as db:
            cursor = db.execute(statement, values)
            return Rows(cursor.fetchall(), cursor.lastrowid, cursor.rowcount)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row."""
        with self.unforked() as db:
            db.executemany(statement, rows)

    @contextmanager
    def unforked(self) -> Iterator[sqlite3.Connection]:
        """A block in which no other thread forks the process, as long as that can be waited for."""
        with self._guard:
            self._depth += 1
            try:
                yield self._opened()
            finally:
                self._depth -= 1

    def close(self) -> None:
        """Close the connection."""
        with self._guard:
            _CONNECTIONS.discard(self)
            if self._db is not None and not self._is_dead:
                self._db.close()
                self._db = None

    # --- around a fork ----------------------------------------------------------------------------------------------

    def rest(self, deadline: float) -> bool:
        """Close the connection and keep it closed until `resume`; False if it is in use until `deadline`."""
        if not self._guard.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        if self._depth:
            # the thread that forks is itself in the middle of something
            self._guard.release()
            return False
        if self._db is not None:
            self._db.close()
            self._db = None
        return True

    def resume(self) -> None:
        """Let a connection that was brought to rest be used again."""
        self._guard.release()

    def die(self) -> None:
        """In a forked child: never touch what was inherited."""
        self._guard = threading.RLock()
        self._is_dead = True
        if self._db is not None:
            _keep_for_ever(self._db)

    def _opened(self) -> sqlite3.Connection:
        if self._is_dead:
            raise ForkedError(f"{self._path}: this connection belongs to the process that this one was forked from.")
        if self._db is None:
            # never creates the file: one that is gone is not the one that was open before
            self._db = self._connect("rw")
        return self._db

    def _connect(self, mode: str) -> sqlite3.Connection:
        with _CONNECTIONS.opening(self._path):
            db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=self._busy_s,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            # a power cut may cost the last transactions; a crash costs nothing
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {_LARGEST_LOG}")
        except BaseException:
            db.close()
            raise
        return db


class _Connections:
    """All connections of the process."""

    def __init__(self) -> None:
        # held from just before a fork to just after it, so that nothing is opened meanwhile
        self._lock = threading.RLock()
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._forks: list[tuple[list[Connection], bool]] = []
        self._is_forbidden = False
        call_around_fork(before=self._before_fork, in_parent=self._in_parent, in_child=self._in_child)

    def add(self, connection: Connection) -> None:
        with self._lock:
            self._all.add(connection)

    def discard(self, connection: Connection) -> None:
        with self._lock:
            self._all.discard(connection)

    @contextmanager
    def opening(self, path: Path) -> Iterator[None]:
        """A block in which a file is opened; raises a ForkedError if none can be opened safely."""
        with self._lock:
            if self._is_forbidden:
                raise ForkedError(
                    f"{path}: this process was forked while its parent was in the middle of a transaction, "
                    "so it cannot use SQLite safely."
                )
            yield

    def _before_fork(self) -> None:
        deadline = time.monotonic() + FORK_WAIT_S
        resting: list[Connection] = []
        is_held = False
        while not is_held and self._acquire(deadline):
            others = [connection for connection in self._all if connection not in resting]
            if not others:
                is_held = True
                break
            # one that is in use may have to be opened again to come to its end
            self._lock.release()
            rested = [connection for connection in others if connection.rest(deadline)]
            resting += rested
            if len(rested) < len(others):
                break
        self._forks.append((resting, is_held))

    def _in_parent(self) -> None:
        resting, is_held = self._forks.pop()
        if is_held:
            self._lock.release()
        for connection in resting:
            connection.resume()

    def _in_child(self) -> None:
        _, is_at_rest = self._forks.pop()
        self._is_forbidden = self._is_forbidden or not is_at_rest
        self._forks = []
        self._lock = threading.RLock()
        inherited, self._all = list(self._all), weakref.WeakSet()
        for connection in inherited:
            connection.die()

    def _acquire(self, deadline: float) -> bool:
        return self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _keep_for_ever(thing: object) -> None:
    """Make sure that an object is not even destroyed when the interpreter ends."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_CONNECTIONS = _Connections()
