"""What it means to copy a handle: a session, a turn, a call or a tracer, as a part of whatever an agent copies.

What it stands for happens once, in one process. So a copy in that process is the handle itself, and none is made for
another process.
"""

from __future__ import annotations

from typing import NoReturn, Self, SupportsIndex


class Handle:
    """What an agent holds of something that is being recorded."""

    __slots__ = ()

    def __copy__(self) -> Self:
        """What is recorded through a copy belongs to the same run."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """The same."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Say what to do instead.

        Raises:
            TypeError: always, as Python does for what cannot be pickled.
        """
        raise TypeError(
            f"a {type(self).__name__} of tracebridge stays in the process that made it and cannot be pickled: "
            "pass the session's `session_id`, and open the session there with `trace_session`"
        )
