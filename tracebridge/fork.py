"""What must be done in the child when a process forks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def call_in_forked_child(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child of this process, as long as its object is alive."""
    # such a hook cannot be taken back, so it must not keep the object
    reference = weakref.WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=call)
