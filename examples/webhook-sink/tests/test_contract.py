"""The sink keeps tracebridge's sink contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from receiver import Receiver

from tracebridge.secret import Secret
from tracebridge.testing.contract import BackendUnderTest, SinkContract
from tracebridge.testing.server import FaultyServer
from tracebridge_webhook.configuration import WebhookSettings
from tracebridge_webhook.factory import sink_type


class TestWebhook(SinkContract):
    """All cases of the contract; the receiver's fault injector strikes at its socket."""

    @pytest.fixture
    def backend(self) -> Iterator[BackendUnderTest]:
        """A receiver of its own for each test."""
        receiver = Receiver()
        with FaultyServer(receiver.app) as server:
            yield BackendUnderTest(
                sink_type=sink_type,
                settings=WebhookSettings(url=f"{server.url}/events", token=Secret("token-of-the-test"), timeout=1.0),
                faults=server.faults,
                stored=receiver.ids,
                timeout_s=1.0,
                unsupported={"partial": "a webhook takes all of a request or nothing"},
                vendor_packages=("httpx",),
            )
