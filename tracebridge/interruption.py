"""Tells what a signal handler of the agent has raised, and is the agent's to hear, from what went wrong here."""

from __future__ import annotations

from itertools import pairwise
from types import FrameType
from typing import Final

_VARARGS: Final = 0x04  # `inspect.CO_VARARGS`, without the time that importing it takes


def is_interruption(error: BaseException) -> bool:
    """Whether a signal handler raised `error` while one of our calls was at work.

    Such a handler ends what the agent is doing, as the soft time limits of task queues do, and its exception may be of
    any type. Python calls it with the signal's number and the frame that it interrupts.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
        if _is_handler(trace.tb_frame):
            return True
    return False


def _is_handler(called: FrameType) -> bool:
    # not the frame before it in the trace: Python takes those of an import out
    interrupted = called.f_back
    code, known = called.f_code, called.f_locals
    arguments = [known.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & _VARARGS:
        rest = known.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        # the function may have put anything else in its place
        arguments += rest if type(rest) is tuple else ()
    return interrupted is not None and any(
        type(number) is int and frame is interrupted for number, frame in pairwise(arguments)
    )
