"""What holds follows from the facts alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.config import Demands
from tracebridge.migration.conditions import Facts, conditions_for, narrowings
from tracebridge.policy import Policy, is_wider

NOW = 1_800_000_000_000_000_000
HOUR = 3_600_000_000_000

GOOD = {
    "sink": "langfuse",
    "now_ns": NOW,
    "is_readable": True,
    "policy": Policy(),
    "replaced": Policy(),
    "owed": 120,
    "clean": 120,
    "first_ns": NOW - 50 * HOUR,
    "last_ns": NOW - HOUR,
    "validated_ns": NOW - HOUR,
}

policies = st.builds(
    Policy,
    sample_rate=st.sampled_from([0.1, 0.5, 1.0]),
    include_messages=st.booleans(),
    include_thinking=st.booleans(),
    max_content_length=st.sampled_from([None, 10, 100]),
)


def failing(**changes: object) -> list[str]:
    facts = Facts(**{**GOOD, **changes})  # type: ignore[arg-type]
    return [condition.name for condition in conditions_for(facts, Demands()) if not condition.holds]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"owed": 99, "clean": 99}, ["sessions"]),
        ({"owed": 100, "clean": 100}, []),
        ({"clean": 119, "uncompared": 1}, ["compared"]),
        ({"first_ns": NOW - 25 * HOUR, "last_ns": NOW - HOUR}, []),
        ({"first_ns": NOW - 25 * HOUR + 1_000_000_000, "last_ns": NOW - HOUR}, ["days"]),
        ({"validated_ns": NOW - 24 * HOUR}, []),
        ({"validated_ns": NOW - 25 * HOUR}, ["fresh"]),
        ({"validated_ns": 0}, ["fresh"]),
        ({"validated_ns": NOW + 60_000_000_000}, []),
        ({"validated_ns": NOW + 61_000_000_000}, ["fresh"]),
        ({"oldest_ns": NOW - 60_000_000_000}, []),
        ({"oldest_ns": NOW - 61_000_000_000}, ["pending"]),
        ({"oldest_ns": NOW + 60_000_000_000}, []),
        ({"oldest_ns": NOW + 61_000_000_000}, ["pending"]),
        ({"dead": 1}, ["dead"]),
        ({"paused": "HTTP 401"}, ["paused"]),
        ({"gone": ("/old",)}, ["folders"]),
        ({"apart": ("/traces/session-a/events.jsonl.1",)}, ["folders"]),
        ({"cuts": ("attributes-cut-at-2048-bytes",)}, ["content"]),
        ({"is_cut_earlier": True}, ["content"]),
        ({"narrowed_by": ("max_content_length",)}, ["policy"]),
        ({"earlier": (Policy(), Policy(max_content_length=10))}, ["policy"]),
        ({"earlier": (Policy(include_messages=False),), "replaced": Policy(include_messages=False)}, []),
        ({"earlier": (Policy(sample_rate=0.1, include_unsampled=False),)}, []),
        ({"is_readable": False}, ["readable"]),
        ({"owed": 0, "clean": 0, "first_ns": 0, "last_ns": 0}, ["sessions", "days"]),
    ],
)
def test_each_condition_holds_up_to_its_limit(changes: dict[str, object], names: list[str]) -> None:
    assert failing(**changes) == names


@given(policies, policies)
def test_law_narrowings_are_named_exactly_where_something_would_be_left_out(stays: Policy, replaced: Policy) -> None:
    named = narrowings(stays, replaced)
    assert bool(named) is is_wider(replaced, stays)
    assert failing(policy=stays, replaced=replaced) == (["policy"] if named else [])
    facts = Facts(**{**GOOD, "policy": stays, "replaced": replaced})  # type: ignore[arg-type]
    assert all(condition.holds for condition in conditions_for(facts, Demands(), named))


def test_when_the_clock_was_set_back_what_lies_ahead_is_neither_fresh_nor_just_recorded() -> None:
    facts = Facts(**{**GOOD, "validated_ns": NOW + 3 * HOUR, "oldest_ns": NOW + 2 * HOUR})  # type: ignore[arg-type]
    said = {one.name: one.value for one in conditions_for(facts, Demands()) if not one.holds}
    assert said == {
        "fresh": "the newest validation ended 3 h from now: the clock was set back",
        "pending": "the oldest that waits was written 2 h from now: the clock was set back",
    }


def test_what_does_not_hold_names_a_command_and_what_holds_names_none() -> None:
    bad = {"owed": 3, "clean": 0, "dead": 2, "paused": "x", "validated_ns": 0, "gone": ("/a b",), "oldest_ns": 1}
    facts = Facts(**{**GOOD, **bad, "replaced": Policy(), "policy": Policy(include_messages=False)})  # type: ignore[arg-type]
    for condition in conditions_for(facts, Demands()):
        assert bool(condition.command) is not condition.holds, condition


def test_content_that_is_cut_is_accepted_by_the_name_of_the_loss_and_by_no_other() -> None:
    facts = Facts(**{**GOOD, "cuts": ("cut-a", "cut-b")})  # type: ignore[arg-type]
    for accepted, said in (
        (("cut-a", "policy"), "content is cut: cut-b; cut-a accepted"),
        (("cut-a", "cut-b"), "cut-a, cut-b accepted"),
    ):
        (content,) = [one for one in conditions_for(facts, Demands(), accepted) if one.name == "content"]
        assert (content.holds, content.value) == (said.startswith("cut-a"), said)
