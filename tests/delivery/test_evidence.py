"""`Evidence`: what was compared and decided is kept, and replaced only by what is newer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.state import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state.sqlite")
    yield state
    state.close()


def compared(session: str, **fields: int) -> Compared:
    known: dict[str, Any] = {"folder": 1, "compared_ns": 5, "size": 100, "spans": 3, "defects": 0, **fields}
    return Compared(session=session, rules="r", **known)


def test_what_was_compared_is_kept_for_each_backend_and_replaced_by_what_is_newer(state: State) -> None:
    here, there = state.target("langfuse", "here"), state.target("langfuse", "there")
    first = state.evidence.begin(here, '{"sample":1}')
    state.evidence.add(here, first, [compared("a", defects=2), compared("b")])
    state.evidence.end(first, '{"exit_code":1}')
    second = state.evidence.begin(here, "{}")
    state.evidence.add(here, second, [compared("a", size=120)])

    assert state.evidence.compared(here) == [compared("a", size=120), compared("b")]
    assert state.evidence.compared(here, first) == [compared("b")]
    assert state.evidence.compared(there) == []
    assert [(one.scope, one.summary, one.ended_ns > 0) for one in state.evidence.validations(here)] == [
        ("{}", "", False),
        ('{"sample":1}', '{"exit_code":1}', True),
    ]


def test_under_which_earlier_rules_something_was_sent_is_kept(state: State) -> None:
    target = state.target("langfuse", "here")
    earlier, narrowed_by = ("0123456789ab", "ba9876543210"), ("include_messages", "max_content_length")
    one = msgspec.structs.replace(compared("a"), earlier=earlier, is_cut=True, narrowed_by=narrowed_by)
    state.evidence.add(target, state.evidence.begin(target, "{}"), [one])
    assert state.evidence.compared(target) == [one]


def test_a_comparison_is_current_as_long_as_nothing_was_written_and_the_rules_are_the_same() -> None:
    one = compared("a", size=120, defects=2, compared_ns=5)
    assert one.is_current(120, 5, "r")
    assert not one.is_current(121, 5, "r")
    assert not one.is_current(119, 5, "r"), "the file was replaced, or cut"
    assert not one.is_current(120, 6, "r"), "it was changed in its place"
    assert not one.is_current(120, 5, "others")


def test_what_is_known_of_a_backend_or_a_folder_goes_with_it_and_decisions_stay(state: State, tmp_path: Path) -> None:
    target, folder = state.target("langfuse", "here"), state.folder(tmp_path)
    other = state.folder(tmp_path / "other")
    validation = state.evidence.begin(target, "{}")
    state.evidence.add(target, validation, [compared("a", folder=folder), compared("b", folder=other)])
    state.evidence.decide("ada", "advance", '{"off":"jsonl"}')

    state.forget_folder(other)
    assert [one.session for one in state.evidence.compared(target)] == ["a"]
    state.forget_session(folder, "a", "")
    assert state.evidence.compared(target) == [], "what was deleted is owed to nobody"
    state.forget_target(target)
    assert state.evidence.validations(target) == []
    assert [msgspec.structs.replace(step, at_ns=0) for step in state.evidence.steps()] == [
        msgspec.structs.replace(
            state.evidence.steps()[0], at_ns=0, who="ada", action="advance", record='{"off":"jsonl"}'
        )
    ]
