"""What an address has to be, so that a request can be sent to it."""

from __future__ import annotations

from urllib.parse import urlsplit


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
