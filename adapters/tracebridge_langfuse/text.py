"""Texts as LangFuse can store and index them: names, ids and messages, and those that are metadata values."""

from __future__ import annotations

import re
from typing import Final

from tracebridge_langfuse import exact

REPLACEMENT: Final = "\ufffd"
"""What stands for a character that LangFuse cannot store."""

_LOOKED_INTO: Final = '{[" '
_BEGINS_SCALARS: Final = "-0123456789tfn"
_SCALAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")


def plain(text: str) -> str:
    """`text` with U+FFFD for each character that LangFuse cannot store."""
    return text if is_plain(text) else str(exact.sendable(text.replace("\x00", REPLACEMENT)))


def reads_as_itself(text: str) -> bool:
    """Whether the server, which reads each metadata value as JSON if it can, gives `text` back as it is.

    False where that is not certain at first sight.
    """
    first = text[:1]  # nothing, which is in every text, is looked into as well
    if first in _LOOKED_INTO or not text.isprintable():
        return False
    return first not in _BEGINS_SCALARS or _SCALAR.fullmatch(text.rstrip(" ")) is None


def is_plain(text: str) -> bool:
    """Whether `plain` leaves `text` as it is. Of joined texts: whether it leaves each of them."""
    return "\x00" not in text and not exact.has_surrogate(text)
