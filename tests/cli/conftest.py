"""The command line in this process: fast, and what it prints and returns can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workplace import Workplace
from tracebridge.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and gives its exit code and what it printed."""

    def run_command(*arguments: str | Path) -> Ran:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse ends help and usage errors so
            code = exit_.code if isinstance(exit_.code, int) else 1
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run_command


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in an empty folder, with nothing in the environment that configures them."""
    for name in ("TRACEBRIDGE_CONFIG", "LANGFUSE_SECRET_KEY", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_HOST"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A folder with a configuration whose only sink is a LangFuse that nobody answers for."""
    nobody = {"host": "http://127.0.0.1:9", "public_key": "pk-nobody", "secret_key": "sk-very-secret"}
    return Workplace(tmp_path / "here", {"langfuse": nobody})
