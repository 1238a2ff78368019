"""The wheel built from this checkout holds what it should, installs, and works far from the checkout."""

from __future__ import annotations

import configparser
import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tracebridge.testing.server import FaultyServer

ROOT = Path(__file__).resolve().parent.parent
PLUG_IN = ROOT / "examples" / "webhook-sink"
PACKAGES = {
    "tracebridge": ROOT / "tracebridge",
    "tracebridge_langfuse": ROOT / "adapters" / "tracebridge_langfuse",
    "tracebridge_otel": ROOT / "adapters" / "tracebridge_otel",
    "tracebridge_otlp": ROOT / "adapters" / "tracebridge_otlp",
}

installs = [pytest.mark.slow, pytest.mark.timeout(600)]

AGENT = """
import tracebridge

tracebridge.configure("tracebridge.yaml")
with tracebridge.trace_session(session_id="user-123") as session:
    with tracebridge.trace_turn(session, user_input="Hello!") as turn:
        with session.llm_call(model="gpt-4", messages=[{"role": "user", "content": "Hello!"}]) as call:
            call.finish(content="Hi!", tokens={"prompt": 3, "completion": 2})
        turn.output = "Hi!"
tracebridge.shutdown()
print(tracebridge.__file__)
"""

JOURNAL_ONLY = """
agent_trace:
  trace_dir: ./traces
"""

WITH_LANGFUSE = """
agent_trace:
  trace_dir: ./traces
  delivery: external
  sinks:
    langfuse: {enabled: true, host: "http://127.0.0.1:9", public_key: pk-lf-x, secret_key: sk-lf-x}
"""

WITH_OTEL = """
agent_trace:
  trace_dir: ./traces
  delivery: external
  sinks:
    otel: {enabled: true, endpoint: "http://127.0.0.1:9"}
"""


WITH_PLUG_IN = """
agent_trace:
  trace_dir: ./traces
  delivery: external
  sinks:
    webhook: {{url: "{url}/events", token: t0ken}}
"""


class Installation:
    """A fresh environment with the wheel in it."""

    def __init__(self, home: Path, *requirements: str) -> None:
        self._bin = home / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
        before = self._distributions(home)
        constraints = str(ROOT / "constraints.txt")
        installed = self.run(home, "python", "-m", "pip", "install", "-q", "-c", constraints, *requirements)
        assert installed.returncode == 0, installed.stderr
        self.distributions = self._distributions(home) - before

    def run(self, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # what the suite runs with must not reach the environment under test
        unset = ("PYTHON", "TRACEBRIDGE", "LANGFUSE", "OTEL", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
        return subprocess.run(
            [self._bin / program, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeed(self, folder: Path, program: str, *arguments: str) -> str:
        ran = self.run(folder, program, *arguments)
        assert ran.returncode == 0, f"{program} {arguments}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        return ran.stdout

    def fail(self, folder: Path, program: str, *arguments: str) -> str:
        ran = self.run(folder, program, *arguments)
        assert ran.returncode != 0, f"{program} {arguments}: {ran.stdout[-2000:]}"
        assert "Traceback" not in ran.stderr, ran.stderr[-2000:]
        return ran.stdout + ran.stderr

    def _distributions(self, folder: Path) -> set[str]:
        listed = self.run(folder, "python", "-m", "pip", "list", "--format", "json")
        return {distribution["name"].lower() for distribution in json.loads(listed.stdout)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheel"))


def wheel_of(project: Path, folder: Path) -> Path:
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(project)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("core"), str(wheel))


@pytest.fixture(scope="module")
def everything(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("everything"), f"{wheel}[all]")


def test_the_wheel_holds_every_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{file.relative_to(source)}"
        for package, source in PACKAGES.items()
        for file in source.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert packed == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed
    assert {f"{package}/__init__.py" for package in PACKAGES} <= packed


def test_the_wheel_says_what_it_needs_and_what_it_offers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = email.message_from_string(archive.read(names["METADATA"]).decode())
        entry_points = configparser.ConfigParser()
        entry_points.read_string(archive.read(names["entry_points.txt"]).decode())
    requirements = metadata.get_all("Requires-Dist", [])
    always = {re.split(r"[^A-Za-z0-9-]", entry)[0] for entry in requirements if "extra ==" not in entry}

    assert {name.lower() for name in always} == {"msgspec", "pyyaml"}
    extras = {"all", "compare", "dev", "devserver", "langfuse", "otel", "spark", "testing"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    assert metadata["License-Expression"] == "MIT"
    assert "licenses/LICENSE" in names
    assert dict(entry_points["tracebridge.sinks"]) == {
        "langfuse": "tracebridge_langfuse.factory:sink_type",
        "otel": "tracebridge_otel.factory:sink_type",
    }
    assert dict(entry_points["console_scripts"]) == {"tracebridge": "tracebridge.cli:main"}


class TestCoreAlone:
    pytestmark = installs

    def test_it_installs_with_nothing_but_msgspec_and_pyyaml(self, core: Installation) -> None:
        assert core.distributions == {"tracebridge", "msgspec", "pyyaml"}

    def test_an_agent_records_and_the_command_line_looks_after_it(self, core: Installation, tmp_path: Path) -> None:
        (tmp_path / "tracebridge.yaml").write_text(JOURNAL_ONLY, encoding="utf-8")

        where = core.succeed(tmp_path, "python", "-c", AGENT)
        assert str(ROOT) not in where
        recorded = (tmp_path / "traces" / "session-user-123" / "events.jsonl").read_text(encoding="utf-8")
        assert recorded.count("\n") == 6
        for arguments in (
            ["config", "check"],
            ["config", "show"],
            ["ship"],
            ["status"],
            ["status", "--json"],
        ):
            core.succeed(tmp_path, "tracebridge", *arguments)

    def test_it_runs_as_a_module_too(self, core: Installation, tmp_path: Path) -> None:
        assert "backfill" in core.succeed(tmp_path, "python", "-m", "tracebridge", "--help")

    @pytest.mark.parametrize(
        ("configuration", "extra"),
        [(WITH_LANGFUSE, "langfuse"), (WITH_OTEL, "otel")],
        ids=["langfuse", "otel"],
    )
    def test_recording_for_a_sink_works_and_shipping_to_it_names_the_extra(
        self, core: Installation, configuration: str, extra: str, tmp_path: Path
    ) -> None:
        (tmp_path / "tracebridge.yaml").write_text(configuration, encoding="utf-8")

        for arguments in (["config", "check"], ["config", "show"]):
            core.succeed(tmp_path, "tracebridge", *arguments)
        core.succeed(tmp_path, "python", "-c", AGENT)
        assert f"tracebridge[{extra}]" in core.fail(tmp_path, "tracebridge", "ship")

    @pytest.mark.parametrize(("command", "extra"), [("devserver", "devserver"), ("demo", "all")])
    def test_a_command_that_needs_an_extra_names_it(
        self, core: Installation, command: str, extra: str, tmp_path: Path
    ) -> None:
        assert f"tracebridge[{extra}]" in core.fail(tmp_path, "tracebridge", command)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("langfuse", ["tracebridge_langfuse"]),
        ("otel", ["tracebridge_otel", "tracebridge_otlp"]),
        ("devserver", ["tracebridge.devserver"]),
        ("testing", ["tracebridge.testing"]),
    ],
)
def test_an_extra_alone_brings_all_that_its_modules_import(
    wheel: Path, extra: str, packages: list[str], tmp_path: Path
) -> None:
    installation = Installation(tmp_path, f"{wheel}[{extra}]")
    program = (
        "import importlib, pkgutil, sys\n"
        "for name in sys.argv[1:]:\n"
        "    package = importlib.import_module(name)\n"
        "    for module in pkgutil.walk_packages(package.__path__, f'{name}.'):\n"
        "        print(importlib.import_module(module.name).__name__)\n"
    )
    imported = installation.succeed(tmp_path, "python", "-c", program, *packages)
    assert all(f"{package}." in imported for package in packages)


class TestEverything:
    pytestmark = installs

    def test_both_sinks_are_found_and_load(self, everything: Installation, tmp_path: Path) -> None:
        program = (
            "from importlib.metadata import entry_points\n"
            "for entry in entry_points(group='tracebridge.sinks'): print(entry.name, entry.load().extra)"
        )
        found = everything.succeed(tmp_path, "python", "-c", program)
        assert sorted(found.splitlines()) == ["langfuse langfuse", "otel otel"]

    def test_the_demo_runs_from_start_to_end(self, everything: Installation, tmp_path: Path) -> None:
        everything.succeed(tmp_path, "tracebridge", "demo")


class TestPlugIn:
    """The worked example of somebody else's sink, from wheels alone."""

    pytestmark = installs

    @pytest.fixture(scope="class")
    @classmethod
    def plugged_in(cls, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
        home = tmp_path_factory.mktemp("plug-in")
        return Installation(home, f"{wheel}[testing]", str(wheel_of(PLUG_IN, home)))

    def test_its_own_tests_pass_and_the_contract_is_among_them(self, plugged_in: Installation, tmp_path: Path) -> None:
        shutil.copytree(PLUG_IN / "tests", tmp_path / "tests")
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
        told = plugged_in.succeed(tmp_path, "python", "-m", "pytest", "-q", "-rx")
        assert "test_contract.py" in told
        assert "declared unsupported: partial: a webhook takes all of a request or nothing" in told
        assert re.search(r"\b[34]\d passed, \d xfailed\b", told), told[-500:]

    def test_a_journal_is_shipped_to_it_by_yaml_alone(self, plugged_in: Installation, tmp_path: Path) -> None:
        receiver = Receiver()
        with FaultyServer(receiver.app) as server:
            (tmp_path / "tracebridge.yaml").write_text(WITH_PLUG_IN.format(url=server.url), encoding="utf-8")
            assert "sinks: webhook" in plugged_in.succeed(tmp_path, "tracebridge", "config", "check")
            plugged_in.succeed(tmp_path, "python", "-c", AGENT)
            assert receiver.events == [], "recording sends nothing"
            shipped = plugged_in.succeed(tmp_path, "tracebridge", "ship")
            assert "webhook: 3 spans of 6 events delivered" in shipped
            assert "nothing new" in plugged_in.succeed(tmp_path, "tracebridge", "ship")
        assert sorted(event["kind"] for event in receiver.events) == ["llm", "session", "turn"]
        assert receiver.tokens == {"Bearer t0ken"}


class Receiver:
    """A webhook that keeps what it is sent."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.tokens: set[str] = set()
        self.app = Starlette(routes=[Route("/events", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.events += await request.json()
        self.tokens.add(request.headers["authorization"])
        return Response()
