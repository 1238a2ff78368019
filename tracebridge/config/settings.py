"""The settings as the rest of tracebridge uses them: complete, typed, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from tracebridge.page import Paged
from tracebridge.policy import Policy
from tracebridge.sink import Capabilities, Reader, Sink, SinkType

Delivery = Literal["thread", "process", "external"]
"""In a background thread of the agent's process, in a process that is started for it and outlives the agent until it
has nothing more to do, or wherever an operator runs `tracebridge ship`."""

TraceScope = Literal["turn", "session"]
"""What one trace spans."""

DEFAULT_MAX_CONTENT_LENGTH: Final = 10_000
"""Characters, as in the original Agent Trace."""

LONGEST_S: Final = 1_000_000_000
"""The longest time that can be asked for, in seconds: thirty years. Clocks and timers fail on much more."""
DEFAULT_SPOOL_KEEP_S: Final = 86_400.0
"""A day."""


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One sink that the configuration names."""

    name: str
    type: str
    enabled: bool
    policy: Policy
    """What the sink is sent; never more than what capture keeps."""
    settings: msgspec.Struct | None
    """The record that `sink_type.settings` defines; None only without a `sink_type`, or in a sink that is switched off
    and incomplete."""
    sink_type: SinkType | None
    """What opens the sink; None only in a sink that is switched off, or whose plug-in is defective."""
    defect: str = ""
    """Why the sink's plug-in cannot be used, though it is installed; empty if it can."""

    @property
    def endpoint(self) -> str:
        """Where the sink sends to, for people, without credentials."""
        sink_type, settings = self._complete()
        return sink_type.endpoint(settings)

    @property
    def capabilities(self) -> Capabilities:
        """What the sink declares about its backend."""
        sink_type, settings = self._complete()
        return sink_type.capabilities(settings)

    def repeats(self, other: SinkSettings) -> bool:
        """Whether what it sends is stored where the other's is, as far as can be told from here.

        Headers that differ, such as those of two tenants, keep sinks with the same address apart, and so do resource
        attributes and what stands behind the address's `?`.
        """
        if self.type != other.type or self.settings is None or other.settings is None:
            return False
        return self.endpoint == other.endpoint and _apart(self.settings) == _apart(other.settings)

    def trace_url(self, trace_id: str) -> str:
        """The address of the backend's page of a trace; empty if there is none that is known."""
        sink_type, settings = self._complete()
        return sink_type.trace_url(settings, trace_id) if isinstance(sink_type, Paged) else ""

    def open_sink(self) -> Sink:
        """Open the sink; see `SinkType.open_sink`."""
        sink_type, settings = self._complete()
        return sink_type.open_sink(settings)

    def open_reader(self) -> Reader:
        """Open the sink's reader; see `SinkType.open_reader`."""
        sink_type, settings = self._complete()
        return sink_type.open_reader(settings)

    def _complete(self) -> tuple[SinkType, msgspec.Struct]:
        if self.sink_type is None or self.settings is None:
            raise ValueError(f"sink {self.name} cannot be opened: {self.defect or 'it is switched off and incomplete'}")
        return self.sink_type, self.settings


def _apart(settings: msgspec.Struct) -> tuple[dict[str, object], set[str]]:
    """What may keep sinks with one address apart: headers, resources and the like, and the addresses' parameters."""
    values = msgspec.structs.asdict(settings)
    texts = [value for value in values.values() if isinstance(value, str)]
    return (
        {key: value for key, value in values.items() if isinstance(value, dict)},
        {parameters for parameters in (text.partition("?")[2] for text in texts if "://" in text) if parameters},
    )


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """How much evidence `tracebridge migrate` asks for before something is switched off."""

    min_sessions: Annotated[int, msgspec.Meta(ge=0)] = 100
    """The fewest sessions that were compared and are clean."""
    min_days: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 1.0
    """The least time from the beginning of the first of them to that of the last, in days."""
    fresh_within: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)] = 86_400.0
    """The oldest that the newest validation may be, in seconds."""
    pending_within: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)] = 60.0
    """The oldest that something may be that a sink has not taken, in seconds."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The effective configuration."""

    enabled: bool = True
    """Whether anything is recorded."""
    trace_dir: Path
    """The folder of the journal, absolute."""
    capture: Policy = Policy(max_content_length=DEFAULT_MAX_CONTENT_LENGTH)
    """What enters the journal."""
    environment: str = ""
    """Default for sessions that name none."""
    release: str = ""
    """Default for sessions that name none."""
    delivery: Delivery = "thread"
    shutdown_timeout: float = 2.0
    """The most seconds that the exit of the process waits for delivery."""
    orphan_after: float = 3600.0
    """The seconds after which a run without events is over."""
    trace_scope: TraceScope = "turn"
    propagate: bool = False
    """Whether turns continue the agent's own active trace, and our spans are the active ones inside."""
    keep_journal: bool = True
    """`sinks.jsonl.enabled`: whether the journal stays; else a session goes once every sink has it."""
    spool_keep: float = DEFAULT_SPOOL_KEEP_S
    """The seconds that a session's files stay in a spool after they were last written to."""
    migration: Demands = Demands()
    """What the gate asks for."""
    sinks: tuple[SinkSettings, ...] = ()
    """The sinks that are delivered to, in the order of the file; the kept journal is not one of them."""
    source: str = "defaults"
    """The file that was read, `configuration` for a mapping, `defaults` for none."""
    origins: Mapping[str, str] = {}
    """By key path, where a value came from; a path that is not here has its default."""

    @property
    def enabled_sinks(self) -> tuple[SinkSettings, ...]:
        """The sinks that are switched on and can be delivered to."""
        return tuple(sink for sink in self.sinks if sink.enabled and not sink.defect)

    @property
    def defective_sinks(self) -> tuple[SinkSettings, ...]:
        """The sinks that are switched on and whose plug-in cannot be used: the others are delivered to as ever."""
        return tuple(sink for sink in self.sinks if sink.enabled and sink.defect)

    @property
    def repeating_sinks(self) -> tuple[tuple[SinkSettings, SinkSettings], ...]:
        """The sinks that store once more what one before them stores, each with that one."""
        found = []
        for place, sink in enumerate(self.enabled_sinks):
            before = next((other for other in self.enabled_sinks[:place] if sink.repeats(other)), None)
            if before is not None:
                found.append((sink, before))
        return tuple(found)

    def sink(self, name: str) -> SinkSettings | None:
        """The sink called `name`, if the configuration has it."""
        return next((sink for sink in self.sinks if sink.name == name), None)
