"""What the entry point names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec

from tracebridge.errors import MissingExtraError
from tracebridge.sink import Capabilities, Reader, Sink
from tracebridge_webhook.configuration import WebhookSettings


class WebhookSinkType:
    """The sink type `webhook`."""

    settings: type[msgspec.Struct] = WebhookSettings
    environment: Mapping[str, Sequence[str]] = {"url": ("WEBHOOK_URL",), "token": ("WEBHOOK_TOKEN",)}
    extra = ""

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        """A webhook takes what it gets: it cannot be read, and does everything twice that it is sent twice."""
        return Capabilities(mapping_version=1, max_request_bytes=1_000_000, max_request_spans=500)

    def endpoint(self, settings: msgspec.Struct) -> str:
        """The address without its query."""
        parts = urlsplit(cast(WebhookSettings, settings).url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        """Open the sink."""
        try:
            from tracebridge_webhook.sink import WebhookSink
        except ImportError as error:
            raise MissingExtraError(f"the webhook sink needs httpx ({error}): pip install httpx") from error
        return WebhookSink(cast(WebhookSettings, settings))

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        """Never called, as `capabilities` says that it cannot be read."""
        raise NotImplementedError("a webhook cannot be read back")


sink_type: Final = WebhookSinkType()
