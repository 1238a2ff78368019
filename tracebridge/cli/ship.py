"""`tracebridge ship`: deliver what is recorded."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from typing import TYPE_CHECKING

import msgspec

from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, settings_of
from tracebridge.cli.delivery import add_options, deliver_all, exit_code_of, print_delivered

if TYPE_CHECKING:
    from tracebridge.config import Settings

_DESCRIPTION = """\
Delivers everything in the trace folder that a sink has not got yet, then ends.

With --follow it goes on until it is stopped, which is how delivery runs beside agents that are configured with
`delivery: external`. Any number of agents and shippers may work on one trace folder: one of them ships to each sink,
and another takes over when it ends.
"""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "ship", run, "deliver what is recorded to every sink", _DESCRIPTION)
    parser.add_argument("--follow", action="store_true", help="go on until stopped, whatever --patience says")
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Deliver."""
    from tracebridge.journal.file_system import check_file_system

    settings = settings_of(arguments)
    check_file_system(settings.trace_dir)
    if not settings.enabled_sinks and not arguments.sink:
        nowhere = f"{settings.source}: no sink but the journal is switched on, so there is nothing to deliver"
        print("[]" if arguments.json else nowhere)
        return 0
    settings = msgspec.structs.replace(settings, sinks=chosen_sinks(settings, arguments.sink))
    if arguments.follow:
        return _follow(settings)

    delivered = deliver_all(settings, arguments.patience)
    if arguments.json:
        print_json(delivered)
    else:
        print_delivered(delivered)
    return exit_code_of(delivered)


def _follow(settings: Settings) -> int:
    import signal

    from tracebridge.delivery.background import BackgroundShipper
    from tracebridge.delivery.pace import FullSpeed

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    shipper = BackgroundShipper(settings, FullSpeed)
    shipper.start()
    names = ", ".join(sink.name for sink in settings.enabled_sinks)
    logging.getLogger("tracebridge").info("following %s, delivering to %s", settings.trace_dir, names)
    while not stopped.wait(1.0) and shipper.is_alive():
        pass
    left = shipper.stop(settings.shutdown_timeout)
    if left:
        logging.getLogger("tracebridge").warning("stopped with %d events left; they are delivered the next time", left)
    return 0 if stopped.is_set() else 1
