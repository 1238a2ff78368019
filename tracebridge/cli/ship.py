"""`tracebridge ship`: deliver what is recorded."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, settings_of
from tracebridge.cli.delivery import (
    INTERRUPTED,
    InterruptedDeliveryError,
    add_options,
    deliver_all,
    exit_code_of,
    print_delivered,
    say_how_to_go_on,
)
from tracebridge.cli.times import duration, share
from tracebridge.threads import BackgroundThread

if TYPE_CHECKING:
    from tracebridge.config import Settings

LOG_CHECK_S: Final = 5.0
_DESCRIPTION = """\
Delivers everything in the trace folder that a sink has not got yet, then ends.

With --follow it goes on until it is stopped, which is how delivery runs beside agents that are configured with
`delivery: external`. Any number of agents and shippers may work on one trace folder: one of them ships to each sink,
and another takes over when it ends.

With --validate-every it also compares, every so often, what was delivered and not compared yet, as `validate` does.
What is found is told once in the log, and in `tracebridge status`; `tracebridge validations` is the history.

With --until-idle it goes on until everything is delivered and nobody has written for some seconds, and ends at once
where another one does so already. This is what agents start that are configured with `delivery: process`.
"""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "ship", run, "deliver what is recorded to every sink", _DESCRIPTION)
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--follow", action="store_true", help="go on until stopped, whatever --patience says")
    how_long.add_argument(
        "--until-idle", action="store_true", help="go on until nobody writes and everything is delivered"
    )
    parser.add_argument(
        "--detach",
        action="store_true",
        help="with --until-idle: go on in the background and write to .tracebridge/shipper.log in the trace folder",
    )
    parser.add_argument(
        "--validate-every",
        type=duration,
        metavar="AGE",
        help="with --follow: compare what is new with each backend, e.g. every 15m",
    )
    parser.add_argument(
        "--validate-sample",
        type=share,
        metavar="SHARE",
        help="with --validate-every: only a share of the sessions, e.g. 5%% (default: all)",
    )
    parser.set_defaults(usage_error=parser.error)
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Deliver."""
    from tracebridge.journal.file_system import check_file_system

    if arguments.validate_every is not None and not arguments.follow:
        arguments.usage_error("--validate-every is of use with --follow only: else run `tracebridge validate`")
    if arguments.validate_sample is not None and arguments.validate_every is None:
        arguments.usage_error("--validate-sample says of how much --validate-every compares: give that too")
    if arguments.detach and not arguments.until_idle:
        arguments.usage_error("--detach is of use with --until-idle only: it goes on in the background until then")
    if arguments.json and (arguments.follow or arguments.until_idle):
        arguments.usage_error("--json tells what one pass came to: while it goes on, ask `tracebridge status --json`")
    settings = settings_of(arguments)
    check_file_system(settings.trace_dir)
    if not settings.enabled_sinks and not arguments.sink:
        nowhere = f"{settings.source}: no sink but the journal is switched on, so there is nothing to deliver"
        if settings.defective_sinks:
            return 1
        print("[]" if arguments.json else nowhere)
        return 0
    are_all_usable = bool(arguments.sink) or not settings.defective_sinks
    settings = msgspec.structs.replace(settings, sinks=chosen_sinks(settings, arguments.sink))
    if arguments.follow:
        return _follow(settings, arguments.validate_every, arguments.validate_sample or 1.0)
    if arguments.until_idle:
        return _until_idle(settings, detached=arguments.detach)

    try:
        delivered = deliver_all(settings, arguments.patience)
        code = exit_code_of(delivered) if are_all_usable else 1
    except InterruptedDeliveryError as interrupted:
        delivered, code = interrupted.delivered, INTERRUPTED
    if arguments.json:
        print_json(delivered)
    else:
        print_delivered(delivered)
    if code == INTERRUPTED:
        say_how_to_go_on()
    return code


def _follow(settings: Settings, validate_every_s: float | None, sample: float) -> int:
    from tracebridge.delivery.background import BackgroundShipper
    from tracebridge.delivery.pace import FullSpeed

    log = _log()
    stopping = _stopped_by_signals()
    shipper = BackgroundShipper(settings, FullSpeed)
    shipper.start()
    log.info("following %s, delivering to %s", settings.trace_dir, _names(settings))
    validation = None
    if validate_every_s is not None:
        from tracebridge.validation.continuous import ContinuousValidation

        validation = ContinuousValidation(settings, validate_every_s, sample)
        validation.start()
    stopping.wait()
    if validation is not None:
        validation.ask_to_stop()
    shipper.stop(settings.shutdown_timeout)
    if validation is not None:
        validation.join(settings.shutdown_timeout)
    return 0


def _until_idle(settings: Settings, *, detached: bool) -> int:
    from tracebridge.delivery.detached import log_file
    from tracebridge.delivery.lock import process_lock

    if detached:
        from tracebridge.cli.detachment import detach

        if process_lock(settings.trace_dir).holder() is not None:
            return 0
        try:
            detach(log_file(settings.trace_dir))
        except OSError as error:
            print(f"tracebridge: the process cannot go on in the background: {error}", file=sys.stderr)
            return 2
    # imported here: nothing of it may be there when the process forks
    from tracebridge.delivery.lingering import ship_until_idle

    log = _log()
    stopping = _stopped_by_signals()
    if detached:
        _keep_log_short(stopping)
    log.info("shipping from %s to %s until idle", settings.trace_dir, _names(settings))
    try:
        ended = "no more is to be done" if ship_until_idle(settings, stopping) else "another process does so already"
    except OSError as error:
        log.error("shipping has ended: %s", error)
        return 2
    log.info("shipping has ended: %s", "stopped" if stopping.is_set() else ended)
    return 0


def _log() -> logging.Logger:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s", stream=sys.stderr
    )
    # of each request that it makes
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return logging.getLogger("tracebridge")


def _stopped_by_signals() -> threading.Event:
    import signal

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _keep_log_short(stopping: threading.Event) -> None:
    from tracebridge.cli.detachment import bound_log

    def keep() -> None:
        while not stopping.wait(LOG_CHECK_S):
            bound_log()

    bound_log()
    BackgroundThread(target=keep, name="tracebridge-log").start()


def _names(settings: Settings) -> str:
    return ", ".join(sink.name for sink in settings.enabled_sinks)
