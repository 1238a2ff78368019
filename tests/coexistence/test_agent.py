"""One agent with OpenTelemetry, the langfuse SDK and tracebridge: what reaches whose backend."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.workplace import Workplace, environment, langfuse, otel
from tracebridge.devserver import DevServer

AGENT = Path(__file__).with_name("agent.py")
NAMES = ("host", "sdk", "first", "second")
OF_THE_AGENT = {"session": 1, "turn": 1, "llm": 1, "tool": 1}
"""How many spans tracebridge makes of the agent's work, of each kind."""


class Meeting:
    """What an agent said at its end, and what four backends hold then."""

    def __init__(self, said: dict[str, Any], folder: Path) -> None:
        self.said = said
        self._folder = folder

    def observations(self, backend: str) -> Counter[str]:
        """The names of the observations that the LangFuse side holds."""
        return self._names(backend, "observation")

    def spans(self, backend: str) -> Counter[str]:
        """The names of the spans that came over OTLP."""
        return self._names(backend, "span")

    def _names(self, backend: str, table: str) -> Counter[str]:
        with closing(sqlite3.connect(self._folder / f"{backend}.sqlite")) as database:
            return Counter(name for (name,) in database.execute(f"SELECT name FROM {table}"))


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meeting]:
    folder = tmp_path_factory.mktemp("meeting")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(DevServer(db=folder / f"{name}.sqlite", grpc_port=0)) for name in NAMES}
        first, second = servers["first"], servers["second"]
        work = Workplace(
            folder / "work",
            {
                "langfuse": langfuse(first),
                "other": langfuse(second) | {"type": "langfuse"},
                "otel": otel(first),
                "over-grpc": otel(second)
                | {"type": "otel", "protocol": "grpc", "endpoint": f"http://{second.grpc_endpoint}"},
            },
        )
        variables = {
            "HOST_URL": servers["host"].url,
            "HOST_GRPC": str(servers["host"].grpc_endpoint),
            "LANGFUSE_SDK_URL": servers["sdk"].url,
            "PUBLIC_KEY": first.public_key,
            "SECRET_KEY": first.secret_key,
        }
        ran = subprocess.run(
            [sys.executable, AGENT, work.config],
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        yield Meeting(json.loads(ran.stdout), folder)


def test_the_hosts_tracer_provider_stays_the_hosts(meeting: Meeting) -> None:
    assert meeting.said["provider_is_the_hosts"]


def test_the_hosts_backend_holds_the_hosts_spans_and_no_request_of_tracebridges(meeting: Meeting) -> None:
    instrumented = meeting.said["instrumented"]
    assert {"httpx", "requests", "grpc"} <= set(instrumented)
    http = len(set(instrumented) - {"grpc"})
    # the langfuse SDK joins the host's provider, so that its spans go to the host's backend too
    expected = {"host-outer": 1, "host-request": 1, "observed-by-the-sdk": 1, "GET": http, "/host.Service/Call": 1}
    assert meeting.spans("host") == expected


def test_the_langfuse_sdks_backend_holds_what_the_sdk_observed(meeting: Meeting) -> None:
    assert meeting.observations("sdk") == {"observed-by-the-sdk": 1}
    assert meeting.spans("sdk") == {}


@pytest.mark.parametrize("backend", ["first", "second"])
def test_tracebridges_backends_hold_the_agents_spans_each_once_and_nobody_elses(meeting: Meeting, backend: str) -> None:
    """Two LangFuse sinks have one public key here, for which the SDK would have one client and one host."""
    count = sum(OF_THE_AGENT.values())
    for names in (meeting.observations(backend), meeting.spans(backend)):
        assert names.total() == count, names
        assert not {name for name in names if "host" in name or "observed" in name or "GET" in name or "POST" in name}


def test_everything_was_delivered_and_can_be_read_back(meeting: Meeting) -> None:
    assert meeting.said["left"] == 0
    count = sum(OF_THE_AGENT.values())
    assert meeting.said["shown"] == dict.fromkeys(("langfuse", "other", "otel", "over-grpc"), count)
    assert meeting.said["threads"] == []
