"""`State`: what delivery must remember across restarts, in one SQLite file below the trace folder.

It follows what is open, what is in flight and which sessions are kept, never the number of events.
"""

from __future__ import annotations

import os
import time
from collections import Counter as _Tally
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from tracebridge.delivery.choice import ALWAYS, Window
from tracebridge.delivery.dead_letters import DeadLetters
from tracebridge.delivery.evidence import Evidence
from tracebridge.delivery.lock import ShipperLock
from tracebridge.delivery.ramp import Ramp, Stage
from tracebridge.delivery.records import (
    LATEST_NS,
    Account,
    Advance,
    Batch,
    Condition,
    DeadLetter,
    Encoding,
    Fate,
    Mark,
    SpanRef,
    Suspicion,
    Target,
    Witness,
)
from tracebridge.delivery.splitting import part_of
from tracebridge.delivery.state_file import BUSY_S, SCHEMA_VERSION, StateFile, begin_anew
from tracebridge.errors import DamagedStateError, PassingStateError
from tracebridge.session_stream import Cursor

__all__ = [
    "SCHEMA_VERSION",
    "Account",
    "Advance",
    "Batch",
    "Condition",
    "DeadLetter",
    "Mark",
    "SpanRef",
    "State",
    "Suspicion",
    "Target",
    "Witness",
]

Counter = Literal[
    "confirmed_spans",
    "confirmed_events",
    "confirmed_requests",
    "found_spans",
    "possible_repeats",
    "cut_spans",
    "discarded_spans",
    "discarded_events",
    "left_out_spans",
    "left_out_events",
    "removed_events",
]

_REBUILDING: Final = "_state.lock"
"""No sink's name begins with an underscore."""
_CHOSEN: Final = "chosen of folder "
_RAMP: Final = "ramp of target "
_ENCODING: Final = "encoding of target "
_MET: Final = "first asked for target "
_TRACE_FOLDER: Final = "trace folder"
_MOST_PROBLEMS: Final = 1_000
"""How many broken lines of one session are remembered."""


class _Head(msgspec.Struct, frozen=True):
    """As much of a cursor as tells one file from another."""

    head: str = ""


_decode_head: Final = msgspec.msgpack.Decoder(_Head).decode


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
        self._trace_dir = path.absolute().parent.parent.resolve()
        self.dead = DeadLetters(self._file)
        self.evidence = Evidence(self._file)

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

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is asked inside is as of one moment, whatever a shipper writes down meanwhile."""
        with self._file.snapshot():
            yield

    @property
    def successor_of(self) -> str:
        """The name of the damaged file that this state was begun in the place of; empty if there was none."""
        return self._about("successor_of") or ""

    # --- names ------------------------------------------------------------------------------------------------------

    def target(self, sink: str, endpoint: str) -> int:
        """The number of a sink's backend: a sink that is pointed elsewhere starts anew there."""
        now_ns = time.time_ns()
        made = self._file.db.execute(
            "INSERT OR IGNORE INTO target (sink, endpoint, since_ns) VALUES (?, ?, ?)", (sink, endpoint, now_ns)
        )
        if made.rowcount:
            self._keep(f"{_MET}{made.lastrowid}", now_ns)
        return self._number("SELECT id FROM target WHERE sink = ? AND endpoint = ?", sink, endpoint)

    def targets(self) -> list[Target]:
        """Every backend that was delivered to at some time."""
        rows = self._file.db.execute("SELECT id, sink, endpoint, off_since_ns FROM target ORDER BY id")
        return [Target(*row) for row in rows]

    def forget_target(self, target: int) -> None:
        """Give up everything that a backend has not got, and all that is known of it."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM content WHERE batch IN (SELECT id FROM in_flight WHERE target = ?)", (target,))
            for table in ("cursor", "in_flight", "dead", "counter", "condition", "compared", "validation"):
                db.execute(f"DELETE FROM {table} WHERE target = ?", (target,))
            names = [f"{about}{target}" for about in (_RAMP, _ENCODING, _MET)]
            db.execute("DELETE FROM about WHERE name IN (?, ?, ?)", names)
            db.execute("DELETE FROM target WHERE id = ?", (target,))

    def ramp(self, target: int) -> Ramp:
        """Since when a target's shares of sessions are delivered."""
        kept = self._about(f"{_RAMP}{target}")
        return Ramp() if kept is None else Ramp(msgspec.json.decode(kept, type=tuple[Stage, ...]))

    def keep_ramp(self, target: int, ramp: Ramp) -> None:
        """Remember it, in the place of the one before."""
        self._keep(f"{_RAMP}{target}", ramp.stages)

    def encoding(self, target: int) -> Encoding | None:
        """Under which policy it was encoded what waits for a target; None if that was never written down."""
        kept = self._about(f"{_ENCODING}{target}")
        return None if kept is None else msgspec.json.decode(kept, type=Encoding)

    def keep_encoding(self, target: int, encoding: Encoding) -> None:
        """Remember it, in the place of the one before."""
        self._keep(f"{_ENCODING}{target}", encoding)

    def folder(self, path: Path) -> int:
        """The number of a folder of sessions; from now on shippers read it too.

        The trace folder, in which this state lies, keeps its number wherever it is moved, copied or mounted.
        """
        with self._file.transaction():
            return self._folder(path.resolve())

    def folders(self) -> dict[int, Path]:
        """Every folder that is read, by number."""
        own = self._trace_folder()
        rows = self._file.db.execute("SELECT id, path FROM folder ORDER BY id")
        return {int(number): self._trace_dir if number == own else _path_of(name) for number, name in rows}

    def copied_from(self, trace_dir: Path) -> None:
        """This is a copy of the state of a trace folder that lies elsewhere, and is one of the others to it."""
        with self._file.transaction() as db:
            original = self._trace_folder_before()
            if original is None:
                return
            self._move(original, _name_of(trace_dir.resolve()))
            copy = db.execute(
                "INSERT INTO folder (path, since_ns) VALUES (?, ?)", (_name_of(self._trace_dir), time.time_ns())
            ).lastrowid
            db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (_TRACE_FOLDER, str(copy)))

    def backfill(self, path: Path, window: Window = ALWAYS) -> int:
        """The number of a folder of which shippers, from now on, read the sessions that began in a window.

        What was to be read before still is. So a folder that was to be read as a whole stays whole.
        """
        with self._file.transaction() as db:
            known = self.folders()
            number = self._folder(path.resolve())
            chosen = self.choices().get(number)
            if window == ALWAYS:
                db.execute("DELETE FROM about WHERE name = ?", (f"{_CHOSEN}{number}",))
            elif chosen is not None or number not in known:
                self._keep(f"{_CHOSEN}{number}", sorted({window, *(chosen or ())}))
            return number

    def forget_folder(self, number: int) -> None:
        """Read a folder no more, and give up what of it was not sent."""
        with self._file.transaction() as db:
            rows = db.execute("SELECT target, session, cursor FROM cursor WHERE folder = ?", (number,))
            for target, session, encoded in rows.fetchall():
                self._drop_cursor(target, number, session, msgspec.msgpack.decode(encoded, type=Cursor))
            self._drop_folder(number)

    def choices(self) -> dict[int, tuple[Window, ...]]:
        """By folder, the windows in which a session must have begun to be delivered; folders without are left out."""
        rows = self._file.db.execute("SELECT name, value FROM about WHERE name GLOB ?", (f"{_CHOSEN}*",))
        return {
            int(name.removeprefix(_CHOSEN)): msgspec.json.decode(value, type=tuple[Window, ...]) for name, value in rows
        }

    def known_since_ns(self, target: int, backfilled: int | None = None) -> int:
        """Since when this state knows all that a target was sent: of the trace folder, or of a backfilled one."""
        since_ns = self._number("SELECT since_ns FROM target WHERE id = ?", target)
        if backfilled is None:
            return since_ns
        return max(since_ns, self._number("SELECT since_ns FROM folder WHERE id = ?", backfilled))

    def met_ns(self, target: int) -> int:
        """When somebody first asked for a target; 0 if that was before it was written down."""
        return int(self._about(f"{_MET}{target}") or 0)

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
            (target, folder, LATEST_NS),
        )
        return dict(rows)

    def forget_session(self, folder: int, session: str, head: str) -> None:
        """Forget the cursors of a session whose file is gone, but for those of a file that took its place."""
        with self._file.transaction() as db:
            rows = db.execute("SELECT target, cursor FROM cursor WHERE folder = ? AND session = ?", (folder, session))
            for target, encoded in rows.fetchall():
                cursor = msgspec.msgpack.decode(encoded, type=Cursor)
                if cursor.head != head:
                    continue
                db.execute(
                    "DELETE FROM cursor WHERE target = ? AND folder = ? AND session = ?", (target, folder, session)
                )
                self._count(target, "removed_events", cursor.events_read)
                # a sink that waits for an end keeps the file: one that went was sampled out while this was open
                if cursor.checkpoint.opened:
                    self._count(target, "left_out_events", len(cursor.checkpoint.opened))
            for table in ("problem", "compared"):
                db.execute(f"DELETE FROM {table} WHERE folder = ? AND session = ?", (folder, session))

    def marks(self, target: int, folder: int, sessions: Sequence[str]) -> dict[str, Mark]:
        """Where some sessions of a folder stand for a target; those that were never read are left out."""
        places = ", ".join("?" * len(sessions))
        rows = self._file.db.execute(
            "SELECT session, position, deadline_ns, cursor FROM cursor"
            f" WHERE target = ? AND folder = ? AND session IN ({places})",
            (target, folder, *sessions),
        )
        return {
            session: Mark(position, deadline_ns if deadline_ns < LATEST_NS else None, _decode_head(cursor).head)
            for session, position, deadline_ns, cursor in rows
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
        left_out: Collection[SpanRef] = (),
        cut: int = 0,
    ) -> list[Batch]:
        """In one step: the batches are in flight, their events are read. Returns the batches with their numbers.

        `found` are spans that the backend turned out to hold already, `unsendable` those that become dead letters at
        once, with the reason, `left_out` those that the sink's policy does not keep, and `cut` is how many of the
        batches' spans were cut to fit.
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
            self._count_left_out(target, left_out)
            if cut:
                self._count(target, "cut_spans", cut)
            for ref, reason in unsendable:
                self._insert_dead(target, reason, [b""], [ref])
            return [self._insert(target, batch) for batch in batches]

    def in_flight(self, target: int) -> Iterator[Batch]:
        """The batches of a target whose fate is not settled, oldest first, without their spans."""
        rows = self._file.db.execute(
            "SELECT id, fate, sent_ns, refs, suspicion FROM in_flight JOIN content ON batch = id"
            " WHERE target = ? ORDER BY id",
            (target,),
        ).fetchall()
        for number, fate, sent_ns, refs, suspicion in rows:
            yield Batch(
                id=number,
                fate=fate,
                sent_ns=sent_ns,
                parts=(),
                refs=msgspec.msgpack.decode(refs, type=tuple[SpanRef, ...]),
                suspicion=msgspec.msgpack.decode(suspicion, type=Suspicion) if suspicion else Suspicion(),
            )

    def parts(self, batch: Batch) -> tuple[bytes, ...]:
        """The encoded spans of a batch in flight."""
        (parts,) = self._file.db.execute("SELECT parts FROM content WHERE batch = ?", (batch.id,)).fetchone()
        return msgspec.msgpack.decode(parts, type=tuple[bytes, ...])

    def set_fate(self, batch: Batch, fate: Fate) -> Batch:
        """Write down that a batch is about to be sent, or that it certainly did not arrive."""
        sent_ns = time.time_ns() if fate == "unknown" else batch.sent_ns
        self._file.db.execute("UPDATE in_flight SET fate = ?, sent_ns = ? WHERE id = ?", (fate, sent_ns, batch.id))
        return msgspec.structs.replace(batch, fate=fate, sent_ns=sent_ns)

    def suspect(self, batch: Batch, suspicion: Suspicion) -> Batch:
        """Write down what speaks for and against a batch on which the backend failed."""
        self._file.db.execute(
            "UPDATE in_flight SET suspicion = ? WHERE id = ?", (msgspec.msgpack.encode(suspicion), batch.id)
        )
        return msgspec.structs.replace(batch, suspicion=suspicion)

    def confirm(self, target: int, batch: Batch) -> None:
        """The backend has taken the batch."""
        with self._file.transaction():
            self._remove(batch)
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
        with self._file.transaction():
            self._remove(batch)
            inserted = [self._insert(target, successor) for successor in successors]
            # counted, because a journal that holds a copy of itself gives a span twice
            confirmed = _Tally(batch.refs) - _Tally(ref for successor in inserted for ref in successor.refs)
            self._count_confirmed(target, list(confirmed.elements()))
            return inserted

    def remake(
        self,
        target: int,
        batch: Batch,
        parts: Sequence[bytes],
        refs: Sequence[SpanRef],
        unsendable: Collection[tuple[SpanRef, str]],
    ) -> None:
        """In one step: of a batch in flight there are these spans, encoded anew, and `unsendable` are dead letters.

        The others are left out by the policy.
        """
        with self._file.transaction() as db:
            if refs:
                events = sum(ref.events for ref in refs)
                db.execute("UPDATE in_flight SET spans = ?, events = ? WHERE id = ?", (len(refs), events, batch.id))
                db.execute(
                    "UPDATE content SET parts = ?, refs = ? WHERE batch = ?",
                    (msgspec.msgpack.encode(parts), msgspec.msgpack.encode(refs), batch.id),
                )
            else:
                self._remove(batch)
            for ref, reason in unsendable:
                self._insert_dead(target, reason, [b""], [ref])
            # counted, because a journal that holds a copy of itself gives a span twice
            left_out = _Tally(batch.refs) - _Tally([*refs, *(ref for ref, _ in unsendable)])
            self._count_left_out(target, list(left_out.elements()))

    def bury(self, target: int, batch: Batch, reason: str) -> None:
        """The backend will never take the batch: its spans go to the dead letters, with the reason."""
        with self._file.transaction():
            self._remove(batch)
            self._insert_dead(target, reason, batch.parts, batch.refs)

    def revive(self, target: int, letters: Collection[DeadLetter], batches: Iterable[Batch]) -> list[Batch]:
        """In one step: dead letters are in flight again, as `batches`, but for those that somebody gave up since.

        The batches hold the letters' spans in their order.
        """
        with self._file.transaction() as db:
            was_there = iter(
                [db.execute("DELETE FROM dead WHERE id = ?", (letter.id,)).rowcount > 0 for letter in letters]
            )
            left = [part_of(batch, [n for n in range(len(batch.refs)) if next(was_there)]) for batch in batches]
            return [self._insert(target, batch) for batch in left if batch.refs]

    def count(self, target: int, name: Counter, by: int) -> None:
        """Add to one of a target's counters."""
        with self._file.transaction():
            self._count(target, name, by)

    # --- sinks that are switched off --------------------------------------------------------------------------------

    def switched_on(self, target: int, unknown: Mapping[tuple[int, str], int] | None = None) -> None:
        """A target is delivered to again.

        Unless `unknown` is None, it may hold what this state did not send it: all that was recorded until now, and of
        sessions that were read in part what lies before these byte offsets, by folder and name.
        """
        with self._file.transaction() as db:
            db.execute("UPDATE target SET off_since_ns = 0 WHERE id = ?", (target,))
            if unknown is None:
                return
            db.execute("UPDATE target SET since_ns = ? WHERE id = ?", (time.time_ns(), target))
            for (folder, session), end in unknown.items():
                cursor = self.cursor(target, folder, session)
                if cursor is not None:
                    asked = msgspec.structs.replace(cursor, prior_end=max(end, cursor.prior_end))
                    db.execute(
                        "UPDATE cursor SET cursor = ? WHERE target = ? AND folder = ? AND session = ?",
                        (msgspec.msgpack.encode(asked), target, folder, session),
                    )

    def was_shipped_to(self, target: int) -> bool:
        """Whether anybody ever shipped to a target; else it is known only because somebody asked for it."""
        return any(
            self._number(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE target = ?)", target)
            for table in ("condition", "cursor", "in_flight", "dead", "counter")
        )

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

    def set_condition(self, target: int, state: str, detail: str, wait_s: float = 0.0) -> None:
        """Write down how a sink is doing, and for how long it is left alone, in seconds."""
        now_ns = time.time_ns()
        until_ns = now_ns + int(wait_s * 1e9) if wait_s else 0
        self._file.db.execute(
            "INSERT OR REPLACE INTO condition (target, state, detail, since_ns, until_ns) VALUES (?, ?, ?, ?, ?)",
            (target, state, detail, now_ns, until_ns),
        )

    def in_flight_events(self, target: int) -> int:
        """How many events stand behind the spans of a target that are in flight."""
        return self._number("SELECT coalesce(sum(events), 0) FROM in_flight WHERE target = ?", target)

    def served(self, target: int) -> int:
        """How many requests a target's backend has taken so far."""
        return self._counter(target, "confirmed_requests")

    def confirmed(self, target: int) -> int:
        """How many spans a target's backend has taken so far."""
        return self._counter(target, "confirmed_spans")

    def account(self, target: int) -> Account:
        """What a target has been given so far, all of one moment."""
        with self._file.snapshot() as db:
            sink, endpoint = db.execute("SELECT sink, endpoint FROM target WHERE id = ?", (target,)).fetchone()
            condition = db.execute(
                "SELECT state, detail, since_ns, until_ns FROM condition WHERE target = ?", (target,)
            ).fetchone()
            counters = dict(db.execute("SELECT name, value FROM counter WHERE target = ?", (target,)).fetchall())
            cursors = [
                msgspec.msgpack.decode(cursor, type=Cursor)
                for (cursor,) in db.execute("SELECT cursor FROM cursor WHERE target = ?", (target,))
            ]
            spans, events, since_ns = db.execute(
                "SELECT coalesce(sum(spans), 0), coalesce(sum(events), 0), coalesce(min(written_ns), 0)"
                " FROM in_flight WHERE target = ?",
                (target,),
            ).fetchone()
            dead = db.execute("SELECT id, ref, reason FROM dead WHERE target = ? ORDER BY id", (target,)).fetchall()
        return Account(
            sink=sink,
            endpoint=endpoint,
            sessions=len(cursors),
            read_events=counters.get("removed_events", 0) + sum(cursor.events_read for cursor in cursors),
            open_events=sum(len(cursor.checkpoint.opened) for cursor in cursors),
            in_flight_spans=spans,
            in_flight_events=events,
            in_flight_since_ns=since_ns,
            dead_spans=len(dead),
            dead_events=sum(msgspec.msgpack.decode(ref, type=SpanRef).events for _, ref, _ in dead),
            latest_dead=dead[-1][0] if dead else 0,
            dead_by_reason=dict(_Tally(reason for _, _, reason in dead).most_common()),
            counters=counters,
            condition=_condition(condition),
        )

    def problems(self) -> list[tuple[Path, str, int, str]]:
        """Broken journal lines: folder, session id, byte offset, what is wrong; of one session not too many."""
        folders = self.folders()
        rows = self._file.db.execute("SELECT folder, session, offset, problem FROM problem")
        return sorted(
            (folders[folder], session, offset, problem)
            for folder, session, offset, problem in rows
            # whoever shipped while a folder was forgotten may have written down one more
            if folder in folders
        )

    # --- inside a transaction ---------------------------------------------------------------------------------------

    def _folder(self, path: Path) -> int:
        name = _name_of(path)
        number = self._trace_folder_before() if path == self._trace_dir else None
        if number is not None:
            self._move(number, name)
        else:
            self._file.db.execute("INSERT OR IGNORE INTO folder (path, since_ns) VALUES (?, ?)", (name, time.time_ns()))
            number = self._number("SELECT id FROM folder WHERE path = ?", name)
        if path == self._trace_dir:
            self._file.db.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (_TRACE_FOLDER, str(number)))
        return number

    def _trace_folder(self) -> int | None:
        """The number of the folder that this state lies in, if it is known by now."""
        row = self._file.db.execute(
            "SELECT id FROM about JOIN folder ON id = CAST(value AS INTEGER) WHERE name = ?", (_TRACE_FOLDER,)
        ).fetchone()
        return None if row is None else int(row[0])

    def _trace_folder_before(self) -> int | None:
        """The same, also if it was not noted: a state began with the trace folder, which has moved if it is gone."""
        noted = self._trace_folder()
        if noted is not None:
            return noted
        paths = self.folders()
        here = next((number for number, path in paths.items() if path == self._trace_dir), None)
        return 1 if here is None and 1 in paths and not os.path.isdir(paths[1]) else here

    def _move(self, number: int, name: str | bytes) -> None:
        """A folder lies at a path, and with it all that was known of another one there: both were one all the time."""
        if self._file.db.execute("SELECT path FROM folder WHERE id = ?", (number,)).fetchone() == (name,):
            return
        same = self._file.db.execute("SELECT id FROM folder WHERE path = ?", (name,)).fetchone()
        if same is not None:
            self._merge(same[0], number)
        self._file.db.execute("UPDATE folder SET path = ? WHERE id = ?", (name, number))

    def _merge(self, number: int, into: int) -> None:
        """Give what is known of a folder to the other number that it has. Of two cursors the one that has read more."""
        db = self._file.db
        rows = db.execute(
            "SELECT target, folder, session, cursor FROM cursor WHERE folder IN (?, ?)"
            " ORDER BY position DESC, folder = ? DESC",
            (number, into, into),
        ).fetchall()
        kept = set[tuple[int, str]]()
        for target, folder, session, encoded in rows:
            if (target, session) in kept:
                self._drop_cursor(target, folder, session, msgspec.msgpack.decode(encoded, type=Cursor))
            kept.add((target, session))
        for table in ("cursor", "problem", "compared"):
            db.execute(f"UPDATE OR IGNORE {table} SET folder = ? WHERE folder = ?", (into, number))
        self._drop_folder(number)

    def _drop_cursor(self, target: int, folder: int, session: str, cursor: Cursor) -> None:
        """Forget how far a session was read; what of it was sent stays counted."""
        self._count(target, "removed_events", cursor.events_read - len(cursor.checkpoint.opened))
        self._file.db.execute(
            "DELETE FROM cursor WHERE target = ? AND folder = ? AND session = ?", (target, folder, session)
        )

    def _drop_folder(self, number: int) -> None:
        for table in ("cursor", "problem", "compared"):
            self._file.db.execute(f"DELETE FROM {table} WHERE folder = ?", (number,))
        self._file.db.execute("DELETE FROM about WHERE name = ?", (f"{_CHOSEN}{number}",))
        self._file.db.execute("DELETE FROM folder WHERE id = ?", (number,))

    def _insert(self, target: int, batch: Batch) -> Batch:
        row = self._file.db.execute(
            "INSERT INTO in_flight (target, fate, written_ns, spans, events, sent_ns, suspicion)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                target,
                batch.fate,
                time.time_ns(),
                len(batch.parts),
                batch.events,
                batch.sent_ns,
                b"" if batch.suspicion == Suspicion() else msgspec.msgpack.encode(batch.suspicion),
            ),
        )
        number = int(row.lastrowid or 0)
        # apart from the row that changes with the batch's fate: SQLite writes a row anew as a whole
        self._file.db.execute(
            "INSERT INTO content VALUES (?, ?, ?)",
            (number, msgspec.msgpack.encode(batch.parts), msgspec.msgpack.encode(batch.refs)),
        )
        return msgspec.structs.replace(batch, id=number)

    def _remove(self, batch: Batch) -> None:
        self._file.db.execute("DELETE FROM content WHERE batch = ?", (batch.id,))
        self._file.db.execute("DELETE FROM in_flight WHERE id = ?", (batch.id,))

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

    def _count_left_out(self, target: int, refs: Collection[SpanRef]) -> None:
        if refs:
            self._count(target, "left_out_spans", len(refs))
            self._count(target, "left_out_events", sum(ref.events for ref in refs))

    def _count_confirmed(self, target: int, refs: Collection[SpanRef]) -> None:
        if refs:
            self._count(target, "confirmed_spans", len(refs))
            self._count(target, "confirmed_events", sum(ref.events for ref in refs))
            self._count(target, "confirmed_requests", 1)

    def _counter(self, target: int, name: Counter) -> int:
        query = "SELECT coalesce(max(value), 0) FROM counter WHERE target = ? AND name = ?"
        return self._number(query, target, name)

    def _about(self, name: str) -> str | None:
        """What is remembered under a name; None if nothing is."""
        row = self._file.db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _keep(self, name: str, value: object) -> None:
        """Remember a value, as JSON, in the place of the one before."""
        encoded = msgspec.json.encode(value).decode()
        self._file.db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, encoded))

    def _number(self, query: str, *values: int | str | bytes) -> int:
        return int(self._file.db.execute(query, values).fetchone()[0])


def _condition(row: tuple[str, str, int, int] | None) -> Condition | None:
    if row is None:
        return None
    state, detail, since_ns, until_ns = row
    return Condition(state=state, detail=detail, since_ns=since_ns, until_ns=until_ns)


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
