from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tracebridge.event import timestamp_ns
from tracebridge.recording.clock import Clock

MOMENTS = st.integers(min_value=0, max_value=4_000_000_000 * 10**9)


@given(MOMENTS, st.integers(min_value=0, max_value=10**18), st.lists(st.integers(0, 10**12), max_size=8))
def test_a_timestamp_is_the_wall_time_to_the_microsecond(wall_ns: int, monotonic_ns: int, later: list[int]) -> None:
    clock = Clock(lambda: wall_ns, lambda: monotonic_ns)
    for elapsed_ns in later:
        expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=(wall_ns + elapsed_ns) // 1000)
        text = clock.timestamp(monotonic_ns + elapsed_ns)
        assert text == expected.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        assert timestamp_ns(text) == (wall_ns + elapsed_ns) // 1000 * 1000


def test_a_wall_clock_that_is_set_back_does_not_turn_time_back() -> None:
    walls = iter([2_000_000_000, 1_000_000_000])
    monotonic = iter([0, 10])
    clock = Clock(lambda: next(walls), lambda: next(monotonic))
    assert clock.timestamp(0) < clock.timestamp(1_500_000)
