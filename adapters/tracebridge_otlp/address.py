"""What an address has to be, so that a request can be sent to it, and what has room in one."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

_LONGEST_IN_URL: Final = 4_000
"""Servers take lines of 16 KB and more, and what stands before them often less than 8."""


def is_http_url(text: str) -> bool:
    """Whether a text is the URL of a server: `http` or `https`, a host, and no port or one that there can be.

    A space or a line break, as a secret's file has at its end, is in no URL.
    """
    if " " in text or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def has_room_in_url(text: str) -> bool:
    """Whether a text may be a parameter of a URL that whatever stands on the way takes."""
    return len(quote(text)) <= _LONGEST_IN_URL
