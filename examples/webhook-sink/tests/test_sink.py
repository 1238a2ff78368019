"""What is posted."""

from __future__ import annotations

import pytest
from receiver import Receiver

from tracebridge.secret import Secret
from tracebridge.sink import Outcome
from tracebridge.span import Span, SpanError
from tracebridge.testing.server import FaultyServer
from tracebridge_webhook.configuration import WebhookSettings
from tracebridge_webhook.sink import WebhookSink

SPAN = Span(
    kind="tool",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    parent_id="00f067aa0ba902b7",
    name="look_up",
    start_ns=1_770_415_800_000_000_000,
    end_ns=1_770_415_800_250_000_000,
    session_id="user-123",
    input={"order": 17},
    status="error",
    error=SpanError(message="no such order"),
)


def test_a_span_is_posted_as_an_event_with_the_token() -> None:
    receiver = Receiver()
    with FaultyServer(receiver.app) as server:
        sink = WebhookSink(WebhookSettings(url=f"{server.url}/events", token=Secret("t0ken")))
        receipt = sink.deliver(sink.join([sink.encode(SPAN)]))
        sink.close()
    assert receipt.outcome is Outcome.ACCEPTED
    assert receiver.tokens == {"Bearer t0ken"}
    assert receiver.events == [
        {
            "id": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "parent": "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7",
            "kind": "tool",
            "name": "look_up",
            "session": "user-123",
            "start": "2026-02-06T22:10:00+00:00",
            "duration_ms": 250.0,
            "input": {"order": 17},
            "status": "error",
            "error": "no such order",
        }
    ]


def test_where_nobody_listens_nothing_was_stored() -> None:
    sink = WebhookSink(WebhookSettings(url="http://127.0.0.1:9/events"))
    assert sink.deliver(b"[]").outcome is Outcome.RETRY
    sink.close()


@pytest.mark.parametrize("url", ["events", "ftp://host/events", "https://", "https://me:secret@host/events"])
def test_an_address_that_cannot_be_posted_to_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected http"):
        WebhookSettings(url=url)
