"""`Propagation`: what the agent's own telemetry has open here, and what it is told to have.

The core knows no telemetry. A plug-in of the entry-point group `tracebridge.propagation` does, and is loaded only where
`propagate: true` asks for it.
"""

from __future__ import annotations

from typing import Final, cast

from tracebridge.errors import MissingExtraError
from tracebridge.tracecontext import Propagation, TraceContext
from tracebridge.trouble import Trouble

ENTRY_POINT_GROUP: Final = "tracebridge.propagation"
_WITHOUT: Final = "Recording goes on; calls to other services are not connected to it"


class NoPropagation:
    """The agent's telemetry is left alone."""

    def active(self) -> None:
        """Nothing is looked for."""

    def enter(self, context: TraceContext) -> None:
        """Nothing is made active."""

    def leave(self, entered: object) -> None:
        """Nothing was."""


class GuardedPropagation:
    """A plug-in whose defects never reach the agent: after the first it is left alone."""

    def __init__(self, plug_in: Propagation, trouble: Trouble) -> None:
        self._plug_in: Propagation = plug_in
        self._trouble = trouble

    def active(self) -> TraceContext | None:
        """As the plug-in tells."""
        try:
            return self._plug_in.active()
        except Exception as error:
            self._give_up(error)
            return None

    def enter(self, context: TraceContext) -> object:
        """As the plug-in does."""
        try:
            return self._plug_in.enter(context)
        except Exception as error:
            self._give_up(error)
            return None

    def leave(self, entered: object) -> None:
        """As the plug-in does."""
        if entered is None:
            return
        try:
            self._plug_in.leave(entered)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._plug_in = NoPropagation()
        self._trouble.report("propagation", error, _WITHOUT)


def propagation(trouble: Trouble) -> Propagation:
    """Return the installed plug-in; one that does nothing, and a word in the log, if there is none that works."""
    # imported here: only an agent that propagates needs it
    from importlib.metadata import entry_points

    try:
        for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
            return GuardedPropagation(cast("Propagation", entry.load()()), trouble)
        raise MissingExtraError(f"nothing offers itself as a plug-in of the group {ENTRY_POINT_GROUP}")
    except (Exception, SystemExit) as error:  # a plug-in's import runs code that is not ours
        trouble.report("propagation", error, _WITHOUT)
        return NoPropagation()
