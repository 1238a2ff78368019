"""`visible`: text of which every character can be seen, so that no content can hide, or change how the rest looks."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ASCII: Final = re.compile(r"[\n\t -~]*")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
_KEPT: Final = frozenset(" \n\t")


def visible(text: str, kept: frozenset[str] = _KEPT) -> str:
    r"""Write what cannot be seen as an escape: control and format characters, odd spaces, lone surrogates.

    `kept` stays as it is. What comes out can be encoded, and is legal in XML.
    """
    if _ASCII.fullmatch(text) and kept is _KEPT:
        return text
    return "".join(
        character if character in kept or unicodedata.category(character) not in _INVISIBLE else _escape(character)
        for character in text
    )


def in_one_line(text: str) -> str:
    """The same without line breaks and tabs."""
    return visible(text, frozenset(" "))


def _escape(character: str) -> str:
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
