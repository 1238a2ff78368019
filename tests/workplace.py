"""A user's folder: a configuration for backends on this machine, the command line, and what the backends show."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import yaml

from tracebridge.assembler import disassemble
from tracebridge.cli import main
from tracebridge.config import Settings, load
from tracebridge.devserver import DevServer
from tracebridge.recording.tracer import Tracer
from tracebridge.sink import Query
from tracebridge.span import Span

ROOT = Path(__file__).resolve().parent.parent
INGESTION = ("POST /api/public/otel/v1/traces", "POST /v1/traces")
EVERYTHING = Query(start_ns=0, end_ns=4_000_000_000_000_000_000)
COMMAND_TIMEOUT_S = 50


class Workplace:
    """A folder with `tracebridge.yaml`, in which commands are run as a user would."""

    def __init__(self, folder: Path, sinks: Mapping[str, Any] | None = None, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.trace_dir = folder / "traces"
        self.config = folder / "tracebridge.yaml"
        self.configure(sinks or {}, **settings)

    def configure(self, sinks: Mapping[str, Any], **settings: Any) -> None:
        """Write the configuration anew."""
        section = {"trace_dir": str(self.trace_dir), "sinks": dict(sinks), **settings}
        self.config.write_text(yaml.safe_dump({"agent_trace": section}, sort_keys=False), encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return load(self.config, {})

    def tracer(self) -> Tracer:
        return Tracer(self.settings)

    def record(self, session_id: str) -> None:
        """Record a session of one turn."""
        tracer = self.tracer()
        with tracer.trace_session(session_id) as session, tracer.trace_turn(session, user_input="hi") as turn:
            turn.output = "hello"
        tracer.shutdown()

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as a process."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in this process, which spares the start of one."""
        line = ["--config", str(self.config), *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(line)
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str | Path, **streams: Any) -> subprocess.Popen[str]:
        """Start a command that goes on until it is stopped."""
        return subprocess.Popen(self.command(*arguments), cwd=self.folder, env=environment(), text=True, **streams)

    @staticmethod
    def command(*arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "tracebridge", *map(str, arguments)]

    def backfill(self, folder: Path) -> dict[str, Any]:
        """What `backfill --json` says; it must end well."""
        return answer_of(self.call("backfill", folder, "--json"))

    def verdicts(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """What `validate --json` says, by sink, whatever it comes to."""
        return verdicts_of(self.call("validate", "--json", *arguments))

    def observed(self, sink_name: str, query: Query = EVERYTHING) -> list[Span]:
        """What a sink's reader shows."""
        sink = self.settings.sink(sink_name)
        assert sink is not None
        assert sink.sink_type is not None
        assert sink.settings is not None
        reader = sink.sink_type.open_reader(sink.settings)
        try:
            return list(reader.read(query))
        finally:
            reader.close()


def answer_of(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON that a command has printed, which must have ended well."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def verdicts_of(ran: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """By sink, what `validate --json` has printed; the exit code must agree with it."""
    verdicts = {verdict["sink"]: verdict for verdict in json.loads(ran.stdout)}
    codes = {verdict["exit_code"] for verdict in verdicts.values()}
    assert ran.returncode == (1 if 1 in codes else max(codes)), ran.stderr
    return verdicts


def environment(**variables: str) -> dict[str, str]:
    """A usual user's environment, without anything that would configure a sink, and with `variables`."""
    unset = ("TRACEBRIDGE", "LANGFUSE", "OTEL", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    return {**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", **variables}


def langfuse(server: DevServer, **changes: Any) -> dict[str, Any]:
    """A `langfuse` sink on a development backend, which stores before it answers."""
    keys = {"host": server.url, "public_key": server.public_key, "secret_key": server.secret_key}
    return {**keys, "visibility_lag": 0.01, **changes}


def otel(server: DevServer, **changes: Any) -> dict[str, Any]:
    """An `otel` sink on a development backend, which stores before it answers."""
    reader = {"type": "jaeger", "url": server.url, "visibility_lag": 0.01}
    return {"endpoint": server.url, "reader": reader, **changes}


def both(server: DevServer) -> dict[str, Any]:
    return {"langfuse": langfuse(server), "otel": otel(server)}


def sent_requests(server: DevServer) -> dict[str, int]:
    """How many requests came in with spans, by route."""
    return {route: server.requests.get(route, 0) for route in INGESTION}


def journal_events(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The JSON objects of all whole lines below a folder of traces, by session, read without tracebridge."""
    found = {}
    for file in sorted(folder.glob("session-*/events.jsonl")):
        events = [json.loads(line) for line in file.read_text("utf-8").split("\n") if _is_json(line)]
        if events:  # else it was made just now
            found[events[0]["session_id"]] = events
    return found


def event_counts(folder: Path) -> Counter[str]:
    """How many events of each type there are below a folder of traces."""
    return Counter(event["event_type"] for events in journal_events(folder).values() for event in events)


def restored(spans: Iterable[Span]) -> dict[str, list[dict[str, Any]]]:
    """The events that spans were made of, by session."""
    sessions: dict[str, list[Span]] = {}
    for span in spans:
        sessions.setdefault(span.session_id, []).append(span)
    return {session_id: disassemble(of_session) for session_id, of_session in sorted(sessions.items())}


def tree_digest(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, by its name."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def change_observation(server: DevServer, span: Span, **changes: Any) -> None:
    """Change what the backend's LangFuse side stores of a span."""
    url = f"{server.url}/dev/langfuse/{span.trace_id}/{span.span_id}"
    httpx.patch(url, json=changes).raise_for_status()


def change_otlp_span(server: DevServer, span: Span, **changes: Any) -> None:
    """Change what the backend's OTLP side stores of a span."""
    url = f"{server.url}/dev/otlp/{span.trace_id}/{span.span_id}"
    httpx.patch(url, json=changes).raise_for_status()


def delete_stored(server: DevServer, kind: str, span: Span) -> None:
    """Delete a span from the backend's `langfuse` or `otlp` side."""
    httpx.delete(f"{server.url}/dev/{kind}/{span.trace_id}/{span.span_id}").raise_for_status()


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
