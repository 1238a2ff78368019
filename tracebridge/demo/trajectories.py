"""`Trajectories`: recorded chats, in the form of OpenAI's chat messages, run through the public API again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from tracebridge import Session, trace_session, trace_turn
from tracebridge.demo.scenario import PlayedTurn, played
from tracebridge.errors import TracebridgeError

_FORM: Final = (
    'Each line must be an object like {"task_id": 0, "trial": 0, "reward": 1.0, "user_id": "u", "messages": [...]}, '
    "with OpenAI chat messages, of which at least one is a user's"
)

Content = str | list[Any] | None


class TrajectoryError(TracebridgeError):
    """The file of trajectories cannot be used: names the file, the line, and what to do."""


class ToolFunction(msgspec.Struct, frozen=True):
    """Which function a model wants to be called, and with what."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolRequest(msgspec.Struct, frozen=True):
    """One entry of an assistant message's `tool_calls`."""

    id: str
    function: ToolFunction


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One chat message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: list[ToolRequest] | None = None
    tool_call_id: str | None = None


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """One chat."""

    task_id: int | str
    trial: int | str = 0
    reward: float | None = None
    user_id: str | None = None
    model: str | None = None
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]


class Trajectories:
    """The chats of one file, each a session: a turn for each message of the user, with the calls that follow it."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            TrajectoryError: it cannot be read, or a line of it is not a trajectory.
        """
        self._path = path
        self._trajectories = list(_read(path))
        if not self._trajectories:
            raise TrajectoryError(f"{path}: the file holds no trajectory. {_FORM}")

    @property
    def title(self) -> str:
        """How much there is, and where it is from."""
        return f"{len(self._trajectories):,} chat trajectories of {self._path}, run through the public API again"

    @property
    def turns(self) -> int:
        """How many turns there are."""
        return sum(message.role == "user" for one in self._trajectories for message in one.messages)

    def play(self) -> Iterator[PlayedTurn]:
        """Run one chat after the other."""
        for trajectory in self._trajectories:
            yield from _play(trajectory)


def _play(trajectory: Trajectory) -> Iterator[PlayedTurn]:
    with trace_session(
        session_id=f"task-{trajectory.task_id}-trial-{trajectory.trial}",
        user_id=trajectory.user_id,
        metadata={"task_id": trajectory.task_id, "trial": trajectory.trial},
        tags=["trajectory"],
    ) as session:
        chat = _Chat(session, trajectory.model)
        before, *exchanges = _exchanges(trajectory.messages)
        for message in before:
            chat.record(message)
        for user, *following in exchanges:
            chat.record(user)
            with trace_turn(session, user_input=user.content) as turn:
                for message in following:
                    chat.record(message)
                    if message.role == "assistant":
                        turn.output = message.content
            yield played(turn)
        session.outcome = {"reward": trajectory.reward}


def _exchanges(messages: list[Message]) -> list[list[Message]]:
    """Split a chat before each message of the user; the first part is what comes before all of them."""
    parts: list[list[Message]] = [[]]
    for message in messages:
        if message.role == "user":
            parts.append([])
        parts[-1].append(message)
    return parts


class _Chat:
    """A chat as far as it has come: what a model is sent next, and which tool calls wait for their results."""

    def __init__(self, session: Session, model: str | None) -> None:
        self._session = session
        self._model = model
        self._history: list[dict[str, Any]] = []
        self._requested: dict[str, ToolFunction] = {}

    def record(self, message: Message) -> None:
        """Record what a message stands for: an assistant's is a call of a model, a tool's a call of that tool."""
        match message.role:
            case "assistant":
                self._record_llm_call(message)
            case "tool":
                self._record_tool_call(message)
            case _:
                pass
        self._history.append(_plain(message))

    def _record_llm_call(self, message: Message) -> None:
        requests = message.tool_calls or []
        with self._session.llm_call(model=self._model, messages=self._history) as call:
            call.finish(
                content=message.content,
                tool_calls=msgspec.to_builtins(requests) or None,
                finish_reason="tool_calls" if requests else "stop",
            )
        self._requested.update((request.id, request.function) for request in requests)

    def _record_tool_call(self, message: Message) -> None:
        function = self._requested[message.tool_call_id or ""]
        with self._session.tool_call(function.name, _arguments(function), call_id=message.tool_call_id) as call:
            call.finish(message.content, success=not _is_failure(message.content))


def _plain(message: Message) -> dict[str, Any]:
    entries: Mapping[str, Any] = msgspec.to_builtins(message)
    return {name: value for name, value in entries.items() if value is not None}


def _arguments(function: ToolFunction) -> Any:
    """Return what the model wrote: JSON as a rule, but a model may err."""
    try:
        return msgspec.json.decode(function.arguments)
    except msgspec.DecodeError:
        return function.arguments


def _is_failure(content: Content) -> bool:
    return isinstance(content, str) and content.startswith("Error")


def _read(path: Path) -> Iterator[Trajectory]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parsed(line, f"{path}:{number}")
    except FileNotFoundError:
        raise TrajectoryError(f"{path}: there is no such file; name a file of chat trajectories") from None
    except OSError as error:
        raise TrajectoryError(f"{path}: the file cannot be read ({error.strerror}); name a readable file") from None


def _parsed(line: bytes, place: str) -> Trajectory:
    try:
        trajectory = msgspec.json.decode(line, type=Trajectory)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TrajectoryError(f"{place}: not a chat trajectory: {error}. {_FORM}") from None
    problem = _problem(trajectory.messages)
    if problem:
        raise TrajectoryError(f"{place}: {problem}. Correct the line or take it out")
    return trajectory


def _problem(messages: list[Message]) -> str | None:
    """Tell what keeps messages from being a chat."""
    if all(message.role != "user" for message in messages):
        return "no message is the user's, so there is no turn"
    requested: set[str] = set()
    for place, message in enumerate(messages):
        if message.role == "assistant":
            requested.update(request.id for request in message.tool_calls or ())
        elif message.role == "tool" and message.tool_call_id not in requested:
            given = "no tool_call_id" if message.tool_call_id is None else f"tool_call_id {message.tool_call_id!r}"
            return f"messages[{place}] is a tool's result with {given}, which no assistant message before it asks for"
    return None
