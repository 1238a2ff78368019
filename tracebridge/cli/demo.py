"""`tracebridge demo`: the main job, start to end, on embedded defaults."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracebridge.cli.command import Commands, add_command
from tracebridge.errors import MissingExtraError

_DESCRIPTION = """\
Runs an agent with all three sinks on, against a development backend that it starts itself: no Docker, no account.
LangFuse is taken away for a while in the middle; then both backends are read back and compared with the journal.
"""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "demo", run, "the main job, start to end, in under a minute", _DESCRIPTION)
    parser.add_argument(
        "--input", type=Path, metavar="FILE.jsonl", help="run these chat trajectories instead of the scripted agent"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep everything in this folder")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    try:
        from tracebridge import demo
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the demo needs {error.name}: pip install 'tracebridge[all]'") from None
    return demo.run(arguments.input, arguments.folder)
