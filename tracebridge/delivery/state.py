"""`State`: what delivery must remember across restarts, in one SQLite file below the trace folder.

It follows what is open, what is in flight and which sessions are kept, never the number of events.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from tracebridge.delivery.lock import ShipperLock
from tracebridge.delivery.state_file import BUSY_S, SCHEMA_VERSION, StateFile, begin_anew
from tracebridge.errors import DamagedStateError, PassingStateError
from tracebridge.session_stream import Cursor
from tracebridge.span import Span

__all__ = [
    "SCHEMA_VERSION",
    "Account",
    "Advance",
    "Batch",
    "Condition",
    "DeadLetter",
    "SpanRef",
    "State",
    "Target",
    "Witness",
]

Fate = Literal["unknown", "unsent"]
"""Of a batch in flight. `unknown`: it may have been sent. `unsent`: the backend certainly does not hold it."""

Counter = Literal["confirmed_spans", "confirmed_events", "confirmed_requests", "found_spans", "possible_repeats"]

_REBUILDING: Final = "_state.lock"
"""No sink's name begins with an underscore."""
_LATEST_NS: Final = 2**63 - 1
_MOST_PROBLEMS: Final = 1_000
"""How many broken lines of one session are remembered."""


class SpanRef(msgspec.Struct, frozen=True, array_like=True):
    """Names a span that was sent: enough to look for it at the backend."""

    trace_id: str
    span_id: str
    session_id: str
    start_ns: int
    events: int
    """How many events the span was made of."""

    @classmethod
    def of(cls, span: Span) -> SpanRef:
        """The reference to a span."""
        events = (span.opened is not None) + (span.closed is not None)
        return cls(span.trace_id, span.span_id, span.session_id, span.start_ns, events)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Encoded spans that go out as one request."""

    parts: tuple[bytes, ...]
    """Empty in a batch whose spans are not at hand: `State.parts` has them."""
    refs: tuple[SpanRef, ...]
    id: int = 0
    """0 until it is written down."""
    fate: Fate = "unknown"
    sent_ns: int = 0
    """When it was last sent, by the wall clock; 0 if it never was."""


class Witness(msgspec.Struct, frozen=True, array_like=True):
    """A span that was accepted after a batch of unknown fate was sent: once it shows, so must that batch."""

    ref: SpanRef
    sent_at: float
    """In seconds since the epoch."""
    seen_at: float | None = None
    """When it first showed, in seconds since the epoch."""


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """A session's cursor, moved on."""

    folder: int
    session_id: str
    cursor: Cursor

    @property
    def deadline_ns(self) -> int:
        """When the first of what is open has waited long enough; far in the future when nothing is open."""
        checkpoint = self.cursor.checkpoint
        return min(checkpoint.deadline_ns, _LATEST_NS) if checkpoint.opened else _LATEST_NS


class Mark(NamedTuple):
    """Where a session stands: as much of its cursor as tells whether there is something to do."""

    position: int
    """How many bytes of it were read."""
    deadline_ns: int | None
    """When what is open in it is due; None when nothing is open."""


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


class Target(msgspec.Struct, frozen=True):
    """A sink's backend that was delivered to at some time."""

    id: int
    sink: str
    endpoint: str
    off_since_ns: int
    """Since when it is known to be switched off; 0 while it is on."""


class State:
    """One connection to the state. One thread at a time uses it; any number of threads and processes hold their own."""

    def __init__(self, path: Path, busy_s: float = BUSY_S) -> None:
        """Open the state, creating it if there is none and upgrading it if it is older.

        Other connections' transactions are waited for at most `busy_s`, each time.

        Raises:
            DamagedStateError: the file is damaged.
            ForkedError: this process was forked at a moment that keeps it from using the state.
            StateError: the file is newer than this tracebridge, not a tracebridge state, or out of reach. Every other
                method raises it too, once the file is deleted or replaced.
        """
        self._file = StateFile(path, busy_s)

    @classmethod
    def for_shipping(cls, path: Path) -> State:
        """Open the state, or, if it is damaged, move it aside and begin a new one, which says so (`successor_of`).

        Raises:
            StateError: as for the constructor.
        """
        try:
            return cls._sound(path)
        except DamagedStateError:
            pass
        rebuilding = ShipperLock(path.parent / "locks" / _REBUILDING)
        if not rebuilding.acquire():
            raise PassingStateError(f"{path}: another process is beginning a new delivery state")
        try:
            try:
                return cls._sound(path)  # another process was faster
            except DamagedStateError:
                begin_anew(path)
            return cls(path)
        finally:
            rebuilding.release()

    @classmethod
    def _sound(cls, path: Path) -> State:
        state = cls(path)
        try:
            state._file.check()
        except BaseException:
            state.close()
            raise
        return state

    def close(self) -> None:
        """Close the connection."""
        self._file.close()

    @property
    def successor_of(self) -> str:
        """The name of the damaged file that this state was begun in the place of; empty if there was none."""
        row = self._file.db.execute("SELECT value FROM about WHERE name = 'successor_of'").fetchone()
        return "" if row is None else str(row[0])

    # --- names ------------------------------------------------------------------------------------------------------

    def target(self, sink: str, endpoint: str) -> int:
        """The number of a sink's backend: a sink that is pointed elsewhere starts anew there."""
        self._file.db.execute(
            "INSERT OR IGNORE INTO target (sink, endpoint, since_ns) VALUES (?, ?, ?)",
            (sink, endpoint, time.time_ns()),
        )
        return self._number("SELECT id FROM target WHERE sink = ? AND endpoint = ?", sink, endpoint)

    def targets(self) -> list[Target]:
        """Every backend that was delivered to at some time."""
        rows = self._file.db.execute("SELECT id, sink, endpoint, off_since_ns FROM target ORDER BY id")
        return [Target(*row) for row in rows]

    def forget_target(self, target: int) -> None:
        """Give up everything that a backend has not got, and all that is known of it."""
        with self._file.transaction() as db:
            for table in ("cursor", "in_flight", "dead", "counter", "condition"):
                db.execute(f"DELETE FROM {table} WHERE target = ?", (target,))
            db.execute("DELETE FROM target WHERE id = ?", (target,))

    def folder(self, path: Path) -> int:
        """The number of a folder of sessions; from now on shippers read it too."""
        name = _name_of(path.resolve())
        self._file.db.execute("INSERT OR IGNORE INTO folder (path, since_ns) VALUES (?, ?)", (name, time.time_ns()))
        return self._number("SELECT id FROM folder WHERE path = ?", name)

    def folders(self) -> dict[int, Path]:
        """Every folder that is read, by number."""
        rows = self._file.db.execute("SELECT id, path FROM folder ORDER BY id")
        return {int(number): _path_of(name) for number, name in rows}

    def known_since_ns(self, target: int, backfilled: int | None = None) -> int:
        """Since when this state knows all that a target was sent: of the trace folder, or of a backfilled one."""
        since_ns = self._number("SELECT since_ns FROM target WHERE id = ?", target)
        if backfilled is None:
            return since_ns
        return max(since_ns, self._number("SELECT since_ns FROM folder WHERE id = ?", backfilled))

    def knows_all(self, target: int) -> None:
        """Nothing was delivered to a target before this state began."""
        self._file.db.execute("UPDATE target SET since_ns = 0 WHERE id = ?", (target,))

    def keep_rules(self, fingerprint: str, text: str) -> None:
        """Remember what a fingerprint stands for."""
        self._file.db.execute("INSERT OR IGNORE INTO rules VALUES (?, ?)", (fingerprint, text))

    def rules(self, fingerprint: str) -> str | None:
        """What a fingerprint stands for, or None if this state never sent anything with it."""
        row = self._file.db.execute("SELECT text FROM rules WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return None if row is None else str(row[0])

    # --- cursors ----------------------------------------------------------------------------------------------------

    def cursor(self, target: int, folder: int, session_id: str) -> Cursor | None:
        """How far a session was read for a target; None if it never was."""
        row = self._file.db.execute(
            "SELECT cursor FROM cursor WHERE target = ? AND folder = ? AND session = ?", (target, folder, session_id)
        ).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=Cursor)

    def positions(self, target: int, folder: int) -> dict[str, int]:
        """How many bytes of each session of a folder were read for a target."""
        rows = self._file.db.execute(
            "SELECT session, position FROM cursor WHERE target = ? AND folder = ?", (target, folder)
        )
        return dict(rows)

    def deadlines(self, target: int, folder: int) -> dict[str, int]:
        """The sessions of a folder in which something is open for a target, and when it has waited long enough."""
        rows = self._file.db.execute(
            "SELECT session, deadline_ns FROM cursor WHERE target = ? AND folder = ? AND deadline_ns < ?",
            (target, folder, _LATEST_NS),
        )
        return dict(rows)

    def forget_session(self, folder: int, session: str, head: str) -> None:
        """Forget the cursors of a session whose file is gone, but for those of a file that took its place."""
        with self._file.transaction() as db:
            rows = db.execute("SELECT target, cursor FROM cursor WHERE folder = ? AND session = ?", (folder, session))
            gone = [
                target for target, cursor in rows.fetchall() if msgspec.msgpack.decode(cursor, type=Cursor).head == head
            ]
            db.executemany(
                "DELETE FROM cursor WHERE target = ? AND folder = ? AND session = ?",
                [(target, folder, session) for target in gone],
            )
            db.execute("DELETE FROM problem WHERE folder = ? AND session = ?", (folder, session))

    def marks(self, target: int, folder: int, sessions: Sequence[str]) -> dict[str, Mark]:
        """Where some sessions of a folder stand for a target; those that were never read are left out."""
        places = ", ".join("?" * len(sessions))
        rows = self._file.db.execute(
            "SELECT session, position, deadline_ns FROM cursor"
            f" WHERE target = ? AND folder = ? AND session IN ({places})",
            (target, folder, *sessions),
        )
        return {
            session: Mark(position, deadline_ns if deadline_ns < _LATEST_NS else None)
            for session, position, deadline_ns in rows
        }

    # --- batches ----------------------------------------------------------------------------------------------------

    def write_down(
        self,
        target: int,
        batches: Iterable[Batch],
        advances: Iterable[Advance],
        problems: Iterable[tuple[int, str, int, str]],
        found: Collection[SpanRef] = (),
        unsendable: Iterable[tuple[SpanRef, str]] = (),
    ) -> list[Batch]:
        """In one step: the batches are in flight, their events are read. Returns the batches with their numbers.

        `found` are spans that the backend turned out to hold already, `unsendable` those that become dead letters at
        once, with the reason.
        """
        with self._file.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO cursor (target, folder, session, position, cursor, deadline_ns)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        target,
                        advance.folder,
                        advance.session_id,
                        advance.cursor.offset,
                        msgspec.msgpack.encode(advance.cursor),
                        advance.deadline_ns,
                    )
                    for advance in advances
                ],
            )
            for folder, session, offset, problem in problems:
                db.execute(
                    "INSERT OR IGNORE INTO problem SELECT ?, ?, ?, ?"
                    " WHERE (SELECT count(*) FROM problem WHERE folder = ? AND session = ?) < ?",
                    (folder, session, offset, problem, folder, session, _MOST_PROBLEMS),
                )
            if found:
                self._count(target, "found_spans", len(found))
                self._count_confirmed(target, found)
            for ref, reason in unsendable:
                self._insert_dead(target, reason, [b""], [ref])
            return [self._insert(target, batch) for batch in batches]

    def in_flight(self, target: int) -> Iterator[Batch]:
        """The batches of a target whose fate is not settled, oldest first, without their spans."""
        rows = self._file.db.execute(
            "SELECT id, fate, sent_ns, refs FROM in_flight WHERE target = ? ORDER BY id", (target,)
        ).fetchall()
        for number, fate, sent_ns, refs in rows:
            decoded = msgspec.msgpack.decode(refs, type=tuple[SpanRef, ...])
            yield Batch(id=number, fate=fate, sent_ns=sent_ns, parts=(), refs=decoded)

    def parts(self, batch: Batch) -> tuple[bytes, ...]:
        """The encoded spans of a batch in flight."""
        (parts,) = self._file.db.execute("SELECT parts FROM in_flight WHERE id = ?", (batch.id,)).fetchone()
        return msgspec.msgpack.decode(parts, type=tuple[bytes, ...])

    def set_fate(self, batch: Batch, fate: Fate) -> Batch:
        """Write down that a batch is about to be sent, or that it certainly did not arrive."""
        sent_ns = time.time_ns() if fate == "unknown" else batch.sent_ns
        self._file.db.execute("UPDATE in_flight SET fate = ?, sent_ns = ? WHERE id = ?", (fate, sent_ns, batch.id))
        return msgspec.structs.replace(batch, fate=fate, sent_ns=sent_ns)

    def confirm(self, target: int, batch: Batch) -> None:
        """The backend has taken the batch."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))
            self._count_confirmed(target, batch.refs)

    def witnesses(self, target: int) -> tuple[Witness, ...]:
        """What may prove that a batch of unknown fate did not arrive."""
        (encoded,) = self._file.db.execute("SELECT witnesses FROM target WHERE id = ?", (target,)).fetchone()
        return msgspec.msgpack.decode(encoded, type=tuple[Witness, ...])

    def keep_witnesses(self, target: int, witnesses: tuple[Witness, ...]) -> None:
        """Remember them, in the place of those before."""
        encoded = msgspec.msgpack.encode(witnesses)
        self._file.db.execute("UPDATE target SET witnesses = ? WHERE id = ?", (encoded, target))

    def replace(self, target: int, batch: Batch, successors: Iterable[Batch]) -> list[Batch]:
        """In one step: the batch is given up for smaller ones. What they leave out is confirmed."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))
            inserted = [self._insert(target, successor) for successor in successors]
            left = {ref for successor in inserted for ref in successor.refs}
            self._count_confirmed(target, [ref for ref in batch.refs if ref not in left])
            return inserted

    def bury(self, target: int, batch: Batch, reason: str) -> None:
        """The backend will never take the batch: its spans go to the dead letters, with the reason."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))
            self._insert_dead(target, reason, batch.parts, batch.refs)

    def count(self, target: int, name: Counter, by: int) -> None:
        """Add to one of a target's counters."""
        with self._file.transaction():
            self._count(target, name, by)

    # --- sinks that are switched off --------------------------------------------------------------------------------

    def switched_on(self, target: int) -> None:
        """A target is delivered to again."""
        self._file.db.execute("UPDATE target SET off_since_ns = 0 WHERE id = ? AND off_since_ns", (target,))

    def switched_off(self, target: int, unread: Mapping[int, Collection[str]]) -> None:
        """A target is not delivered to any more; the `unread` sessions, by folder, stay owed to it."""
        with self._file.transaction() as db:
            db.execute("UPDATE target SET off_since_ns = ? WHERE id = ?", (time.time_ns(), target))
            begin = msgspec.msgpack.encode(Cursor())
            db.executemany(
                "INSERT OR IGNORE INTO cursor (target, folder, session, position, cursor, deadline_ns)"
                " VALUES (?, ?, ?, 0, ?, 0)",
                [(target, folder, session, begin) for folder, sessions in unread.items() for session in sessions],
            )

    # --- what people and other parts ask ----------------------------------------------------------------------------

    def set_condition(self, target: int, state: str, detail: str) -> None:
        """Write down how a sink is doing."""
        self._file.db.execute(
            "INSERT OR REPLACE INTO condition VALUES (?, ?, ?, ?)", (target, state, detail, time.time_ns())
        )

    def in_flight_events(self, target: int) -> int:
        """How many events stand behind the spans of a target that are in flight."""
        return self._number("SELECT coalesce(sum(events), 0) FROM in_flight WHERE target = ?", target)

    def account(self, target: int) -> Account:
        """What a target has been given so far."""
        db = self._file.db
        sink, endpoint = db.execute("SELECT sink, endpoint FROM target WHERE id = ?", (target,)).fetchone()
        condition = db.execute("SELECT state, detail, since_ns FROM condition WHERE target = ?", (target,)).fetchone()
        return Account(
            sink=sink,
            endpoint=endpoint,
            sessions=self._number("SELECT count(*) FROM cursor WHERE target = ?", target),
            in_flight_spans=self._number("SELECT coalesce(sum(spans), 0) FROM in_flight WHERE target = ?", target),
            dead_spans=self._number("SELECT count(*) FROM dead WHERE target = ?", target),
            counters=dict(db.execute("SELECT name, value FROM counter WHERE target = ?", (target,))),
            condition=None
            if condition is None
            else Condition(state=condition[0], detail=condition[1], since_ns=condition[2]),
        )

    def dead_letters(self, target: int) -> list[DeadLetter]:
        """The spans that a target's backend will not take, oldest first."""
        rows = self._file.db.execute(
            "SELECT sink, reason, died_ns, ref FROM dead JOIN target ON target.id = dead.target"
            " WHERE dead.target = ? ORDER BY dead.id",
            (target,),
        )
        return [
            DeadLetter(sink=sink, reason=reason, died_ns=died_ns, ref=msgspec.msgpack.decode(ref, type=SpanRef))
            for sink, reason, died_ns, ref in rows
        ]

    def problems(self) -> list[tuple[Path, str, int, str]]:
        """Broken journal lines: folder, session id, byte offset, what is wrong; of one session not too many."""
        rows = self._file.db.execute(
            "SELECT path, session, offset, problem FROM problem JOIN folder ON folder.id = problem.folder"
            " ORDER BY path, session, offset"
        )
        return [(_path_of(name), session, offset, problem) for name, session, offset, problem in rows]

    # --- inside a transaction ---------------------------------------------------------------------------------------

    def _insert(self, target: int, batch: Batch) -> Batch:
        row = self._file.db.execute(
            "INSERT INTO in_flight (target, fate, written_ns, spans, events, parts, refs, sent_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                target,
                batch.fate,
                time.time_ns(),
                len(batch.parts),
                sum(ref.events for ref in batch.refs),
                msgspec.msgpack.encode(batch.parts),
                msgspec.msgpack.encode(batch.refs),
                batch.sent_ns,
            ),
        )
        return msgspec.structs.replace(batch, id=int(row.lastrowid or 0))

    def _insert_dead(self, target: int, reason: str, parts: Iterable[bytes], refs: Iterable[SpanRef]) -> None:
        died_ns = time.time_ns()
        self._file.db.executemany(
            "INSERT INTO dead (target, died_ns, reason, part, ref) VALUES (?, ?, ?, ?, ?)",
            [
                (target, died_ns, reason, part, msgspec.msgpack.encode(ref))
                for part, ref in zip(parts, refs, strict=True)
            ],
        )

    def _count(self, target: int, name: Counter, by: int) -> None:
        self._file.db.execute(
            "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT (target, name) DO UPDATE SET value = value + ?",
            (target, name, by, by),
        )

    def _count_confirmed(self, target: int, refs: Collection[SpanRef]) -> None:
        if refs:
            self._count(target, "confirmed_spans", len(refs))
            self._count(target, "confirmed_events", sum(ref.events for ref in refs))
            self._count(target, "confirmed_requests", 1)

    def _number(self, query: str, *values: int | str | bytes) -> int:
        return int(self._file.db.execute(query, values).fetchone()[0])


def _name_of(path: Path) -> str | bytes:
    """A path as SQLite can hold it: one that is not valid UTF-8 as its bytes."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return name


def _path_of(name: str | bytes) -> Path:
    return Path(os.fsdecode(name))
