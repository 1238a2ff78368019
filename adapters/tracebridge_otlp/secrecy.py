"""Keeps credentials out of messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit, urlunsplit

from tracebridge.errors import ConfigurationError

MASK = "***"
CUT = "…"
"""What stands at the end of a text that was cut."""
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SHORTEST_SECRET = 4
"""Shorter header values (`1`, `4`) are no secrets, and masking them would garble every message."""


class Redactor:
    """Masks, in any text, the header values and the user part of the URL that a transport sends with.

    A backend may well quote the credentials that it refuses.
    """

    def __init__(self, header_values: Iterable[str], url: str) -> None:
        """Take everything that must not be shown."""
        secrets: set[str] = set()
        for value in header_values:
            # of `Basic dXNlcjpwYXNz` the second word alone is the secret
            secrets.update((value, value.rpartition(" ")[2]))
        parts = urlsplit(url)
        secrets.update(filter(None, (parts.username, parts.password)))
        self._secrets = sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return `text` with every secret masked, also one of which only the beginning is left where a text was cut."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        if not text.endswith(CUT):
            return text
        rest = text.removesuffix(CUT)
        left = max((_beginning_at_end(rest, secret) for secret in self._secrets), default=0)
        return f"{rest[:-left]}{MASK}{CUT}" if left else text


def _beginning_at_end(text: str, secret: str) -> int:
    """How many of a secret's first characters stand at the end of a text, if they are enough to matter."""
    lengths = range(len(secret) - 1, _SHORTEST_SECRET - 1, -1)
    return next((length for length in lengths if text.endswith(secret[:length])), 0)


def header_fields(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by lower-case name, each fit to be sent.

    Raises:
        ConfigurationError: a name is no header's, or a value is not printable ASCII. The message does not tell
            either.
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            # `Authorization: Basic …=` in a variable that wants `Authorization=Basic …` makes a name of a credential
            raise ConfigurationError(
                "a header has a name that no header can have, such as one with a space or a colon in it: correct it"
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"the header {name!r} holds what no header can carry, such as a line break: correct its value"
            )
    return {name.lower(): value for name, value in headers.items()}


def without_credentials(url: str) -> str:
    """Return a URL fit to be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
