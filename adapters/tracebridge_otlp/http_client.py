"""A client for questions: it goes to an address by the same way that spans do."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx

from tracebridge_otlp.proxy import proxy_for


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
        headers=headers,
        follow_redirects=False,
        proxy=proxy_for(url),
        trust_env=False,
    )
