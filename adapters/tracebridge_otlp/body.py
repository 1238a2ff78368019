"""Reads the body of an answer as it was before its compression, in pieces of which none is large."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

import httpx

PIECE_BYTES: Final = 1 << 20
"""No piece is larger: what httpx makes of one read, of 64 kB, may have 64 MB, and any size if it was packed twice."""

COMPRESSIONS: Final = "gzip"
"""What an answer may be compressed with, as a client asks for it: of deflate, servers make two things."""

_OTHERS: Final = re.compile(r"\b(?:gzip|deflate|compress|br|zstd|dcb|dcz|exi|aes128gcm)\b")
"""What a body may be packed with, if its header names it alone or with others. Some name the text's encoding there."""

_EITHER_HEADER: Final = zlib.MAX_WBITS | 32


def pieces_of(response: httpx.Response) -> Iterator[bytes]:
    """The body, piece by piece.

    Raises:
        httpx.HTTPError: it breaks off, or is compressed in a way that nobody asked for, or not as it says.
    """
    named = response.headers.get("content-encoding", "").strip().lower()
    if named in ("gzip", "x-gzip", "deflate"):
        yield from _unpacked(response.iter_raw())
    elif not _OTHERS.search(named):
        yield from response.iter_raw()
    else:
        raise httpx.DecodingError(f"the answer's content-encoding is {named!r}, which was not asked for")


def _unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    unpack = zlib.decompressobj(_EITHER_HEADER)
    for piece in packed:
        rest = piece
        try:
            while rest and not unpack.eof:
                yield unpack.decompress(rest, PIECE_BYTES)
                rest = unpack.unconsumed_tail
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None
    yield unpack.flush()
