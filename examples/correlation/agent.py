"""The agent: one turn whose tool is the first service. `python agent.py TOOLS_URL`.

Nothing in it speaks of traces but the set-up: `propagate: true` in tracebridge.yaml makes the tool call the parent of
the request that the instrumented client sends.
"""

from __future__ import annotations

import sys

import httpx
from telemetry import set_up

import tracebridge
from tracebridge import trace_session, trace_turn


def main(tools_url: str) -> None:
    """Answer one question."""
    with (
        trace_session("customer-42", user_id="ada", agent_name="shop") as session,
        trace_turn(session, user_input="Are there any lamps left?") as turn,
    ):
        with session.llm_call(model="gpt-4o", messages=[{"role": "user", "content": turn.user_input}]) as call:
            call.finish(tool_calls=[{"name": "find", "arguments": {"article": "lamp"}}])
        with session.tool_call("find", {"article": "lamp"}) as tool:
            found = httpx.get(f"{tools_url}/tools/find/lamp").raise_for_status().json()
            tool.finish(found)
        turn.output = f"Yes, {found['lamp']}."
        print(turn.trace_id)


if __name__ == "__main__":
    provider = set_up("shop-agent")
    main(sys.argv[1])
    tracebridge.shutdown(10)
    provider.shutdown()
