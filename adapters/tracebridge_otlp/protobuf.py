"""The few forms of protobuf's wire format that OTLP spans are made of.

See https://protobuf.dev/programming-guides/encoding/. A tag is a field's number << 3, with the form of the
field in its last three bits: 0 for a varint, 1 for eight bytes, 2 for what is preceded by its length.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import Final

fixed64: Final = Struct("<Q").pack
double: Final = Struct("<d").pack


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """Encode a number from 0 to 2**64 - 1, seven bits to a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def sized(tag: bytes, payload: bytes) -> bytes:
    """Make a field of `payload`, which is a message, a text or bytes."""
    return tag + varint(len(payload)) + payload


def sized_unless_empty(tag: bytes, payload: bytes) -> bytes:
    """Make a field of `payload`; nothing where it is empty, which is what a reader takes a missing field for."""
    return sized(tag, payload) if payload else b""


def head(tag: bytes, pieces: Iterable[bytes]) -> bytes:
    """Return what goes before `pieces`, so that they become one field without being copied for it."""
    return tag + varint(sum(map(len, pieces)))


def utf8(text: str) -> bytes:
    """Encode a text; a lone surrogate becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
