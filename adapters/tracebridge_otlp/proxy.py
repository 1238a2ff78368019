"""The proxy that the environment names for an address: one answer for whoever sends, reads back, or looks around."""

from __future__ import annotations

import urllib.request
from importlib.util import find_spec

import httpx

from tracebridge.errors import ConfigurationError
from tracebridge_otlp.secrecy import without_credentials


def proxy_for(url: str) -> httpx.Proxy | None:
    """The proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name for this address.

    A client that is given it MUST be told not to read the environment itself: httpx refuses to be made where
    `NO_PROXY` has an IPv6 address in brackets, whatever it is made for.

    Raises:
        ConfigurationError: it cannot be used.
    """
    address = proxy_address(url)
    if not address:
        return None
    if address.startswith("socks") and find_spec("socksio") is None:
        raise ConfigurationError(
            f"the environment names the SOCKS proxy {without_credentials(address)}, for which a package is missing: "
            "pip install 'httpx[socks]'"
        )
    try:
        return httpx.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(f"the proxy that the environment names cannot be used: {error}") from None


def proxy_address(url: str) -> str:
    """The proxy as the environment has it; empty where it names none, or exempts the host."""
    target = httpx.URL(url)
    named = urllib.request.getproxies()
    address = named.get(target.scheme) or named.get("all") or ""
    # an IPv6 address stands in NO_PROXY with brackets or, as a rule, without
    is_exempt = any(map(urllib.request.proxy_bypass, (target.netloc.decode(), target.host)))
    return "" if is_exempt else address
