"""What is recorded of an exception."""

from __future__ import annotations

from tracebridge import jsonvalue


def failure_of(exception: BaseException | None) -> dict[str, str] | None:
    """Return the `error` entry of an event: the exception's type and message.

    None when nothing went wrong: the end of a generator and an exit with success leave a block by an
    exception too.
    """
    if exception is None or isinstance(exception, GeneratorExit):
        return None
    if isinstance(exception, SystemExit) and exception.code in (None, 0):
        return None
    return {"type": type(exception).__qualname__, "message": jsonvalue.text(exception)}
