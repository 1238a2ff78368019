"""Starting a server program on free ports and stopping it, or killing it, as tests want."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.waiting import until

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 20.0


class RunningServer:
    """A server program with its configuration and its log in a folder of its own."""

    def __init__(
        self, program: Path, folder: Path, configuration: Mapping[str, Any], is_ready: Callable[[], bool]
    ) -> None:
        self._program = program
        self._file = folder / "config.yaml"
        self._log = folder / "log.txt"
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(yaml.safe_dump(dict(configuration), sort_keys=False), encoding="utf-8")

    def start(self) -> None:
        """Start it, and return once it is ready; with what it has logged in the failure if it is not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "--config", self._file], stdout=log, stderr=log)
        until(self._is_up, f"{self._program.name} is ready; its log: {self._log}", _START_TIMEOUT_S)

    def kill(self) -> None:
        """End it as a crash does, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def _is_up(self) -> bool:
        assert self._process is not None
        ended = self._process.poll()
        assert ended is None, f"{self._program.name} ended with {ended}: {self._log.read_text()[-2_000:]}"
        return self._is_ready()


def answers(url: str) -> bool:
    """Whether a GET of the address succeeds now."""
    try:
        return httpx.get(url, timeout=5.0).is_success
    except httpx.HTTPError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
