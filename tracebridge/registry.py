"""The kinds of sink that are installed, found through the entry-point group `tracebridge.sinks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast

import msgspec

from tracebridge.errors import ConfigurationError
from tracebridge.sink import ENTRY_POINT_GROUP, SinkType

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

JOURNAL_TYPE: Final = "jsonl"
"""The one type that is built in: the kept journal. It is no plug-in, because nothing is delivered to it."""

_EXTRAS: Final = {"langfuse": "langfuse", "otel": "otel"}
_MEMBERS: Final = ("settings", "environment", "extra", "capabilities", "endpoint", "open_sink", "open_reader")

Load = Callable[[], object]
"""Imports a plug-in and returns what it offers as its sink type; may raise anything."""


class SinkTypeError(ConfigurationError):
    """A sink type cannot be used."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class DefectivePlugInError(SinkTypeError):
    """A plug-in is installed and cannot be used: that is its own defect and no mistake of the configuration."""


class Registry:
    """Sink types by name. A plug-in is imported when it is first asked for."""

    def __init__(self, loads: Mapping[str, Load]) -> None:
        self._loads = dict(loads)
        self._found: dict[str, SinkType] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all known types, the built-in one first."""
        return (JOURNAL_TYPE, *sorted(self._loads))

    def find(self, name: str) -> SinkType:
        """Return the sink type called `name`.

        Raises:
            SinkTypeError: no such type is installed, or two plug-ins offer it.
            DefectivePlugInError: its plug-in cannot be used.
        """
        if name not in self._found:
            if name not in self._loads:
                raise _unknown(name, self.names)
            self._found[name] = _checked(name, _loaded(name, self._loads[name]))
        return self._found[name]


def installed() -> Registry:
    """Return the sink types of all installed distributions; none of them is imported yet."""
    # imported here: it costs more than the rest of the core, and an agent that only records never needs it
    from importlib.metadata import entry_points

    offers: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        offers.setdefault(entry.name, []).append(entry)
    return Registry({name: _only(name, entries) for name, entries in offers.items()})


def _only(name: str, entries: list[EntryPoint]) -> Load:
    if len({entry.value for entry in entries}) == 1:
        return entries[0].load

    def refuse() -> object:
        rivals = " and ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in entries))
        raise SinkTypeError(f"the sink type {name!r} is offered by {rivals}", "uninstall all but one of them")

    return refuse


def _loaded(name: str, load: Load) -> object:
    try:
        return load()
    except SinkTypeError:
        raise
    except (Exception, SystemExit) as error:  # a plug-in's import runs code that is not ours
        reason = f"{type(error).__name__}: {error}"
        raise DefectivePlugInError(
            f"the plug-in of sink type {name!r} does not import ({reason})",
            "install what it needs, or switch the sink off",
        ) from error


def _checked(name: str, offered: object) -> SinkType:
    try:
        missing = [member for member in _MEMBERS if not hasattr(offered, member)]
        settings = getattr(offered, "settings", None)
    except (Exception, SystemExit) as error:  # properties are code that is not ours, too
        raise DefectivePlugInError(
            f"the plug-in of sink type {name!r} fails when asked what it offers ({type(error).__name__}: {error})",
            "report it to its author, or switch the sink off",
        ) from error
    if not missing and isinstance(settings, type) and issubclass(settings, msgspec.Struct):
        return cast("SinkType", offered)
    reason = f"it has no {', '.join(missing)}" if missing else "its `settings` is no msgspec.Struct class"
    raise DefectivePlugInError(
        f"the plug-in of sink type {name!r} offers no SinkType: {reason}",
        f"its entry point in the group {ENTRY_POINT_GROUP} must name a tracebridge.sink.SinkType",
    )


def _unknown(name: str, known: tuple[str, ...]) -> SinkTypeError:
    if name == JOURNAL_TYPE:
        return SinkTypeError(
            f"{name!r} is the kept journal itself, and there is only one",
            f"switch it at `sinks.{JOURNAL_TYPE}`",
        )
    problem = f"no sink type {name!r} is installed (known: {', '.join(known)})"
    if name in _EXTRAS:
        return SinkTypeError(problem, f"install it with: pip install 'tracebridge[{_EXTRAS[name]}]'")
    return SinkTypeError(problem, "correct `type:` or the sink's name, or install the plug-in that offers it")
