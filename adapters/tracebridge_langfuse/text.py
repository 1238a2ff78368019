"""Names, ids and messages as LangFuse can store and index them: without lone surrogates and NUL."""

from __future__ import annotations

from tracebridge_langfuse import exact


def plain(text: str) -> str:
    """`text` with U+FFFD for each character that LangFuse cannot store."""
    return text if is_plain(text) else str(exact.sendable(text.replace("\x00", "\ufffd")))


def is_plain(text: str) -> bool:
    """Whether `plain` leaves `text` as it is. Of joined texts: whether it leaves each of them."""
    return "\x00" not in text and not exact.has_surrogate(text)
