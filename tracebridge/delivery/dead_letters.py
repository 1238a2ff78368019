"""`DeadLetters`: the spans that backends will not take, as people look at them and decide about them."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

import msgspec

from tracebridge.delivery.records import DeadLetter, SpanRef
from tracebridge.delivery.state_file import StateFile

_AT_ONCE: Final = 500
_NOT_THERE: Final = "the backend took it and does not hold it"


class DeadLetters:
    """The dead letters of all targets. One thread at a time uses it."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def of(self, target: int, reason: str = "", numbers: Collection[int] = ()) -> list[DeadLetter]:
        """The dead letters of a target, oldest first.

        Args:
            target: the target's number.
            reason: only those whose reason holds this text.
            numbers: only those with these numbers; empty for all.
        """
        wanted = frozenset(numbers)
        rows = self._file.db.execute(
            "SELECT dead.id, sink, reason, died_ns, ref, is_retried FROM dead JOIN target ON target.id = dead.target"
            " WHERE dead.target = ? AND instr(reason, ?) ORDER BY dead.id",
            (target, reason),
        )
        return [
            DeadLetter(
                id=number,
                sink=sink,
                reason=why,
                died_ns=died_ns,
                ref=msgspec.msgpack.decode(ref, type=SpanRef),
                is_retried=bool(is_retried),
            )
            for number, sink, why, died_ns, ref, is_retried in rows
            if not wanted or number in wanted
        ]

    def count_after(self, target: int, number: int) -> int:
        """How many of a target's letters are newer than the one with this number."""
        row = self._file.db.execute(
            "SELECT count(*) FROM dead WHERE target = ? AND id > ?", (target, number)
        ).fetchone()
        return int(row[0])

    def resend(self, target: int, refs: Collection[SpanRef]) -> None:
        """Spans that were confirmed are not at the backend: the next shipper makes them anew and sends them again."""
        with self._file.transaction() as db:
            for name, count in (("confirmed_spans", len(refs)), ("confirmed_events", sum(ref.events for ref in refs))):
                db.execute("UPDATE counter SET value = value - ? WHERE target = ? AND name = ?", (count, target, name))
            db.executemany(
                "INSERT INTO dead (target, died_ns, reason, part, ref, is_retried) VALUES (?, ?, ?, x'', ?, 1)",
                [(target, time.time_ns(), _NOT_THERE, msgspec.msgpack.encode(ref)) for ref in refs],
            )

    def part(self, number: int) -> bytes:
        """The span as it was encoded; empty if it could not be, or if the letter is gone."""
        row = self._file.db.execute("SELECT part FROM dead WHERE id = ?", (number,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def retry(self, letters: Collection[DeadLetter]) -> None:
        """Have letters sent again by whoever ships next, or now if somebody does."""
        with self._file.transaction() as db:
            db.executemany("UPDATE dead SET is_retried = 1 WHERE id = ?", [(letter.id,) for letter in letters])

    def give_up_retrying(self, letters: Collection[DeadLetter]) -> None:
        """They cannot be sent again, and stay dead."""
        if letters:
            with self._file.transaction() as db:
                db.executemany("UPDATE dead SET is_retried = 0 WHERE id = ?", [(letter.id,) for letter in letters])

    def retried(self, target: int) -> list[DeadLetter]:
        """Some of those that are to be sent again."""
        rows = self._file.db.execute(
            "SELECT id FROM dead WHERE target = ? AND is_retried ORDER BY id LIMIT ?", (target, _AT_ONCE)
        ).fetchall()
        return self.of(target, numbers=[number for (number,) in rows]) if rows else []

    def discard(self, target: int, letters: Collection[DeadLetter]) -> int:
        """Give letters up for good, but for those that somebody else has dealt with by now; return how many."""
        return self._take_away(target, letters, ("discarded_spans",), "discarded_events")

    def found(self, target: int, letters: Collection[DeadLetter]) -> None:
        """The backend shows their spans after all."""
        self._take_away(target, letters, ("found_spans", "confirmed_spans"), "confirmed_events")

    def _take_away(
        self, target: int, letters: Collection[DeadLetter], span_counters: Collection[str], event_counter: str
    ) -> int:
        taken = []
        with self._file.transaction() as db:
            for letter in letters:
                if db.execute("DELETE FROM dead WHERE id = ?", (letter.id,)).rowcount:
                    taken.append(letter)
            events = sum(letter.ref.events for letter in taken)
            for name, by in ((event_counter, events), *((counter, len(taken)) for counter in span_counters)):
                db.execute(
                    "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT (target, name) DO UPDATE SET value = value + ?",
                    (target, name, by, by),
                )
        return len(taken)
