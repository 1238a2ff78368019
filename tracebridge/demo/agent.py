"""`Agent`: a support agent as anybody might write it, recorded through tracebridge's public API and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final

from tracebridge import Session, Turn, trace_turn
from tracebridge.demo.model import Completion, Message, ModelOverloadedError, ScriptedModel
from tracebridge.demo.shop import DEFINITIONS, Tool

_SYSTEM: Final = "You work at the order desk of a small shop. Be short. Look things up before you answer."
_ATTEMPTS: Final = 3


class Agent:
    """Answers a user by asking its model, and calls the tools that the model wants, those of one answer at once."""

    def __init__(self, session: Session, model: ScriptedModel, tools: Mapping[str, Tool]) -> None:
        self._session = session
        self._model = model
        self._tools = tools
        self._definitions = [definition for definition in DEFINITIONS if definition["name"] in tools]
        self._messages: list[Message] = [{"role": "system", "content": _SYSTEM}]

    def answer(self, user_input: str) -> Turn:
        """Take one turn; its `output` is the answer."""
        self._messages.append({"role": "user", "content": user_input})
        with trace_turn(self._session, user_input=user_input) as turn:
            self._session.log_thinking(f"The user asks: {user_input}", stage="planning")
            while (completion := self._ask()).tool_calls:
                self._messages += self._call_all(completion.tool_calls)
            turn.output = completion.content
        return turn

    def _ask(self) -> Completion:
        """Ask the model, and again if it is overloaded; each attempt is a call of its own in the trace."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._ask_once()
            except ModelOverloadedError:
                continue
        return self._ask_once()

    def _ask_once(self) -> Completion:
        model = self._model
        with self._session.llm_call(
            model=model.name,
            messages=self._messages,
            model_parameters={"temperature": 0.2, "max_tokens": 400},
            tools=self._definitions,
            prompt=("order-desk", 3),
            provider=model.provider,
        ) as call:
            completion = model.complete(self._messages, on_first_token=call.first_token)
            call.finish(
                content=completion.content,
                tool_calls=completion.tool_calls or None,
                tokens=completion.tokens,
                cost=completion.cost,
                thinking=completion.thinking or None,
                finish_reason=completion.finish_reason,
                response_id=completion.response_id,
            )
        self._messages.append({"role": "assistant", "content": completion.content, "tool_calls": completion.tool_calls})
        return completion

    def _call_all(self, calls: Sequence[Mapping[str, Any]]) -> list[Message]:
        """Call tools at once, each in a thread that knows the turn it works for."""
        with ThreadPoolExecutor(max_workers=len(calls)) as threads:
            running = [threads.submit(copy_context().run, self._call, call) for call in calls]
            return [future.result() for future in running]

    def _call(self, call: Mapping[str, Any]) -> Message:
        try:
            with self._session.tool_call(call["name"], call["args"], call_id=call["id"]) as recorded:
                result = self._tools[call["name"]](**call["args"])
                recorded.finish(result)
        except Exception as error:  # the model is told, and decides what to do
            result = f"Error: {error}"
        return {"role": "tool", "tool_call_id": call["id"], "content": str(result)}


def sub_agent(session: Session, model: ScriptedModel, tools: Mapping[str, Tool]) -> Callable[[str], Any]:
    """Return a tool that is an agent itself: its turn appears below the call of the tool."""
    return lambda question: Agent(session, model, tools).answer(question).output
