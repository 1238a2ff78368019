"""A disk of a few hundred KB, real and mounted for one child process alone, so that a test can fill it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_TIMEOUT_S = 50
_READ_ONLY, _REMOUNT = 1, 32
_FILLING = "filling"


class SmallDisk:
    """A tmpfs of some KB; only a process that `apart` has started can mount one."""

    def __init__(self, folder: str, kilobytes: int = 256, files: int = 1000) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self._options = f"size={kilobytes}k,nr_inodes={files}".encode()
        self._mount(0)

    def fill(self) -> None:
        """Leave not one byte."""
        with open(self.folder / _FILLING, "ab", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass

    def free(self) -> None:
        """Give all that was filled back."""
        (self.folder / _FILLING).unlink()

    def use_up_files(self) -> None:
        """Leave no more files to be made."""
        (self.folder / "files").mkdir()
        with suppress(OSError):
            for number in range(100_000):
                (self.folder / "files" / str(number)).touch()

    def give_files_back(self) -> None:
        shutil.rmtree(self.folder / "files")

    def make_read_only(self) -> None:
        self._mount(_REMOUNT | _READ_ONLY)

    def make_writable(self) -> None:
        self._mount(_REMOUNT)

    def _mount(self, flags: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"small", bytes(self.folder), b"tmpfs", flags, self._options):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Outcome:
    """What a child process came to."""

    def __init__(self, result: Any, errors: str) -> None:
        self.result = result
        self.errors = errors


def apart(scenario: Callable[..., Any], *arguments: object) -> Outcome:
    """Call a function of a module in a child process that may mount; its result must be JSON."""
    from tests.workplace import environment  # here, so that the child need not load it

    program = (
        f"import json, sys; from {scenario.__module__} import {scenario.__name__} as scenario;"
        "print(json.dumps(scenario(*sys.argv[1:])))"
    )
    done = subprocess.run(
        [*_apart(), sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=_TIMEOUT_S,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return Outcome(json.loads(done.stdout.splitlines()[-1]), done.stderr)


@cache
def _apart() -> list[str]:
    import pytest

    reasons = []
    for way in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        try:
            tried = subprocess.run(
                [*way, "mount", "-t", "tmpfs", "tried", "/mnt"], capture_output=True, text=True, check=False, timeout=10
            )
        except OSError as error:
            reasons.append(str(error))
            continue
        if tried.returncode == 0:
            return way
        reasons.append(tried.stderr.strip())
    pytest.skip("needs the right to mount, of root or in a user namespace: " + "; ".join(reasons))
