from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import pytest

from tests.otlp.scripted_server import answering, http_answer, scripted_server
from tracebridge.sink import Outcome
from tracebridge_otlp.http_transport import HttpTransport

OK = http_answer(200, "application/x-protobuf")


class OutsideOfARequest(logging.Handler):
    """As one that looks for the current web request."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("Working outside of request context")


@pytest.fixture(params=[logging.INFO, logging.DEBUG])
def raising_log(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[logging.Handler]:
    root, handler = logging.getLogger(), OutsideOfARequest()
    root.addHandler(handler)
    # a command that ships has set that of httpx, if one ran before
    with caplog.at_level(request.param), caplog.at_level(request.param, "httpx"):
        yield handler
    root.removeHandler(handler)


@pytest.mark.usefixtures("raising_log")
def test_a_log_of_the_agent_that_raises_breaks_no_request_off() -> None:
    with (
        scripted_server(answering(OK)) as url,
        HttpTransport(url, headers={}, timeout_s=5.0, compression="none") as http,
    ):
        assert http.post(b"spans").outcome is Outcome.ACCEPTED


def test_the_agents_own_requests_are_told_as_before(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "httpx"),  # which a command that ships has set, if one ran before
        scripted_server(answering(OK)) as url,
        HttpTransport(url + "/ours", headers={}, timeout_s=5.0, compression="none") as http,
    ):
        http.post(b"spans")
        httpx.get(url + "/theirs")

    [told] = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert "/theirs" in told
