"""The example of correlation as it is: an agent, two services behind its tool, a real Jaeger, one trace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.langfuse.conftest import settings_of
from tests.servers.jaeger import Jaeger, running_jaeger
from tests.servers.running import answers, free_ports
from tests.waiting import until
from tests.workplace import COMMAND_TIMEOUT_S, ROOT, environment
from tracebridge.devserver import DevServer
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_langfuse.reader import LangfuseReader

pytestmark = pytest.mark.real_server

EXAMPLE = ROOT / "examples" / "correlation"
PAGE = ROOT / "docs" / "correlation.md"
Found = dict[str, Any]


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[Jaeger]:
    with running_jaeger(tmp_path / "jaeger") as started:
        yield started


@contextmanager
def running(program: str, *arguments: str, **variables: str) -> Iterator[str]:
    """A service of the example; gives its address."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, EXAMPLE / program, str(port), *arguments], env=environment(**variables), cwd=EXAMPLE
    )
    try:
        until(lambda: answers(f"{url}/openapi.json"), f"{program} is ready")
        yield url
    finally:
        # so that its spans are exported
        process.terminate()
        process.wait(20)


def spans_of(jaeger: Jaeger, trace_id: str) -> dict[str, Found]:
    """By span id, the name, the service and the parent of every span of a trace, as Jaeger returns them."""
    answer = httpx.get(f"{jaeger.url}/api/v3/traces/{trace_id}")
    if answer.status_code != httpx.codes.OK:
        return {}
    found: dict[str, Found] = {}
    for line in answer.text.splitlines():
        for resource_spans in json.loads(line)["result"]["resourceSpans"]:
            attributes = {entry["key"]: entry["value"] for entry in resource_spans["resource"]["attributes"]}
            for scope_spans in resource_spans["scopeSpans"]:
                for span in scope_spans["spans"]:
                    found[span["spanId"]] = {
                        "name": span["name"],
                        "service": attributes["service.name"]["stringValue"],
                        "parent": span.get("parentSpanId", ""),
                        "kind": span["kind"],
                    }
    return found


def way_up(spans: dict[str, Found], span_id: str) -> list[tuple[str, str]]:
    """Service and name of a span and of all above it."""
    way = []
    while span_id:
        span = spans[span_id]
        way.append((span["service"], span["name"]))
        span_id = span["parent"]
    return way


def in_langfuse(server: DevServer, trace_id: str) -> list[Span]:
    reader = LangfuseReader(settings_of(server))
    try:
        return list(reader.read(Query(trace_ids=(trace_id,))))
    finally:
        reader.close()


@pytest.mark.parametrize("delivery", ["thread", "external"])
def test_the_turn_its_tool_and_two_services_behind_it_are_one_trace_in_jaeger_and_the_turn_is_a_root_in_langfuse(
    tmp_path: Path, jaeger: Jaeger, delivery: str
) -> None:
    with DevServer() as langfuse:
        variables = {
            "OTLP_ENDPOINT": jaeger.otlp_http,
            "JAEGER_URL": jaeger.url,
            "LANGFUSE_BASE_URL": langfuse.url,
            "LANGFUSE_PUBLIC_KEY": langfuse.public_key,
            "LANGFUSE_SECRET_KEY": langfuse.secret_key,
            "TRACE_DIR": str(tmp_path / "traces"),
        }
        configuration = tmp_path / "tracebridge.yaml"
        text = (EXAMPLE / "tracebridge.yaml").read_text("utf-8")
        configuration.write_text(
            text.replace("  propagate: true", f"  propagate: true\n  delivery: {delivery}"), "utf-8"
        )
        variables["TRACEBRIDGE_CONFIG"] = str(configuration)

        def ran(*command: str | Path) -> str:
            done = subprocess.run(
                [sys.executable, *command],
                env=environment(**variables),
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        with running("stock.py", **variables) as stock, running("tools.py", stock, **variables) as tools:
            trace_id = ran(EXAMPLE / "agent.py", tools).split()[-1]
        if delivery == "external":
            ran("-m", "tracebridge", "ship", "--patience", "20")
        until(lambda: len(spans_of(jaeger, trace_id)) >= 7, "all of the trace is in Jaeger")
        spans = spans_of(jaeger, trace_id)
        held = in_langfuse(langfuse, trace_id)
        validated = ran("-m", "tracebridge", "validate")

    (lowest,) = [
        span_id
        for span_id, span in spans.items()
        if (span["service"], span["name"]) == ("stock", "GET /stock/{article}")
    ]
    assert way_up(spans, lowest) == [
        ("stock", "GET /stock/{article}"),
        ("tools", "GET"),
        ("tools", "GET /tools/find/{article}"),
        ("shop-agent", "GET"),
        ("shop-agent", "execute_tool find"),
        ("shop-agent", "invoke_agent shop"),
    ]
    assert {span["service"] for span in spans.values()} == {"shop-agent", "tools", "stock"}
    (recorded,) = (tmp_path / "traces").glob("session-*/events.jsonl")
    events = [json.loads(line) for line in recorded.read_text("utf-8").splitlines()]
    in_journal = {event["span_id"] for event in events if event["trace_id"] == trace_id}
    assert in_journal <= spans.keys()
    assert {span.span_id for span in held} == in_journal, "LangFuse is not sent what the services did"
    (turn,) = [span for span in held if span.kind == "turn"]
    assert turn.parent_id == ""
    assert "CLEAN" in validated


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands use curl")
def test_the_commands_of_the_page_give_one_trace_of_three_services(tmp_path: Path, jaeger: Jaeger) -> None:
    (commands,) = re.findall(
        r"^cd examples/correlation\n.*?(?=^```)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    stock, tools = free_ports(2)
    with DevServer() as langfuse:
        for text, instead in {
            "8001": str(tools),
            "8002": str(stock),
            "http://127.0.0.1:4318": jaeger.otlp_http,
            "pk-lf-...": langfuse.public_key,
            "sk-lf-...": langfuse.secret_key,
        }.items():
            assert text in commands
            commands = commands.replace(text, instead)
        ran = subprocess.run(
            ["bash", "-c", f"set -e\ntrap 'kill $(jobs -p)' EXIT\n{commands}"],
            cwd=ROOT,
            env=environment(
                PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                JAEGER_URL=jaeger.url,
                LANGFUSE_BASE_URL=langfuse.url,
                TRACE_DIR=str(tmp_path / "traces"),
            ),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        trace_id = ran.stdout.split()[-1]
        until(lambda: len(spans_of(jaeger, trace_id)) >= 7, "all of the trace is in Jaeger")
        assert {span["service"] for span in spans_of(jaeger, trace_id).values()} == {"shop-agent", "tools", "stock"}
        assert in_langfuse(langfuse, trace_id)
