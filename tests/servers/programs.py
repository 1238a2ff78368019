"""The server programs, and where they are once they have been built: in a cache outside the tree.

A program's folder holds the `go.mod` and `go.sum` that pin every module it is made of. Its name in the cache is a
digest of that folder and of the compiler's version, so a changed pin is a new program, and an unchanged one is never
built again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from tracebridge.errors import TracebridgeError

_SOURCES: Final = Path(__file__).resolve().parent


class BuildError(TracebridgeError):
    """A server program cannot be built."""


class Program:
    """One server program."""

    def __init__(self, name: str, package: str) -> None:
        """`package` is the Go package to build, seen from the program's folder."""
        self.name = name
        self._package = package
        self._folder = _SOURCES / name

    @cached_property
    def path(self) -> Path:
        """Where the program is, or will be once it is built.

        Raises:
            BuildError: there is no Go compiler, which the name depends on.
        """
        digest = hashlib.sha256(_go("version").encode())
        for file in sorted(self._folder.iterdir()):
            digest.update(file.name.encode() + file.read_bytes())
        return cache() / f"{self.name}-{digest.hexdigest()[:16]}"

    def is_there(self) -> bool:
        """Whether it has been built."""
        return self.path.is_file()

    def require(self) -> Path:
        """The built program; skips the test, and says what to do, where it has not been built."""
        try:
            path = self.path
        except BuildError as error:
            pytest.skip(f"needs a real {self.name}: {error}")
        if not path.is_file():
            pytest.skip(f"needs a real {self.name}: `make servers` builds it, once")
        return path

    def build(self) -> Path:
        """Build the program unless it is there. What was compiled before an interruption is not compiled again.

        Raises:
            BuildError: the compiler refuses, and has said why.
        """
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.path.with_suffix(f".{os.getpid()}")
            try:
                _go("build", "-trimpath", "-o", str(unfinished), self._package, folder=self._folder)
                unfinished.rename(self.path)
            finally:
                unfinished.unlink(missing_ok=True)
        return self.path


JAEGER: Final = Program("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger")
COLLECTOR: Final = Program("collector", ".")
ALL: Final = (JAEGER, COLLECTOR)


def cache() -> Path:
    """The folder that all server programs are kept in."""
    given = os.environ.get("TRACEBRIDGE_SERVERS")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tracebridge" / "servers"


def _go(*arguments: str, folder: Path | None = None) -> str:
    compiler = shutil.which("go")
    if compiler is None:
        raise BuildError("there is no Go compiler on the PATH; version 1.26 or newer is needed")
    ran = subprocess.run([compiler, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise BuildError(f"`go {' '.join(arguments)}` has failed, see above")
    return ran.stdout
