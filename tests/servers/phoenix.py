"""A real Phoenix, from its package, in a virtual environment of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from tests.servers.programs import BuildError, cache
from tests.servers.running import answers, free_ports
from tests.waiting import until

_CONSTRAINTS: Final = Path(__file__).resolve().parent / "phoenix" / "constraints.txt"
_PACKAGE: Final = "arize-phoenix"
_START_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 20.0


class PhoenixProgram:
    """Phoenix with every package that it needs, as the constraints pin them."""

    name: Final = "phoenix"

    @cached_property
    def path(self) -> Path:
        """Where the program is, or will be once it is installed."""
        digest = hashlib.sha256(sys.version.encode() + _CONSTRAINTS.read_bytes()).hexdigest()
        return cache() / f"{self.name}-{digest[:16]}" / "bin" / "phoenix"

    @property
    def _finished(self) -> Path:
        return self.path.parents[1] / "finished"

    def is_there(self) -> bool:
        """Whether it was installed to the end."""
        return self._finished.is_file()

    def require(self) -> Path:
        """The installed program; skips the test, and says what to do, where there is none."""
        if not self.is_there():
            pytest.skip("needs a real phoenix: `make servers` installs it, once")
        return self.path

    def build(self) -> Path:
        """Install it unless it is there.

        Raises:
            BuildError: the installation fails, and has said why.
        """
        if not self.is_there():
            # scripts of a virtual environment name its folder, so that it is made in its final place
            home = self.path.parents[1]
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(home)],
                [str(home / "bin" / "pip"), "install", "--quiet", "--constraint", str(_CONSTRAINTS), _PACKAGE],
            ):
                if subprocess.run(command, check=False).returncode != 0:
                    raise BuildError(f"`{' '.join(command)}` has failed, see above")
            self._finished.touch()
        return self.path


PHOENIX: Final = PhoenixProgram()


@contextmanager
def running_phoenix(folder: Path) -> Iterator[str]:
    """Run a Phoenix for as long as the block takes, and give its address; skips the test where there is none."""
    program = PHOENIX.require()
    port, grpc_port = free_ports(2)
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    environment = {
        **os.environ,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with log.open("wb") as output:
        process = subprocess.Popen([program, "serve"], env=environment, stdout=output, stderr=output)
    try:

        def is_ready() -> bool:
            assert process.poll() is None, f"phoenix ended: {log.read_text()[-2_000:]}"
            return answers(f"{url}/v1/projects")

        until(is_ready, f"phoenix is ready; its log: {log}", _START_TIMEOUT_S)
        yield url
    finally:
        process.kill()
        process.wait(_STOP_TIMEOUT_S)
