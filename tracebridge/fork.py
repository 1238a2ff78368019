"""What must be done when the process forks: before it in the parent, and after it in the child and in the parent."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

Method = Callable[[], None]


def call_in_forked_child(method: Method) -> None:
    """Call a bound method in every forked child of this process, as long as its object is alive.

    Methods are called in the order in which they were given.
    """
    _HOOKS.add(None, None, method)


def call_around_fork(*, before: Method, in_parent: Method, in_child: Method) -> None:
    """Call an object's bound methods around every fork of this process, as long as the object is alive.

    All `before` are called in the reverse of the order in which they were given, the others in that order. The thread
    that forks waits for them.
    """
    _HOOKS.add(before, in_parent, in_child)


class _Lineage:
    """The place of this process among those that were forked from one another."""

    __slots__ = ("__weakref__", "generation")

    def __init__(self) -> None:
        self.generation = 0
        """How many forks lie between this process and the one that imported this."""

    def in_child(self) -> None:
        self.generation += 1


class _Hooks:
    """The one set of hooks that Python is given, as it never takes one back; none keeps its object alive."""

    def __init__(self) -> None:
        # reentrant, as a signal handler may make a tracer while one is made
        self._lock = threading.RLock()
        self._entries: tuple[tuple[weakref.WeakMethod[Method] | None, ...], ...] = ()

    def add(
        self, before: Method | None = None, in_parent: Method | None = None, in_child: Method | None = None
    ) -> None:
        methods = (before, in_parent, in_child)
        entry = tuple(None if method is None else weakref.WeakMethod(method) for method in methods)
        with self._lock:
            # replaced as a whole: a fork may read it at any moment, in whatever thread
            alive = [one for one in self._entries if any(method is not None and method() for method in one)]
            self._entries = (*alive, entry)

    def before(self) -> None:
        with ExitStack() as calls:
            for method in self._alive(0):
                calls.callback(method)

    def in_parent(self) -> None:
        with ExitStack() as calls:
            for method in reversed(list(self._alive(1))):
                calls.callback(method)

    def in_child(self) -> None:
        self._lock = threading.RLock()
        with ExitStack() as calls:
            for method in reversed(list(self._alive(2))):
                calls.callback(method)

    def _alive(self, place: int) -> Iterator[Method]:
        for entry in self._entries:
            reference = entry[place]
            method = None if reference is None else reference()
            if method is not None:
                yield method


_HOOKS = _Hooks()
os.register_at_fork(before=_HOOKS.before, after_in_parent=_HOOKS.in_parent, after_in_child=_HOOKS.in_child)

LINEAGE: Final = _Lineage()
"""Tells what was made before a fork from what was made after it, for less than asking the system costs."""
call_in_forked_child(LINEAGE.in_child)
