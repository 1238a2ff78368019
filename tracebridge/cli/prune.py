"""`tracebridge prune`: delete old sessions whose content every sink has."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tracebridge.cli.command import Commands, add_command, print_json, say, settings_of
from tracebridge.cli.times import duration

if TYPE_CHECKING:
    from tracebridge.delivery.removal import Removed

_DESCRIPTION = """\
Deletes the files of sessions that were written to last longer ago than --older-than, from the trace folder alone.

A session stays, and is named, if its last run is not over, if a sink that is switched on has not got all of it, if a
sink that can be read back does not show all of it, or if a sink that is switched off is still owed some of it.
"""

_MOST_NAMED = 20


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "prune", run, "delete old sessions that every sink has", _DESCRIPTION)
    parser.add_argument(
        "--older-than", type=duration, required=True, metavar="AGE", help="for example 30d, 12h, 45m, 10s or 2w"
    )
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, tell what would be deleted")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Delete; 1 if something that is old enough had to stay."""
    from tracebridge.delivery.removal import Removal
    from tracebridge.journal import layout
    from tracebridge.journal.spooled import SpooledLog

    settings = settings_of(arguments)
    # noted so that nobody wonders at what a backend shows of a session that is entered again
    removal = Removal(settings, noted_in=SpooledLog(settings.trace_dir, layout.pruned_log(settings.trace_dir)))
    try:
        removed = removal.remove_older_than(arguments.older_than, dry_run=arguments.dry_run)
    finally:
        removal.close()
    if arguments.json:
        print_json(removed)
    else:
        _print(removed, dry_run=arguments.dry_run)
    return 1 if removed.refused else 0


def _print(removed: Removed, *, dry_run: bool) -> None:
    done = "would be deleted" if dry_run else "deleted"
    print(f"{len(removed.sessions):,} sessions {done}, {removed.bytes:,} bytes")
    for refusal in removed.refused[:_MOST_NAMED]:
        say(f"kept {refusal.session}: {refusal.reason}")
    if len(removed.refused) > _MOST_NAMED:
        print(f"… and {len(removed.refused) - _MOST_NAMED:,} more had to stay: --json tells all")
