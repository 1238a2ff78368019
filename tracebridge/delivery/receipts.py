"""What a sink's answer comes to: a `Receipt` that can be acted on and written down, whatever the plug-in gives."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

import msgspec

from tracebridge.line import one_line
from tracebridge.sink import Outcome, Receipt

_LONGEST: Final = 1_000
"""In characters: every dead letter keeps the reason."""


def receipt_of(future: Future[Receipt]) -> Receipt:
    """The answer to a request that is over; UNKNOWN if the sink raised, or gave what is no `Receipt`."""
    error = future.exception()
    if error is not None:
        return _unknown(words_of(error))
    given: object = future.result()
    if not isinstance(given, Receipt):
        return _unknown(f"the sink gave no Receipt but {type(given).__name__}")
    fields = msgspec.structs.asdict(given)
    try:
        return msgspec.convert({**fields, "message": writable(_text_of(given.message or ""))}, Receipt)
    except msgspec.ValidationError as mistake:
        return _unknown(f"the sink gave a Receipt that means nothing: {mistake}")


def words_of(error: BaseException) -> str:
    """What an exception is, and what it says."""
    return writable(f"{type(error).__name__}: {_text_of(error)}")


def writable(text: str) -> str:
    """A text as it can be written down, in one line of a log too, whatever a plug-in has put into it."""
    text = one_line(text[:_LONGEST])
    # halves of characters, which no encoding has, become question marks
    return text.encode(errors="replace").decode()


def _text_of(given: object) -> str:
    try:
        return str(given)
    except Exception as error:  # the plug-in's
        return f"(it cannot be told: {type(error).__name__})"


def _unknown(message: str) -> Receipt:
    return Receipt(outcome=Outcome.UNKNOWN, message=message)
