"""A client for questions, which goes to an address by the same way that spans do, and the answers that it gets."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Final

import httpx

from tracebridge_otlp.answer import MAX_BODY_BYTES
from tracebridge_otlp.body import COMPRESSIONS, pieces_of
from tracebridge_otlp.proxy import proxy_for

_SLOWEST: Final = 5
"""How many time-outs an answer that keeps coming may take."""


def client_for(
    url: str,
    *,
    verify: ssl.SSLContext,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
) -> httpx.Client:
    """Make a client, which follows no redirect; no connection is made yet.

    Raises:
        ConfigurationError: the proxy that the environment names cannot be used.
    """
    return httpx.Client(
        auth=auth,
        verify=verify,
        timeout=timeout,
        headers={"accept-encoding": COMPRESSIONS, **(headers or {})},
        follow_redirects=False,
        proxy=proxy_for(url),
        trust_env=False,
    )


def body_of(response: httpx.Response, *, timeout_s: float, most_bytes: int | None = None) -> bytes:
    """Read the body of an answer, though it may come byte by byte: each read has the time-out for itself.

    Of an error no more is read than can say why, and nothing that cannot be unpacked: its status says enough.

    Raises:
        httpx.HTTPError: it breaks off, has more than `most_bytes`, or is not whole after several time-outs.
    """
    body = bytearray()
    late_at = time.monotonic() + _SLOWEST * timeout_s
    try:
        for piece in pieces_of(response):
            body += piece
            if not response.is_success and len(body) > MAX_BODY_BYTES:
                break  # its status says enough
            if most_bytes is not None and len(body) > most_bytes:
                raise httpx.ReadError(f"more than {most_bytes >> 20} MiB")
            if time.monotonic() > late_at:
                raise httpx.ReadTimeout(f"not whole after {_SLOWEST * timeout_s:g} s")
    except httpx.DecodingError:
        if response.is_success:
            raise
    return bytes(body)
