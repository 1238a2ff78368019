"""`OpenCalls`: which request a logged response answers, where the agent's code does not say."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final, Literal

import msgspec

from tracebridge.recording.place import Place

CallKind = Literal["llm", "tool"]

_MOST_REMEMBERED: Final = 256


class OpenCall(msgspec.Struct, eq=False):
    """A call whose request was logged and whose response was not yet."""

    kind: CallKind
    name: str | None
    """The model, or the tool's name."""
    call_id: str | None
    place: Place
    span_id: str
    started_ns: int
    earlier: OpenCall | None = None
    """The call that was logged before it in the same context and was open then."""
    depth: int = 1
    is_open: bool = True


class OpenCalls:
    """The open calls of one run.

    A response answers a call of its own context (thread or task) before one of another context, and one of
    its own turn before one of a turn that is over. Among those, a tool's result answers the call with its
    call id, else the oldest of its name; a model's response answers the latest request of its model, else the
    latest: an earlier one that is still open has failed and was tried again. In other contexts, where
    requests run in parallel, a model's response answers the oldest request of its model, or the only one
    there is.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, OpenCall] = {}

    def add(self, call: OpenCall) -> None:
        """Note a call whose request was logged here."""
        self._open[call.span_id] = call
        earlier = _LATEST.get()
        while earlier is not None and not earlier.is_open:
            earlier = earlier.earlier
        if earlier is not None and earlier.depth < _MOST_REMEMBERED:
            call.earlier = earlier
            call.depth = earlier.depth + 1
        _LATEST.set(call)

    def take(self, kind: CallKind, name: str | None, call_id: str | None, place: Place) -> OpenCall | None:
        """Find the call that a response answers, and close it; `name` is None where the response has none."""
        latest = _LATEST.get()
        if (
            # the usual case, told apart because it is on the agent's time
            latest is not None
            and latest.earlier is None
            and latest.place is place
            and latest.kind == kind
            and latest.call_id == call_id
            and (latest.name == name or name is None)
            and self._open.pop(latest.span_id, None) is not None
        ):
            latest.is_open = False
            return latest
        for call in self._likeliest_first(kind, name, call_id, place):
            if self._close(call):
                return call
        return None

    def only_tool_here(self) -> OpenCall | None:
        """Return the one tool call that is open in this context; None if there are several, or none."""
        tools = [call for call in self._here() if call.kind == "tool"]
        return tools[0] if len(tools) == 1 else None

    def forget_before(self, monotonic_ns: int) -> None:
        """Drop the calls whose requests are older: nobody waits for their responses."""
        for call in list(self._open.values()):
            if call.started_ns < monotonic_ns:
                self._close(call)

    def _close(self, call: OpenCall) -> bool:
        # popping is atomic: of two responses in two threads only one gets the call
        if self._open.pop(call.span_id, None) is None:
            return False
        call.is_open = False
        return True

    def _here(self) -> list[OpenCall]:
        """Return the open calls of this run in this context, the oldest first."""
        calls = []
        call = _LATEST.get()
        while call is not None:
            if call.span_id in self._open:
                calls.append(call)
            call = call.earlier
        return calls[::-1]

    def _likeliest_first(
        self, kind: CallKind, name: str | None, call_id: str | None, place: Place
    ) -> Iterator[OpenCall]:
        here = self._here()
        mine = [call for call in here if call.kind == kind]
        of_this_turn = [call for call in mine if call.place.turn == place.turn]
        of_turns_that_are_over = [call for call in mine if not call.place.is_open]
        elsewhere = [
            call
            for call in list(self._open.values())
            if call.kind == kind and call.place.turn == place.turn and call not in here
        ]
        if kind == "tool":
            yield from _tools(of_this_turn, name, call_id)
            yield from _tools(of_turns_that_are_over, name, call_id)
            yield from _tools(elsewhere, name, call_id)
        else:
            yield from _latest_requests(of_this_turn, name)
            yield from _latest_requests(of_turns_that_are_over, name)
            yield from elsewhere if len(elsewhere) == 1 else [call for call in elsewhere if call.name == name]


def _tools(calls: list[OpenCall], name: str | None, call_id: str | None) -> list[OpenCall]:
    if call_id is not None:
        same_id = [call for call in calls if call.call_id == call_id]
        if same_id:
            return same_id
        calls = [call for call in calls if call.call_id is None]
    return [call for call in calls if call.name == name]


def _latest_requests(calls: list[OpenCall], model: str | None) -> list[OpenCall]:
    latest_first = calls[::-1]
    same_model = [call for call in latest_first if call.name == model]
    return same_model + [call for call in latest_first if call.name != model]


_LATEST: ContextVar[OpenCall | None] = ContextVar("tracebridge_latest_call", default=None)
