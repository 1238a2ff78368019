"""A user's shell: one bash that goes on from command to command, and what each of them prints."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.workplace import ROOT

TIMEOUT_S: Final = 60.0
_MARK: Final = "=== ended with"


class Shell:
    """Runs commands one after the other, in one folder, with `tracebridge` and `python` on its path."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=_environment(programs),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            # by which what it has started is known
            start_new_session=True,
        )
        self._started: set[int] = set()
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def run(self, command: str, awaited: str = "") -> tuple[int, list[str]]:
        """Run a command; returns its exit code and what it printed.

        One that goes on in the background has begun when it prints a line with `awaited`.
        """
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{command}\nprintf '\\n{_MARK} %s %s\\n' $? $!\n")
        said: list[str] = []
        code: int | None = None
        deadline = time.monotonic() + TIMEOUT_S
        while code is None or (awaited and not any(awaited in line for line in said)):
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"$ {command}\nnot done within {TIMEOUT_S} s; it said: {said}") from None
            assert line is not None, f"$ {command}\nended the shell; it said: {said}"
            if line.startswith(_MARK):
                code, *started = map(int, line.removeprefix(_MARK).split())
                self._started.update(started)
            elif line:
                said.append(line)
        return code, said

    def close(self) -> None:
        """End the shell and what it has started in the background, whatever it is at."""
        for process in self._started:
            with suppress(ProcessLookupError):
                if os.getsid(process) == self._bash.pid:
                    os.kill(process, signal.SIGTERM)
        assert self._bash.stdin is not None
        with suppress(BrokenPipeError):
            self._bash.stdin.close()
        self._bash.terminate()
        self._bash.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        assert self._bash.stdout is not None
        self._bash.stdout.close()

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def make_programs(folder: Path) -> Path:
    """A folder with `tracebridge` and `python` as they would be after an installation."""
    folder.mkdir()
    for name, arguments in (("tracebridge", " -m tracebridge"), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return folder


def _environment(programs: Path) -> dict[str, str]:
    unset = ("TRACEBRIDGE", "LANGFUSE", "OTEL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    # a shell that is not at a terminal must not be asked for one, and a log may be read while it is written
    ours = {"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", "PYTHONUNBUFFERED": "1", "COLUMNS": "80"}
    return {**kept, **ours, "PATH": f"{programs}:{os.environ['PATH']}"}
