"""`include_unsampled: false`: a sink honours that nobody upstream wants a trace; the journal and other sinks do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from tests.workplace import Workplace
from tracebridge.devserver import DevServer
from tracebridge.policy import Policy, describe, from_description

NOT_WANTED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
LAG_S = 0.05


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    return Workplace(tmp_path, sinks(devserver, include_unsampled=False), delivery="external")


def sinks(server: DevServer, **policy: Any) -> dict[str, Any]:
    keys = {"public_key": server.public_key, "secret_key": server.secret_key}
    reader = {"type": "jaeger", "url": server.url, "visibility_lag": LAG_S}
    return {
        "langfuse": {"host": server.url, "visibility_lag": LAG_S, **keys},
        "otel": {"endpoint": server.url, "reader": reader, "policy": policy},
    }


def record(workplace: Workplace) -> None:
    """A session of five spans, three of them in a trace that nobody wants."""
    tracer = workplace.tracer()
    with tracer.trace_session("s") as session:
        with tracer.trace_turn(session, "unwanted", traceparent=NOT_WANTED), session.tool_call("t"):
            session.log_thinking("hm")
        with tracer.trace_turn(session, "wanted"):
            pass
    tracer.shutdown()


def found(workplace: Workplace, *command: str) -> dict[str, dict[str, Any]]:
    return {one["sink"]: one for one in json.loads(workplace.call(*command, "--json").stdout)}


def test_only_the_sink_that_says_so_leaves_the_trace_out_and_nothing_is_missing(workplace: Workplace) -> None:
    record(workplace)
    assert workplace.call("ship", "--patience", "10").returncode == 0
    verdicts = found(workplace, "validate")
    assert {name: (one["exit_code"], one["expected"], one["equal"]) for name, one in verdicts.items()} == {
        "langfuse": (0, 5, 5),
        "otel": (0, 2, 2),
    }


def test_what_is_left_out_is_accounted_for(workplace: Workplace) -> None:
    record(workplace)
    workplace.call("ship", "--patience", "10")
    told = json.loads(workplace.call("status", "--json").stdout)["sinks"]
    (events,) = [sink["events"] for sink in told if sink["name"] == "otel"]
    assert (events["written"], events["confirmed"], events["left_out"], events["unaccounted"]) == (9, 4, 5, 0)
    assert "left out  5 events by the policy" in workplace.call("status").stdout


def test_what_was_sent_before_the_policy_said_so_is_still_expected(workplace: Workplace, devserver: DevServer) -> None:
    workplace.configure(sinks(devserver), delivery="external")
    record(workplace)
    workplace.call("ship", "--patience", "10")
    workplace.configure(sinks(devserver, include_unsampled=False), delivery="external")
    verdict = found(workplace, "validate")["otel"]
    assert (verdict["exit_code"], verdict["equal"]) == (0, 5)


def test_a_spool_deletes_what_every_sink_shows_that_keeps_it(workplace: Workplace, devserver: DevServer) -> None:
    spool = {"jsonl": {"enabled": False, "spool_keep": 0}, **sinks(devserver, include_unsampled=False)}
    workplace.configure(spool, delivery="external")
    record(workplace)

    def is_removed() -> bool:
        assert workplace.call("ship", "--patience", "10").returncode == 0
        return not list(workplace.trace_dir.glob("session-*"))

    until(is_removed, "the session is removed")


def test_it_is_a_setting_of_sinks_alone(workplace: Workplace, devserver: DevServer) -> None:
    workplace.configure(sinks(devserver), include_unsampled=False)
    told = workplace.call("config", "check")
    assert told.returncode == 1
    assert "agent_trace.include_unsampled: there is no such key" in told.stdout + told.stderr


def test_rules_that_do_not_have_it_are_described_as_they_were_before_there_was_such_a_setting() -> None:
    """The fingerprints of what was sent with them stay the same."""
    described = describe(Policy())
    assert "include_unsampled" not in described
    assert from_description(described) == Policy()
    narrow = Policy(include_unsampled=False)
    assert from_description(describe(narrow)) == narrow
