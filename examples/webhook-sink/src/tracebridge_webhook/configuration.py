"""The settings of a `webhook` sink. An agent's process imports this to read its configuration: no httpx here."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from tracebridge.secret import Secret


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the sink in the YAML file."""

    url: str
    """Where to post to. It is shown in logs, so it should hold nothing secret."""
    token: Secret = Secret("")
    """Sent as `Authorization: Bearer ...`."""
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Seconds that one request may take."""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError("url: expected http://host/path or https://host/path, without credentials")
