"""Delivering in the foreground, for `ship` and `backfill`: everything there is, then an account of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tracebridge.cli.command import say
from tracebridge.cli.progress import Bar, progress
from tracebridge.cli.times import seconds
from tracebridge.errors import TracebridgeError

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.background import BackgroundShipper
    from tracebridge.delivery.backlog import Left
    from tracebridge.delivery.records import Account
    from tracebridge.delivery.state import State


INTERRUPTED: Final = 130
"""The exit code of a command that Ctrl-C has ended, as shells have it."""
_LOOK_EVERY_S: Final = 0.5


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What one sink got."""

    sink: str
    endpoint: str
    spans: int
    """Spans that it took over."""
    found: int
    """Spans that it turned out to hold already, or to get from the original of what is a copy."""
    events: int
    """Events that all those spans were made of."""
    dead: int
    """Spans that it refused and that are dead letters now."""
    left: int
    """Events that it has not taken yet."""
    left_is_exact: bool
    """Whether those were counted to the end; if not, there are at least so many."""
    trouble: str
    """What keeps it from taking them; empty while it works."""


class InterruptedDeliveryError(TracebridgeError):
    """Somebody pressed Ctrl-C; what is delivered stays delivered, and the rest is in the journals."""

    def __init__(self, delivered: list[Delivered]) -> None:
        super().__init__("interrupted")
        self.delivered = delivered


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every delivering command takes."""
    parser.add_argument("--sink", action="append", metavar="NAME", help="only to this sink; may be given again")
    parser.add_argument(
        "--patience",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="give up when no sink has taken anything for so long, e.g. 30 or 15m (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def deliver_all(
    settings: Settings, patience_s: float, *, max_rps: float | None = None, lines_every_s: float | None = None
) -> list[Delivered]:
    """Deliver everything; give up when for `patience_s` seconds no sink has taken anything.

    Each sink is sent at most `max_rps` requests a second. `lines_every_s` is as for `progress`.

    Raises:
        InterruptedDeliveryError: it was interrupted before the end.
    """
    from tracebridge.delivery.background import BackgroundShipper
    from tracebridge.delivery.backlog import Left
    from tracebridge.delivery.pace import FullSpeed

    with _state(settings) as state:
        before = list(_targets(settings, state))
    shipper = BackgroundShipper(settings, lambda: FullSpeed(max_rps))
    shipper.start()
    is_interrupted = False
    try:
        with progress("delivering", "bytes", lines_every_s) as bar:
            # a limit may keep a sink waiting by itself
            left = _deliver(settings, shipper, patience_s + (2 / max_rps if max_rps else 0.0), bar)
        lefts = {name: Left(events) for name, events in shipper.pending_by_sink().items()} if left else {}
        troubles = shipper.troubles()
        shipper.close()
    except KeyboardInterrupt:
        is_interrupted, troubles = True, shipper.troubles()
        # counted no longer than somebody likes to wait who has pressed Ctrl-C
        lefts = shipper.close()
    with _state(settings) as state:
        delivered = [_delivered(state, was, troubles, lefts) for was in before]
    if is_interrupted:
        raise InterruptedDeliveryError(delivered)
    return delivered


def _deliver(settings: Settings, shipper: BackgroundShipper, patience_s: float, bar: Bar) -> bool:
    """Wait until everything is delivered, or nothing more will be; whether something is left."""
    total, moved_at, confirmed = 0, time.monotonic(), -1
    while not _catches_up(shipper):
        pending = shipper.pending_bytes()
        total = max(total, pending)
        bar.update(total - pending, total)
        now_confirmed = _confirmed(settings)
        if now_confirmed != confirmed:
            confirmed, moved_at = now_confirmed, time.monotonic()
        elif time.monotonic() - moved_at > patience_s:
            return True
    return shipper.is_behind()


def _delivered(state: State, was: _Before, troubles: dict[str, str], lefts: dict[str, Left]) -> Delivered:
    account, sink = state.account(was.target), was.account.sink
    left = lefts.get(sink)
    found = account.more(was.account, "found_spans")
    return Delivered(
        sink=sink,
        endpoint=account.endpoint,
        spans=account.more(was.account, "confirmed_spans") - found,
        found=found,
        events=account.more(was.account, "confirmed_events"),
        # some that were dead before may have been sent again
        dead=state.dead.count_after(was.target, was.account.latest_dead),
        left=left.events if left else 0,
        left_is_exact=left is None or left.is_exact,
        trouble=troubles.get(sink, ""),
    )


def _catches_up(shipper: BackgroundShipper) -> bool:
    began = time.monotonic()
    if shipper.catches_up(_LOOK_EVERY_S):
        return True
    # sinks in trouble are not waited for
    time.sleep(max(0.0, began + _LOOK_EVERY_S - time.monotonic()))
    return False


def exit_code_of(delivered: list[Delivered]) -> int:
    """1 if anything is left or was refused, else 0."""
    return 1 if any(one.left or one.dead or one.trouble for one in delivered) else 0


def print_delivered(delivered: list[Delivered]) -> None:
    """Print the account for people."""
    for one in delivered:
        of = f" of {one.events:,} events" if one.events else ""
        sent = f"{one.spans:,} spans{of}" if one.spans else "nothing new"
        say(f"{one.sink}: {sent} delivered to {one.endpoint}")
        if one.found:
            print(f"  {one.found:,} spans were not sent, because it holds them already or gets them from elsewhere")
        if one.dead:
            print(f"  {one.dead:,} spans were refused and are dead letters: see `tracebridge status`")
        if one.trouble:
            say(f"  {one.trouble}")
        if one.left:
            at_least = "" if one.left_is_exact else "at least "
            print(f"  {at_least}{one.left:,} events are left; they stay in the journal and are delivered the next time")


def say_how_to_go_on() -> None:
    """After Ctrl-C."""
    print("interrupted: run the same command again to go on where it stopped", file=sys.stderr)


class _Before(NamedTuple):
    """A target, and how it was before anything was delivered."""

    target: int
    account: Account


def _targets(settings: Settings, state: State) -> Iterator[_Before]:
    for sink in settings.enabled_sinks:
        target = state.target(sink.name, sink.endpoint)
        yield _Before(target, state.account(target))


def _confirmed(settings: Settings) -> int:
    with _state(settings) as state:
        return sum(state.confirmed(state.target(sink.name, sink.endpoint)) for sink in settings.enabled_sinks)


@contextmanager
def _state(settings: Settings) -> Iterator[State]:
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    state = State(layout.state_file(settings.trace_dir))
    try:
        yield state
    finally:
        state.close()
