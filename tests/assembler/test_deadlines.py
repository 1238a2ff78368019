"""The earliest comes first, and what was set before leaves nothing behind."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from tracebridge.assembler.deadlines import LATEST_NS, Deadlines

changes = st.lists(
    st.tuples(st.integers(0, 5), st.none() | st.integers(0, 9)) | st.integers(0, 10),
    max_size=60,
)


@given(changes)
def test_keys_come_in_the_order_of_the_times_that_were_set_last(changes: list[tuple[int, int | None] | int]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    plain: dict[int, int] = {}
    for change in changes:
        if isinstance(change, int):
            due = sorted((at, key) for key, at in plain.items() if at < change)
            assert deadlines.take_before(change) == [key for _, key in due]
            for _, key in due:
                del plain[key]
            continue
        key, at = change
        if at is None:
            deadlines.discard(key)
            plain.pop(key, None)
        else:
            deadlines.set(key, at)
            plain[key] = at
        assert len(deadlines) == len(plain)
        assert deadlines.earliest_ns() == min(plain.values(), default=LATEST_NS)
        assert deadlines.first() == min(((at, key) for key, at in plain.items()), default=None)


def test_a_time_is_only_brought_forward_by_setting_it_earlier() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set_earlier("a", 5)
    deadlines.set_earlier("a", 7)
    assert deadlines.first() == (5, "a")
    deadlines.set_earlier("a", 3)
    assert deadlines.first() == (3, "a")


def test_memory_follows_the_keys_however_often_their_times_change() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for round_ in range(10_000):
        deadlines.set(round_ % 10, round_)
        deadlines.set(1000 + round_, round_)
        deadlines.discard(1000 + round_)
    assert len(deadlines) == 10
    assert sys.getsizeof(deadlines._heap) < 1000
