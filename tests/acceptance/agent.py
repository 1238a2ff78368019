"""Agents that record what they do through the public API: one with everything in it, and random ones."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from tracebridge import Session, Tracer

ODD_METADATA: dict[Any, Any] = {
    "plan": "pro",
    "": "an empty key",
    "key with spaces.and.dots": {"deep": {"deeper": [1, [2, [3, {}]], []]}},
    "number": 1,
    "float": 1.0,
    "flag": True,
    "nothing": None,
    "big": 2**53 + 1,
    "bigger": 10**30,
    "tiny": 5e-324,
    "nan": math.nan,
    "infinite": -math.inf,
    "text that looks like JSON": '{"a": 1}',
    "text that looks like a number": "1",
    "text that looks like null": "null",
    "empty": "",
    "lines": "a\nb\r\n\tc\x00d",
    "emoji": "🧑‍🚀 é e\u0301 \u2028",
    "surrogate": "\ud800",
    "bytes": b"\x00\xff",
    "decimal": Decimal("1.10"),
    "date": date(2026, 2, 6),
    "moment": datetime(2026, 2, 6, 22, 10, tzinfo=UTC),
    "set": {"one"},
    "tuple": (1, 2),
    7: "a number as key",
}


class ModelOverloadedError(Exception):
    """What the agents' model raises."""


def run_full_agent(tracer: Tracer, session_id: str) -> None:
    """A run with parallel calls, a sub-agent, errors, thinking, tags and odd metadata."""
    with tracer.trace_session(
        session_id,
        metadata=ODD_METADATA,
        user_id="user-7",
        tags=["beta", "a,b", "ü"],
        environment="staging",
        release="1.4.2",
        agent_name="planner",
    ) as session:
        _calls_one_after_the_other(tracer, session)
        _parallel_calls(tracer, session)
        _a_sub_agent(tracer, session)
        _errors(tracer, session)
        session.metadata["learnt"] = {"late": True}
        session.outcome = {"solved": True, "score": 1.0}


def _calls_one_after_the_other(tracer: Tracer, session: Session) -> None:
    with tracer.trace_turn(session, user_input="What is the weather in Oslo?") as turn:
        session.log_thinking("The user wants the weather.", stage="planning", tokens=7)
        with session.llm_call(
            model="gpt-4o",
            messages=[{"role": "user", "content": [{"type": "text", "text": "What is the weather in Oslo?"}]}],
            model_parameters={"temperature": 0.0, "top_p": 1, "stop": ["\n\n"]},
            tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
            prompt=("forecaster", 3),
            provider="openai",
        ) as call:
            call.first_token()
            call.finish(
                content=None,
                tool_calls=[{"id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}],
                tokens={"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10},
                cost={"input": 0.1, "total": 0.3},
                thinking="A tool knows.",
                finish_reason="tool_calls",
                response_id="resp-1",
                model="gpt-4o-2024-08-06",
            )
        with session.tool_call("weather", {"city": "Oslo"}, call_id="c1") as call:
            call.finish({"celsius": -4.0, "raw": b"\x01"})
        session.log_llm_request("gpt-4o", [{"role": "tool", "content": "-4"}])
        session.log_llm_response("gpt-4o", "Minus four.", {"input": 3, "output": 2}, duration_ms=12, cost=0.001)
        turn.output = "Minus four."


def _parallel_calls(tracer: Tracer, session: Session) -> None:
    async def ask(number: int) -> None:
        with session.llm_call(model="small", messages=f"part {number}") as call:
            await asyncio.sleep(0.001 * (number % 3))
            call.finish(f"answer {number}", tokens={"input": number, "output": 1})

    async def ask_all() -> None:
        await asyncio.gather(*(ask(number) for number in range(6)))

    def look_up(number: int) -> None:
        with session.tool_call("search", {"n": number}, call_id=f"s{number}") as call:
            call.finish([number])

    with tracer.trace_turn(session, user_input=["several", "parts"]) as turn:
        asyncio.run(ask_all())
        threads = [threading.Thread(target=look_up, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        turn.output = {"parts": 6}


def _a_sub_agent(tracer: Tracer, session: Session) -> None:
    with (
        tracer.trace_turn(session, user_input="delegate"),
        session.tool_call("delegate", {"to": "researcher"}) as call,
    ):
        with tracer.trace_turn(session, user_input="research") as inner:
            with session.llm_call(model="small", messages=[]) as inner_call:
                inner_call.finish("found", model="small")
            inner.output = "found"
        call.finish("found")


def _errors(tracer: Tracer, session: Session) -> None:
    try:
        with tracer.trace_turn(session, user_input="fail"):
            session.log_tool_call("delete", {"id": 1}, call_id="d1")
            session.log_tool_result("delete", success=False, error="forbidden", call_id="d1")
            with session.llm_call(model="gpt-4o", messages="again"):
                raise ModelOverloadedError("503: try again")
    except ModelOverloadedError:
        return


def run_random_agent(tracer: Tracer, session_id: str, seed: int) -> None:
    """A run of three turns with a random tree of calls in each, many at once, some failing."""
    choose = random.Random(seed)
    with tracer.trace_session(session_id, metadata={"seed": seed, "value": _value(choose, 3)}) as session:
        for _ in range(3):
            with tracer.trace_turn(session, user_input=_value(choose, 2)) as turn:
                _work(choose, tracer, session, depth=3)
                turn.output = _value(choose, 2)
        session.outcome = choose.choice(["solved", None, "", {"score": 1}])


def _work(choose: random.Random, tracer: Tracer, session: Session, depth: int) -> None:
    for _ in range(choose.randint(1, 4)):
        match choose.randrange(6 if depth else 4):
            case 0:
                session.log_thinking(_value(choose, 1), stage=choose.choice([None, "plan"]))
            case 1:
                session.log_tool_call("look", _value(choose, 2), extra=_value(choose, 1))
                session.log_tool_result("look", result=_value(choose, 2), error=choose.choice([None, "no"]))
            case 2:
                _call_model(choose, session)
            case 3:
                _call_at_once(choose, session)
            case 4:
                with session.tool_call("delegate", _value(choose, 1)) as call:
                    _work(choose, tracer, session, depth - 1)
                    call.finish(_value(choose, 2))
            case 5:
                with (
                    session.tool_call("sub-agent", {}),
                    tracer.trace_turn(session, user_input=_value(choose, 1)),
                ):
                    _work(choose, tracer, session, depth - 1)


def _call_model(choose: random.Random, session: Session) -> None:
    try:
        with session.llm_call(model=choose.choice(["a", "b", ""]), messages=_value(choose, 3)) as call:
            if choose.random() < 0.2:
                raise ModelOverloadedError("busy")
            call.finish(
                _value(choose, 2),
                tokens=choose.choice([None, {"prompt": 1, "completion": 2}, {"input_tokens": 3}, {"odd": "x"}]),
                cost=choose.choice([None, 0.5, 1, {"total": 0.25}]),
                finish_reason=choose.choice([None, "stop"]),
            )
    except ModelOverloadedError:
        return


def _call_at_once(choose: random.Random, session: Session) -> None:
    values = [_value(choose, 1) for _ in range(5)]

    async def call(value: Any) -> None:
        with session.tool_call("fetch", {"value": value}) as fetch:
            await asyncio.sleep(0)
            fetch.finish(value)

    async def call_all() -> None:
        await asyncio.gather(*map(call, values))

    asyncio.run(call_all())


def _value(choose: random.Random, depth: int) -> Any:
    if depth and choose.random() < 0.4:
        inner = [_value(choose, depth - 1) for _ in range(choose.randrange(3))]
        return inner if choose.random() < 0.5 else {f"k{number}": value for number, value in enumerate(inner)}
    return choose.choice(
        [None, True, 0, 1, 1.0, -0.0, 2**60, 1e300, "", "null", "[1]", "é🧑‍🚀", "a\nb", "x" * 2000, b"raw", "text"]
    )
