"""Where a configuration stands on the way from JSONL to OpenTelemetry, and which switch is the next."""

from __future__ import annotations

from typing import Final

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.errors import TracebridgeError

JOURNAL: Final = "jsonl"
"""The name of the journal among the sinks."""
_LAST_TYPE: Final = "otel"
_TO_ADD: Final = {
    "langfuse": "langfuse: {host: ..., public_key: '${LANGFUSE_PUBLIC_KEY}', secret_key: '${LANGFUSE_SECRET_KEY}'}",
    "otel": "otel: {endpoint: ..., reader: {type: jaeger, url: ...}}",
}


class MigrationError(TracebridgeError):
    """A step cannot be made, or not be undone: says why, and what to do."""


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """A place on the way."""

    number: int
    name: str
    sinks: tuple[str, ...]
    """What is switched on, the journal first."""


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """The one change that a step makes."""

    sink: str
    """`jsonl` for the journal."""
    on: bool
    share: float | None = None
    """Where only the share of sessions changes that the sink is sent: the new one, from 0 to 1."""

    @property
    def path(self) -> tuple[str, ...]:
        """The keys in the configuration that lead to what is changed."""
        below = ("enabled",) if self.share is None else ("policy", "sample_rate")
        return "agent_trace", "sinks", self.sink, *below

    def __str__(self) -> str:
        if self.share is not None:
            return f"send {self.share:.2%} of the sessions to {self.sink}"
        return f"switch {self.sink} {'on' if self.on else 'off'}"


def tier_of(settings: Settings) -> Tier:
    """Where a configuration stands."""
    backends = [sink for sink in settings.sinks if sink.enabled]
    names = (*((JOURNAL,) if settings.keep_journal else ()), *(sink.name for sink in backends))
    if not backends:
        return Tier(number=1, name="JSONL", sinks=names)
    if any(sink.type == _LAST_TYPE for sink in backends):
        return Tier(number=3, name="OpenTelemetry", sinks=names)
    if settings.keep_journal:
        return Tier(number=2, name="dual-write", sinks=names)
    return Tier(number=2, name="LangFuse" if backends[0].type == "langfuse" else backends[0].name, sinks=names)


def next_switch(settings: Settings) -> Switch:
    """The step that follows from what is switched on.

    Raises:
        MigrationError: it cannot be made from what the configuration holds: says what to add.
    """
    on = [sink for sink in settings.sinks if sink.enabled]
    off = [sink for sink in settings.sinks if not sink.enabled]
    if on and settings.keep_journal:
        return Switch(sink=JOURNAL, on=False)
    last = [sink for sink in on if sink.type == _LAST_TYPE]
    if last and len(on) == len(last):
        raise MigrationError("this is the last tier: only OpenTelemetry is sent to, and no step follows")
    if last:
        return Switch(sink=next(sink.name for sink in on if sink.type != _LAST_TYPE), on=False)
    wanted = "otel" if on else "langfuse"
    # from the journal alone any backend is a step; from LangFuse only the next tier is
    choice = [sink for sink in off if not on or sink.type == _LAST_TYPE]
    if len(choice) == 1:
        return Switch(sink=choice[0].name, on=True)
    if choice:
        names = ", ".join(sink.name for sink in choice)
        raise MigrationError(
            f"{settings.source}: several sinks are there and switched off ({names}): say which with --on SINK"
        )
    raise MigrationError(
        f"{settings.source}: no backend is there to switch on; add one under `agent_trace.sinks`, e.g.\n"
        f"  {_TO_ADD[wanted]}\n"
        "then `tracebridge doctor` tells whether it works, and `tracebridge backfill` sends the past"
    )


def asked_switch(settings: Settings, *, on: str | None = None, off: str | None = None) -> Switch:
    """The step that was asked for by name.

    Raises:
        MigrationError: there is nothing of that name to switch so.
    """
    name = on or off or ""
    switch = Switch(sink=name, on=on is not None)
    sink = settings.sink(name)
    if name == JOURNAL:
        is_on = settings.keep_journal
    elif sink is not None:
        is_on = sink.enabled
    else:
        known = ", ".join((JOURNAL, *(one.name for one in settings.sinks)))
        raise MigrationError(f"{settings.source}: there is no sink called {name!r} (known: {known})")
    if is_on is switch.on:
        raise MigrationError(f"{settings.source}: {name} is switched {'on' if is_on else 'off'} already")
    return switch


def after(settings: Settings, switch: Switch) -> Settings:
    """The settings as the switch makes them."""
    if switch.sink == JOURNAL:
        return msgspec.structs.replace(settings, keep_journal=switch.on)
    return msgspec.structs.replace(
        settings, sinks=tuple(_after(sink, switch) if sink.name == switch.sink else sink for sink in settings.sinks)
    )


def _after(sink: SinkSettings, switch: Switch) -> SinkSettings:
    if switch.share is None:
        return msgspec.structs.replace(sink, enabled=switch.on)
    return msgspec.structs.replace(sink, policy=msgspec.structs.replace(sink.policy, sample_rate=switch.share))
