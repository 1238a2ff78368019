"""A sink that is called otherwise, or reaches its backend by another address, and is then as it was before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.workplace import Workplace, answer_of, langfuse, otel
from tracebridge.devserver import DevServer


def deliver(workplace: Workplace, sinks: dict[str, Any], *session_ids: str) -> None:
    """Record sessions, all with a run of the same one, and ship them."""
    workplace.configure(sinks, delivery="external")
    for session_id in (*session_ids, "always"):
        workplace.record(session_id)
    shipped = workplace.call("ship")
    assert shipped.returncode == 0, shipped.stderr


def sinks_of(way: str, server: DevServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a sink is called and reaches its backend, and how it does so for a while."""
    by_name = server.url.replace("127.0.0.1", "localhost")
    return {
        "another name": ({"langfuse": langfuse(server)}, {"second": langfuse(server, type="langfuse")}),
        "another address": ({"langfuse": langfuse(server)}, {"langfuse": langfuse(server, host=by_name)}),
        "gRPC": (
            {"otel": otel(server)},
            {"otel": otel(server, endpoint=f"http://{server.grpc_endpoint}", protocol="grpc")},
        ),
    }[way]


@pytest.mark.parametrize("way", ["another name", "another address", "gRPC"])
def test_a_sink_that_is_as_it_was_before_sends_nothing_again_that_it_sent_meanwhile(
    way: str, tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "here")
    usual, other = sinks_of(way, devserver)
    deliver(workplace, usual, "first")
    deliver(workplace, other, "second")
    deliver(workplace, other, "third")
    deliver(workplace, usual, "fourth")
    deliver(workplace, usual, "fifth")
    (name,) = usual
    shown = Counter(span.session_id for span in workplace.observed(name))
    assert shown == {"always": 10, "first": 2, "second": 2, "third": 2, "fourth": 2, "fifth": 2}
    (events,) = [
        sink["events"] for sink in answer_of(workplace.call("status", "--json"))["sinks"] if sink["name"] == name
    ]
    assert (events["written"], events["confirmed"], events["unaccounted"]) == (40, 40, 0)


def test_a_sink_that_was_pointed_elsewhere_brings_its_backend_what_was_recorded_meanwhile(
    tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "here")
    with DevServer() as elsewhere:
        deliver(workplace, {"langfuse": langfuse(devserver)}, "first")
        deliver(workplace, {"langfuse": langfuse(elsewhere)}, "second")
        deliver(workplace, {"langfuse": langfuse(devserver)}, "third")
    shown = Counter(span.session_id for span in workplace.observed("langfuse"))
    assert shown == {"always": 6, "first": 2, "second": 2, "third": 2}
