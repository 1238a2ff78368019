"""What the commands share: how they describe themselves, find their settings and print JSON."""

from __future__ import annotations

import argparse
import codecs
import json
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from tracebridge import jsonvalue
from tracebridge.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from tracebridge.config import Settings, SinkSettings

Commands = Any
"""argparse keeps the type of what `add_subparsers` returns to itself."""

_BEYOND_ASCII: Final = re.compile("[^\\x00-\\x7f]")


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, description: str
) -> argparse.ArgumentParser:
    """Add a command: `summary` stands in the list of commands, `description` in its own help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def source_of(arguments: argparse.Namespace) -> Path | bytes | None:
    """Where the configuration of the command stands; with `--config -`, what it says."""
    from tracebridge.config import locate

    return sys.stdin.buffer.read() if arguments.config == "-" else locate(arguments.config)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that the command works with.

    Raises:
        ConfigurationError: the configuration has a mistake.
    """
    from tracebridge.config import load

    return load(source_of(arguments))


def chosen_sinks(settings: Settings, names: list[str] | None) -> tuple[SinkSettings, ...]:
    """The enabled sinks, or those of them that were named.

    Raises:
        ConfigurationError: a named sink is not there or not switched on, or no sink is switched on at all.
    """
    enabled = {sink.name: sink for sink in settings.enabled_sinks}
    for name in names or ():
        if name not in enabled:
            known = ", ".join(enabled) or "none"
            raise ConfigurationError(
                f"{settings.source}: no sink called {name!r} is switched on (switched on: {known}); "
                f"add it under `agent_trace.sinks`"
            )
    if not enabled:
        raise ConfigurationError(
            f"{settings.source}: no sink but the journal is switched on, so there is nowhere to deliver to; add one, "
            "e.g. `langfuse:` or `otel:`, under `agent_trace.sinks`"
        )
    return tuple(enabled[name] for name in dict.fromkeys(names or enabled))


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line; whoever wrote what is in it must not command the terminal."""
    from tracebridge.report.visible import in_one_line

    print(in_one_line(text), file=file)


def print_json(value: object) -> None:
    """Print a value of records and builtins as indented JSON."""
    text = msgspec.json.format(jsonvalue.encode(value), indent=2).decode()
    if codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8":
        # programs read JSON as UTF-8, whatever a terminal wants
        text = _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    sys.stdout.write(text + "\n")
