"""How long the rest takes, told by a given clock; lines where there is no terminal."""

from __future__ import annotations

import io

import pytest

from tracebridge.cli.progress import Estimate, Lines


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_what_goes_on_at_the_same_speed_takes_as_long_as_it_says() -> None:
    clock = Clock()
    estimate = Estimate(clock)
    for second in range(10):
        estimate.update(second * 100, 2_000)
        assert estimate.left_s == (None if second < 1 else pytest.approx((2_000 - second * 100) / 100))
        clock.now += 1


def test_it_follows_the_speed_of_the_last_minute() -> None:
    clock = Clock()
    estimate = Estimate(clock)
    for second in range(600):
        estimate.update(second * 1_000, 1_000_000)
        clock.now += 1
    for second in range(61):
        estimate.update(600_000 + second, 1_000_000)
        clock.now += 1
    assert estimate.left_s == pytest.approx((1_000_000 - 600_060) / 1, rel=0.02)


def test_while_nothing_is_done_it_says_nothing_and_a_stop_makes_it_longer() -> None:
    clock = Clock()
    estimate = Estimate(clock)
    assert estimate.left_s is None
    estimate.update(0, 100)
    clock.now += 30
    assert estimate.left_s is None
    estimate.update(50, 100)
    assert estimate.left_s == 30
    clock.now += 20
    assert estimate.left_s == 50


def test_work_that_turns_out_to_be_more_is_told_as_more() -> None:
    clock = Clock()
    estimate = Estimate(clock)
    estimate.update(0, 100)
    clock.now += 10
    estimate.update(50, 100)
    estimate.update(50, 200)
    assert estimate.left_s == 30
    estimate.update(20, 200)
    assert estimate.left_s is None, "it begins anew"


def test_lines_come_as_often_as_was_asked_for() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines("delivering", "bytes", 5, out, clock)
    for second in range(12):
        lines.update(second * 1_000, 100_000)
        clock.now += 1
    assert out.getvalue().splitlines() == [
        "delivering: 5,000/100,000 bytes (5 %), 2 min left",
        "delivering: 10,000/100,000 bytes (10 %), 2 min left",
    ]


def test_a_line_without_an_estimate_tells_how_far_it_is() -> None:
    clock, out = Clock(), io.StringIO()
    lines = Lines("reading", "bytes", 0, out, clock)
    lines.update(0, 10)
    assert out.getvalue() == "reading: 0/10 bytes (0 %)\n"
