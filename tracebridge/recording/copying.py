"""What it means to copy a handle: a session, a turn, a call or a tracer, as a part of whatever an agent copies.

What it stands for happens once, in one process. So a copy in that process is the handle itself, and none is made for
another process.
"""

from __future__ import annotations

from typing import NoReturn, SupportsIndex, TypeVar

Handle = TypeVar("Handle")


def itself(handle: Handle, memo: object = None) -> Handle:
    """As `__copy__` and as `__deepcopy__`: what is recorded through a copy belongs to the same run."""
    return handle


def refused(handle: object, protocol: SupportsIndex) -> NoReturn:
    """As `__reduce_ex__`: say what to do instead.

    Raises:
        TypeError: always, as Python does for what cannot be pickled.
    """
    raise TypeError(
        f"a {type(handle).__name__} of tracebridge stays in the process that made it and cannot be pickled: "
        "pass the session's `session_id`, and open the session there with `trace_session`"
    )
