"""What README and docs show is run: Python as it stands, YAML by `config check`, recipes by the real jq."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str
    place: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], f"{page.name}:{text.count(chr(10), 0, found.start()) + 2}")
        for found in FENCE.finditer(text)
    ]


def of_language(language: str) -> list[Any]:
    found = [block for page in PAGES for block in blocks(page) if block.language == language]
    return [pytest.param(block, id=block.place) for block in found]


def environment(folder: Path, variables: Iterable[str] = ()) -> dict[str, str]:
    unset = ("TRACEBRIDGE", "LANGFUSE", "OTEL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    standard = {"LANGFUSE_HOST": "http://127.0.0.1:9", "LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}
    ours = {**standard, "PYTHONPATH": f"{folder}:{ROOT}:{ROOT / 'adapters'}"}
    return {**kept, **ours, **dict.fromkeys(variables, "set")}


def run_python(folder: Path, *arguments: str, variables: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder, variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def events(folder: Path, session_id: str) -> list[dict[str, Any]]:
    lines = (folder / "traces" / f"session-{session_id}" / "events.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.parametrize("block", of_language("python"))
def test_python_in_the_docs_runs(block: Block, tmp_path: Path) -> None:
    ran = run_python(tmp_path, "-W", "error", "-c", block.text)
    assert ran.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("block", of_language("yaml"))
def test_yaml_in_the_docs_is_a_valid_configuration(block: Block, tmp_path: Path) -> None:
    (tmp_path / "tracebridge.yaml").write_text(block.text, encoding="utf-8")
    variables = re.findall(r"\$\{(\w+)\}", block.text)
    run_python(tmp_path, "-m", "tracebridge", "config", "check", variables=variables)


def test_the_readme_s_ten_lines_record_what_they_say(tmp_path: Path) -> None:
    snippet = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    run_python(tmp_path, "-c", snippet.text)

    recorded = events(tmp_path, "user-123")
    assert [event["event_type"] for event in recorded] == [
        "session.start",
        "turn.start",
        "llm.request",
        "llm.response",
        "tool.call",
        "tool.result",
        "turn.end",
        "session.end",
    ]
    assert recorded[0]["data"]["user_id"] == "ada"
    assert recorded[3]["data"]["tokens"] == {"prompt": 100, "completion": 20}
    assert recorded[5]["data"]["result"] == {"status": "shipped"}
    assert recorded[6]["data"]["output"] == "It was shipped this morning."


def test_the_readme_s_ten_lines_are_about_ten() -> None:
    snippet = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    assert 8 <= len([line for line in snippet.text.splitlines() if line.strip()]) <= 11


@pytest.mark.parametrize("shim", [False, True], ids=["import line changed", "shim, nothing changed"])
def test_the_snippet_of_the_original_runs(shim: bool, shared: Path, tmp_path: Path) -> None:
    snippet = next(block for block in blocks(shared / "original.md") if block.language == "python").text
    assert "from backend.core.agent_trace import" in snippet
    if shim:
        package = tmp_path / "backend" / "core"
        package.mkdir(parents=True)
        (package / "agent_trace.py").write_text(documented_shim(), encoding="utf-8")
    else:
        snippet = snippet.replace("backend.core.agent_trace", "tracebridge")
    run_python(tmp_path, "-c", snippet)

    assert [event["event_type"] for event in events(tmp_path, "user-123")] == [
        "session.start",
        "turn.start",
        "llm.request",
        "llm.response",
        "turn.end",
        "session.end",
    ]


def documented_shim() -> str:
    after = (
        (ROOT / "docs" / "agent_trace.md").read_text(encoding="utf-8").partition("as `backend/core/agent_trace.py`")[2]
    )
    found = FENCE.search(after)
    assert found is not None
    assert len(found[2].splitlines()) == 1
    return found[2]


JOURNAL = """
import tracebridge

tracebridge.configure({"agent_trace": {"trace_dir": "./traces"}})
for number, model in enumerate(["gpt-4", "gpt-4", "o1"]):
    with tracebridge.trace_session(session_id=f"user-{number}") as session:
        with tracebridge.trace_turn(session, user_input="Hello!"):
            with session.llm_call(model=model, messages=[]) as call:
                call.finish(content="Hi!", tokens={"prompt": 10 * (number + 1), "completion": number})
            session.log_llm_response(model=model, content="unasked", duration_ms=1000.0 * (number + 1))
            with session.tool_call("look_up", {"key": number}) as call:
                call.finish("found")
            try:
                with session.tool_call("look_up", {"key": None}):
                    raise KeyError("key")
            except KeyError:
                pass
tracebridge.shutdown()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the journal that the recipes are tried on."""
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    folder = tmp_path_factory.mktemp("recipes")
    run_python(folder, "-c", JOURNAL)
    return folder


@pytest.fixture(params=["original", "ours"])
def page(request: pytest.FixtureRequest) -> Path:
    """The page whose recipes are tried: the original's, and ours."""
    if request.param == "ours":
        return ROOT / "docs" / "agent_trace.md"
    shared: Path = request.getfixturevalue("shared")
    return shared / "original.md"


def test_the_recipe_for_slowest_llm_calls(folder: Path, page: Path) -> None:
    slowest = answer(folder, recipe(page, "sort_by"))

    assert [call["ms"] for call in slowest] == sorted((call["ms"] for call in slowest), reverse=True)
    assert slowest[:3] == [
        {"session": "user-2", "ms": 3000.0},
        {"session": "user-1", "ms": 2000.0},
        {"session": "user-0", "ms": 1000.0},
    ]
    assert len(slowest) == 6


def test_the_recipe_for_tool_failure_rate(folder: Path, page: Path) -> None:
    assert answer(folder, recipe(page, "group_by(.data.success)")) == [
        {"success": False, "count": 3},
        {"success": True, "count": 3},
    ]


def test_the_recipe_for_tokens_by_model(folder: Path, page: Path) -> None:
    assert answer(folder, recipe(page, ".data.tokens.prompt")) == [
        {"model": "gpt-4", "total": 31},
        {"model": "o1", "total": 32},
    ]


def test_the_recipe_for_everything_of_a_session(folder: Path, page: Path) -> None:
    command = recipe(page, "traces/session-user-123/events.jsonl").replace("user-123", "user-1")
    shown = in_shell(folder, command.replace("jq .", "jq -c ."))
    assert [json.loads(line) for line in shown.splitlines()] == events(folder, "user-1")


def test_the_recipe_for_one_run(folder: Path, page: Path) -> None:
    recorded = events(folder, "user-2")
    command = re.sub(r"run-abc\w*", recorded[0]["run_id"], recipe(page, "grep"))
    assert len(in_shell(folder, command).splitlines()) == len(recorded)


def recipe(page: Path, word: str) -> str:
    """Return the one command of a page that holds `word`."""
    shells = (block.text for block in blocks(page) if block.language in ("sh", "bash"))
    # a page may show several commands in one block, apart by blank lines
    commands = [command for shell in shells for command in re.split(r"\n\s*\n", shell) if word in command]
    assert len(commands) == 1, f"{page.name}: {len(commands)} commands hold {word!r}"
    return commands[0]


def in_shell(folder: Path, command: str) -> str:
    ran = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def answer(folder: Path, command: str) -> Any:
    return json.loads(in_shell(folder, command))


def test_every_test_that_the_docs_name_exists() -> None:
    named = [
        (page.name, file, test)
        for page in PAGES
        for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
    ]
    assert len(named) > 50
    wrong = [
        f"{page}: {file}::{test}"
        for page, file, test in named
        if not (ROOT / file).exists() or f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert wrong == []


def test_every_sentence_of_what_is_guaranteed_has_its_test() -> None:
    text = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8").partition("## What is not guaranteed")[0]
    points = re.findall(r"^\* (.*?)(?=^\* |^## |\Z)", text, re.MULTILINE | re.DOTALL)
    unproved = [point for point in points if "::test_" not in point and "The same test." not in point]
    assert len(points) > 40
    assert unproved == []
