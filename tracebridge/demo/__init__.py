"""The demo: an agent, three sinks, an outage, and two backends read back and compared, in under a minute."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Final

from tracebridge.demo.backend import running_backend
from tracebridge.demo.console import Console
from tracebridge.demo.scenario import OrderDesk, Scenario
from tracebridge.demo.story import Story
from tracebridge.demo.trajectories import Trajectories
from tracebridge.demo.workspace import opened_workspace
from tracebridge.errors import MissingExtraError

_NEEDED: Final = ("httpx", "opentelemetry", "starlette", "uvicorn")


def run(input: Path | None = None, folder: Path | None = None, console: Console | None = None) -> int:
    """Run the demo.

    Args:
        input: chat trajectories to run instead of the scripted agent.
        folder: where to keep everything; by default, nothing is kept.
        console: where to tell it; by default, standard output.

    Returns:
        0 if everything came out as it should, else 1.

    Raises:
        TracebridgeError: it cannot be run; the message says why, and what to do.
    """
    _check_extras()
    _ask_no_proxy_for_the_loopback()
    scenario: Scenario = OrderDesk() if input is None else Trajectories(input)
    with (
        opened_workspace(folder) as workspace,
        running_backend(workspace.backend_db, workspace.backend_log) as backend,
    ):
        return Story(scenario, workspace, backend, console or Console()).tell()


def _check_extras() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the demo needs packages that are not installed ({', '.join(missing)}): pip install 'tracebridge[all]'"
        )


def _ask_no_proxy_for_the_loopback() -> None:
    """Let the sinks reach the backend where the environment names a proxy for everything."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
