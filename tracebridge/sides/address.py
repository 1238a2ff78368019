"""What `--left` and `--right` may say, and the side that each of it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tracebridge import policy as policies
from tracebridge.config import Settings, SinkSettings
from tracebridge.diagnosis import is_probe
from tracebridge.errors import ConfigurationError
from tracebridge.policy import Policy
from tracebridge.registry import installed
from tracebridge.sides.dump import dump_files, dump_side
from tracebridge.sides.folder import folder_side
from tracebridge.sides.live import live_side
from tracebridge.sides.side import Notes, Side
from tracebridge.sink import Export, Loss, SinkType
from tracebridge.span import Span

FORMS: Final = (
    "folder:DIR (journals, also of the original format), sink:NAME (what a configured sink's backend shows), "
    "TYPE-export:PATH (files that a backend of that type has exported, such as langfuse-export:PATH) or "
    "spans:PATH (what --save-left or --save-right has written)"
)

_EXPORT: Final = "-export"


def sides_of(addresses: Sequence[str], settings: Settings, like: str | None = None) -> list[Side]:
    """The sides that the addresses name.

    Journals are read under the policies of all sinks that are concerned, and spans are compared up to their declared
    losses: those that are sides, and the one called `like`, which stands for a source that does not tell, such as an
    export or a dump.

    Raises:
        ConfigurationError: an address is none, or names what is not there.
        MissingExtraError: the packages of a sink's type are not installed.
    """
    concerned = [_sink(settings, name) for name in (like, *map(_sink_name, addresses)) if name]
    policy = Policy()
    for sink in concerned:
        policy = policies.narrow(policy, sink.policy)
    losses = tuple(loss for sink in concerned if sink.sink_type for loss in sink.capabilities.losses)
    return [_side(address, settings, policy, losses) for address in addresses]


def _side(address: str, settings: Settings, policy: Policy, losses: tuple[Loss, ...]) -> Side:
    kind, _, place = address.partition(":")
    match kind:
        case _ if not place:
            raise ConfigurationError(f"{address!r} names no side; a side is {FORMS}")
        case "folder":
            return folder_side(address, Path(place), policy)
        case "sink":
            return live_side(address, _sink(settings, place))
        case "spans":
            return dump_side(address, Path(place), losses)
        case _ if kind.endswith(_EXPORT):
            return _export_side(address, kind.removesuffix(_EXPORT), Path(place))
        case _:
            raise ConfigurationError(f"{address!r} names no side: {kind!r} is not known; a side is {FORMS}")


def _export_side(address: str, type_name: str, path: Path) -> Side:
    sink_type: SinkType = installed().find(type_name)
    open_export = getattr(sink_type, "open_export", None)
    if open_export is None:
        raise ConfigurationError(f"{address}: tracebridge reads no exports of the sink type {type_name!r}")
    export: Export = open_export(dump_files(address, path))
    return Side(name=address, read=partial(_spans_of_export, export), losses=export.losses)


def _spans_of_export(export: Export, notes: Notes) -> Iterator[Span]:
    for span in export.read():
        if not is_probe(span.session_id):
            yield span


def _sink_name(address: str) -> str:
    kind, _, place = address.partition(":")
    return place if kind == "sink" else ""


def _sink(settings: Settings, name: str) -> SinkSettings:
    sink = settings.sink(name)
    if sink is None:
        known = ", ".join(sink.name for sink in settings.sinks) or "none"
        raise ConfigurationError(f"{settings.source}: there is no sink called {name!r} (there are: {known})")
    return sink
