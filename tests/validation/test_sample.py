"""What a sample is, and what it proves."""

from __future__ import annotations

from math import comb

from hypothesis import example, given
from hypothesis import strategies as st

from tracebridge.policy import Policy, keeps_session
from tracebridge.validation.sample import is_drawn, undetected_at_most

IDS = [f"session-{number}" for number in range(5_000)]


@example(compared=19, others=1)
@given(compared=st.integers(0, 60), others=st.integers(0, 60))
def test_the_bound_is_the_exact_one(compared: int, others: int) -> None:
    """The largest number of defective sessions that a sample would miss with more than 5 %, counted out."""
    of = compared + others

    expected = max(number for number in range(of + 1) if 20 * comb(of - number, compared) > comb(of, compared))
    assert undetected_at_most(compared, of) == expected


def test_three_hundred_clean_ones_of_very_many_leave_one_percent_by_the_rule_of_three() -> None:
    assert undetected_at_most(300, 1_000_000) == 9_934


def test_a_sample_is_as_large_as_asked_the_same_every_time_and_a_part_of_a_larger_one() -> None:
    small = {name for name in IDS if is_drawn(name, 0.05)}
    large = {name for name in IDS if is_drawn(name, 0.2)}
    assert 200 <= len(small) <= 300
    assert small < large
    assert small == {name for name in reversed(IDS) if is_drawn(name, 0.05)}
    assert all(is_drawn(name, 1.0) for name in IDS)


def test_it_is_not_drawn_by_what_samples_sessions_for_delivery() -> None:
    """Else 5 % of those that a policy of 5 % keeps would be all of them."""
    kept = [name for name in IDS if keeps_session(Policy(sample_rate=0.05), name)]
    drawn = [name for name in kept if is_drawn(name, 0.05)]
    assert len(drawn) < len(kept) / 4
