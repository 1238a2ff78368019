"""The command line, `tracebridge`: a caller of the other parts, with nothing of its own.

Each command is a module with `add_to(commands)`, which describes it, and `run(arguments)`, which does it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from tracebridge.cli import (
    backfill,
    config,
    dead,
    demo,
    devserver,
    doctor,
    forget,
    migrate,
    open_,
    prune,
    restore,
    ship,
    status,
    streams,
    validate,
    validations,
)
from tracebridge.errors import TracebridgeError
from tracebridge.version import own_version

_DESCRIPTION = """\
Records what an LLM agent does as JSONL, delivers it to LangFuse and OpenTelemetry, and proves that it arrived.

A first walk:  tracebridge demo
Your own way:  tracebridge config check     is the configuration right?
               tracebridge doctor           does everything work that delivery needs?
               tracebridge ship             deliver what is recorded
               tracebridge backfill OLD     deliver a folder of old traces
               tracebridge validate         does each backend hold what the journal says?
               tracebridge status           what is delivered, pending, refused?
               tracebridge migrate status   what stands between here and the next tier?
               tracebridge dead list        which spans were refused, and why?
"""

_EPILOG = "Exit codes: 0 all is well; 1 something was found or is left undone; 2 it could not be done or not be told."

_BROKEN_PIPE = 141
"""What shells say of a command that nobody reads any more, and that could not come to its end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    code = _BROKEN_PIPE
    streams.prepare()
    try:
        try:
            code = _run(argv)
        except SystemExit as end:  # of help, the version, or an argument that nobody knows
            code = end.code if isinstance(end.code, int) else code
            raise
        finally:
            # at exit it would be too late to notice that nobody reads any more
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # whoever read our output has seen enough; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # what was found is found, though nobody reads it: it must not look as if all were well
        return code
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    # a report says how it was made
    arguments.line = shlex.join(["tracebridge", *(sys.argv[1:] if argv is None else argv)])
    try:
        return int(arguments.run(arguments))
    except TracebridgeError as error:
        _say_why(str(error))
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        # a folder or a disk that nobody has foreseen: exit code 1 would say that something was found
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        _say_why(f"{place}{error.strerror or error}")
        return 2
    except _state_error() as error:
        # a full disk shows where the state is written, which is not only where it is opened
        _say_why(f"the delivery state cannot be used at the moment ({error})")
        return 2


def _state_error() -> type[Exception]:
    """What SQLite raises; looked up only once something is raised, which spares the others its import."""
    import sqlite3

    return sqlite3.Error


def _say_why(text: str) -> None:
    """Print what is wrong; a session, a folder or a backend may have a part in the words."""
    from tracebridge.report.visible import visible

    print(visible(f"tracebridge: {text}"), file=sys.stderr)


class _Version(argparse.Action):
    """Prints the version and ends; argparse's own action would have it looked up at each start."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"tracebridge {own_version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tracebridge",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration, - for standard input; else $TRACEBRIDGE_CONFIG, else ./tracebridge.yaml, else the "
        "defaults",
    )
    parser.add_argument("--version", action=_Version, help="print the version, and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (
        *(demo, ship, backfill, validate, validations, restore, open_, status, doctor),
        *(dead, prune, forget, migrate, config, devserver),
    ):
        command.add_to(commands)
    return parser
