"""`ScriptedModel`: stands in for a model. It answers what it was given to answer, in order, and counts its tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

_DOLLARS_PER_PROMPT_TOKEN: Final = 2.5e-6
_DOLLARS_PER_COMPLETION_TOKEN: Final = 10e-6

Message = dict[str, Any]


class ModelOverloadedError(Exception):
    """The model is busy; the same request may work when it is sent again."""


class ToolRequest(msgspec.Struct, frozen=True):
    """A tool that the model wants to be called."""

    name: str
    args: dict[str, Any]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the script."""

    content: str = ""
    thinking: str = ""
    tool_requests: tuple[ToolRequest, ...] = ()
    is_overloaded: bool = False
    """Whether the model gives up instead of answering."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of the model returned."""

    response_id: str
    content: str
    thinking: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    tokens: dict[str, int]
    cost: float


class ScriptedModel:
    """Answers each call with the next reply of its script."""

    name: Final = "scripted-1"
    provider: Final = "tracebridge-demo"

    def __init__(self, replies: Sequence[Reply], seconds_to_first_token: float) -> None:
        self._replies: Iterator[tuple[int, Reply]] = iter(enumerate(replies, start=1))
        self._seconds_to_first_token = seconds_to_first_token

    def complete(self, messages: Sequence[Message], on_first_token: Callable[[], None]) -> Completion:
        """Answer.

        Raises:
            ModelOverloadedError: the script has it so.
        """
        number, reply = next(self._replies)
        time.sleep(self._seconds_to_first_token)  # a real model takes its time; the trace shows how much
        if reply.is_overloaded:
            raise ModelOverloadedError("529: overloaded, try again")
        on_first_token()
        prompt = sum(_tokens(message.get("content")) for message in messages)
        completion = _tokens(reply.content) + _tokens(reply.thinking)
        completion += sum(_tokens(request.args) for request in reply.tool_requests)
        return Completion(
            response_id=f"response-{number}",
            content=reply.content,
            thinking=reply.thinking,
            tool_calls=[
                {"id": f"call-{number}-{place}", "name": request.name, "args": request.args}
                for place, request in enumerate(reply.tool_requests, start=1)
            ],
            finish_reason="tool_calls" if reply.tool_requests else "stop",
            tokens={"prompt": prompt, "completion": completion},
            cost=prompt * _DOLLARS_PER_PROMPT_TOKEN + completion * _DOLLARS_PER_COMPLETION_TOKEN,
        )


def _tokens(value: Any) -> int:
    """Count words, which this model takes for tokens."""
    return len(str(value).split()) if value else 0
