"""Delivering in the foreground, for `ship` and `backfill`: everything there is, then an account of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tracebridge.cli.progress import progress

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.background import BackgroundShipper
    from tracebridge.delivery.records import Account
    from tracebridge.delivery.state import State


_LOOK_EVERY_S: Final = 0.5


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What one sink got."""

    sink: str
    endpoint: str
    spans: int
    """Spans that it took over."""
    events: int
    """Events that those spans were made of."""
    dead: int
    """Spans that it refused and that are dead letters now."""
    left: int
    """Events that it has not taken yet."""
    trouble: str
    """What keeps it from taking them; empty while it works."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every delivering command takes."""
    parser.add_argument("--sink", action="append", metavar="NAME", help="only to this sink; may be given again")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="give up when no sink has taken anything for so long (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def deliver_all(settings: Settings, patience_s: float) -> list[Delivered]:
    """Deliver everything; give up when for `patience_s` seconds no sink has taken anything."""
    from tracebridge.delivery.background import BackgroundShipper
    from tracebridge.delivery.pace import FullSpeed

    with _state(settings) as state:
        before = list(_targets(settings, state))
    shipper = BackgroundShipper(settings, FullSpeed)
    shipper.start()
    total, moved_at, confirmed = 0, time.monotonic(), -1
    with progress("delivering", "bytes") as bar:
        while left := _flush(shipper):
            pending = shipper.pending_bytes()
            total = max(total, pending)
            bar.update(total - pending, total)
            now_confirmed = _confirmed(settings)
            if now_confirmed != confirmed:
                confirmed, moved_at = now_confirmed, time.monotonic()
            elif time.monotonic() - moved_at > patience_s or shipper.is_hopeless():
                break
    troubles = shipper.troubles()
    lefts = shipper.pending_by_sink() if left else {}
    shipper.close()
    with _state(settings) as state:
        return [_delivered(state, was, troubles, lefts) for was in before]


def _delivered(state: State, was: _Before, troubles: dict[str, str], lefts: dict[str, int]) -> Delivered:
    account, sink = state.account(was.target), was.account.sink
    return Delivered(
        sink=sink,
        endpoint=account.endpoint,
        spans=account.counters.get("confirmed_spans", 0) - was.account.counters.get("confirmed_spans", 0),
        events=account.counters.get("confirmed_events", 0) - was.account.counters.get("confirmed_events", 0),
        # some that were dead before may have been sent again
        dead=state.dead.count_after(was.target, was.account.latest_dead),
        left=lefts.get(sink, 0),
        trouble=troubles.get(sink, ""),
    )


def _flush(shipper: BackgroundShipper) -> int:
    began = time.monotonic()
    left = shipper.flush(_LOOK_EVERY_S)
    if left:
        # a sink that cannot work is not waited for
        time.sleep(max(0.0, began + _LOOK_EVERY_S - time.monotonic()))
    return left


def exit_code_of(delivered: list[Delivered]) -> int:
    """1 if anything is left or was refused, else 0."""
    return 1 if any(one.left or one.dead or one.trouble for one in delivered) else 0


def print_delivered(delivered: list[Delivered]) -> None:
    """Print the account for people."""
    for one in delivered:
        sent = f"{one.spans:,} spans of {one.events:,} events" if one.spans else "nothing new"
        print(f"{one.sink}: {sent} delivered to {one.endpoint}")
        if one.dead:
            print(f"  {one.dead:,} spans were refused and are dead letters: see `tracebridge status`")
        if one.trouble:
            print(f"  {one.trouble}")
        if one.left:
            print(f"  {one.left:,} events are left; they stay in the journal and are delivered the next time")


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
