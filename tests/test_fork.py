"""Hooks around a fork: in a defined order, none of them lost to another's error, and gone with their object."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from tests.forking import in_child
from tracebridge import fork
from tracebridge.fork import call_around_fork, call_in_forked_child

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Told:
    def __init__(self, name: str, log: list[str], *, fails: bool = False) -> None:
        self.name, self.log, self.fails = name, log, fails
        call_around_fork(before=self.before, in_parent=self.in_parent, in_child=self.in_child)

    def before(self) -> None:
        self.note("before")

    def in_parent(self) -> None:
        self.note("parent")

    def in_child(self) -> None:
        self.note("child")

    def note(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        if self.fails:
            raise RuntimeError("a defect of a hook")


def log_of_child(log: list[str]) -> list[str]:
    """Fork, and return what the child's log holds."""
    return in_child(lambda: "\n".join(log)).splitlines()


@pytest.fixture(autouse=True)
def _none_of_another_test() -> None:
    """The hooks of an object that is not collected yet are called still."""
    gc.collect()


def test_hooks_are_called_around_a_fork_in_order() -> None:
    log: list[str] = []
    objects = [Told("a", log), Told("b", log)]
    assert log_of_child(log) == ["before b", "before a", "child a", "child b"]
    assert log == ["before b", "before a", "parent a", "parent b"]
    assert len(objects) == 2


def test_an_error_in_a_hook_keeps_no_other_from_being_called(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: unraisable.append(str(error.exc_value)))
    log: list[str] = []
    objects = [Told("a", log), Told("b", log, fails=True), Told("c", log)]
    assert log_of_child(log) == [f"before {name}" for name in "cba"] + [f"child {name}" for name in "abc"]
    assert log[3:] == ["parent a", "parent b", "parent c"]
    assert unraisable == ["a defect of a hook"] * 2, "and it is shown as Python shows such errors"
    # whoever still holds it, no fork of another test must fail by it
    objects[1].fails = False
    assert len(objects) == 3


def test_hooks_go_with_their_object_and_do_not_keep_it() -> None:
    log: list[str] = []
    told = weakref.ref(Told("gone", log))
    gc.collect()
    assert told() is None
    before = len(fork._HOOKS._entries)
    for _ in range(100):
        call_in_forked_child(Told("gone too", log).in_child)
    gc.collect()
    assert len(fork._HOOKS._entries) <= before + 2, "they do not accumulate"
    assert log_of_child(log) == []
