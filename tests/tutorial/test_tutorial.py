"""The tutorial is followed to the letter: every file is saved, every command run, in the order of the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.servers.jaeger import running_jaeger
from tests.servers.running import free_ports
from tests.tutorial.shell import Shell, make_programs
from tests.workplace import ROOT

PAGE: Final = ROOT / "docs" / "tutorial.md"
FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED_AS: Final = {"yaml": "tracebridge.yaml", "python": "agent.py"}
TEN: Final = 10

LANGFUSE: Final = "127.0.0.1:3000"
OTLP: Final = "127.0.0.1:4318"
JAEGER_IN_THE_FILE: Final = 'url: "http://127.0.0.1:4318"'


class Step(NamedTuple):
    command: str
    shown: list[str]
    """The lines that the page shows of what it prints."""


def steps(console: str) -> Iterator[Step]:
    """The commands of a block."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield Step(command, shown)


def missing(shown: list[str], printed: list[str], same_numbers: bool) -> list[str]:
    """The shown lines that were not printed in this order; `…` is anything, and so is a number if the traces differ."""
    left = iter(printed)
    return [line for line in shown if not any(re.fullmatch(pattern(line, same_numbers), said) for said in left)]


def pattern(line: str, same_numbers: bool) -> str:
    text = re.escape(line).replace("…", ".*")
    # addresses are the same in any case
    return text if same_numbers or "exit code" in line else re.sub(r"(?<![\d.:])\d[\d,]*(?![\d.:])", r"[\\d,]+", text)


def follow(folder: Path, replaced: Mapping[str, str], same_numbers: bool = True, without: str = "") -> list[str]:
    """Follow the page in a folder, with other addresses for some of it; returns the commands that were run.

    A command with `without` in it is left out.
    """
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    shell = Shell(folder, make_programs(folder.parent / "programs"))
    ran: list[str] = []
    try:
        for language, text in FENCE.findall(meant(PAGE.read_text(encoding="utf-8"), replaced)):
            if language in SAVED_AS:
                (folder / SAVED_AS[language]).write_text(text, encoding="utf-8")
            if language != "console":
                continue
            for step in steps(text):
                if without and without in step.command:
                    continue
                in_background = step.command.endswith("&")
                code, printed = shell.run(step.command, step.shown[0] if in_background else "")
                told = "\n".join(["", f"$ {step.command}", *printed, f"(exit code {code})"])
                assert code == 0, told
                assert missing(step.shown, printed, same_numbers) == [], told
                ran.append(step.command)
    finally:
        shell.close()
    return ran


def meant(text: str, replaced: Mapping[str, str]) -> str:
    """The text with what is to be replaced in it replaced."""
    for written, other in replaced.items():
        text = text.replace(written, other)
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def ports() -> dict[str, str]:
    """Free ports in the place of those that the page names."""
    langfuse, otlp = free_ports(2)
    return {
        LANGFUSE: f"127.0.0.1:{langfuse}",
        OTLP: f"127.0.0.1:{otlp}",
        "--port 3000": f"--port {langfuse}",
        "--port 4318": f"--port {otlp}",
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_does_what_the_page_shows(folder: Path, ports: dict[str, str]) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "legacy", folder / "old-traces")
    ran = follow(folder, ports)

    assert len(ran) > 25
    for command in ("backfill", "validate", "ship", "restore", "doctor"):
        assert any(f"tracebridge {command}" in line for line in ran)
    assert "Nothing is lost" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "report.xml").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_goes_the_same_way_with_real_sessions(folder: Path, ports: dict[str, str], legacy_traces: Path) -> None:
    for session in sorted(legacy_traces.iterdir())[:TEN]:
        shutil.copytree(session, folder / "old-traces" / session.name)
    follow(folder, ports, same_numbers=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.real_server
def test_it_goes_the_same_way_with_a_real_jaeger(folder: Path, ports: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "legacy", folder / "old-traces")
    with running_jaeger(tmp_path / "jaeger") as jaeger:
        own = {
            JAEGER_IN_THE_FILE: f'url: "{jaeger.url}"',
            **ports,
            OTLP: jaeger.otlp_http.removeprefix("http://"),
            "%1 %2": "%1",
        }
        follow(folder, own, without=ports["--port 4318"])


def test_what_is_shown_and_was_not_printed_is_noticed() -> None:
    printed = ["3 sessions in old-traces", "", "langfuse: CLEAN (http://127.0.0.1:3000)", "  equal      26"]
    assert missing(["langfuse: CLEAN (…)", "  equal      26"], printed, same_numbers=True) == []
    assert missing(["  equal      27"], printed, same_numbers=True) == ["  equal      27"]
    assert missing(["  equal      27"], printed, same_numbers=False) == []
    assert missing(["langfuse: FINDINGS (…)"], printed, same_numbers=False) == ["langfuse: FINDINGS (…)"]
    assert missing(["exit code 1"], ["exit code 2"], same_numbers=False) == ["exit code 1"]


def test_a_command_that_fails_and_what_it_says_is_noticed(folder: Path) -> None:
    shell = Shell(folder, make_programs(folder.parent / "programs"))
    try:
        assert shell.run("echo said; false") == (1, ["said"])
        assert shell.run("printf 'without an end'") == (0, ["without an end"])
        assert shell.run("tracebridge nonsense")[0] == 2
        assert shell.run("sleep 60 & echo started", "started") == (0, ["started"])
        assert shell.run("jobs %1")[0] == 0
    finally:
        shell.close()
