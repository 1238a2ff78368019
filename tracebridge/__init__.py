"""tracebridge: record what an LLM agent does, and bring it to any backend without losing an event.

from tracebridge import trace_session, trace_turn

with trace_session(session_id="user-123") as session:
    with trace_turn(session, user_input="Hello!") as turn:
        with session.llm_call(model="gpt-4o", messages=messages) as call:
            call.finish(content=answer, tokens=usage)
        turn.output = answer
"""

from tracebridge.recording.call import LlmCall, ToolCall
from tracebridge.recording.default import configure, flush, shutdown, trace_session, trace_turn
from tracebridge.recording.session import Session
from tracebridge.recording.tracer import Tracer
from tracebridge.recording.turn import Turn

__all__ = [
    "LlmCall",
    "Session",
    "ToolCall",
    "Tracer",
    "Turn",
    "configure",
    "flush",
    "shutdown",
    "trace_session",
    "trace_turn",
]
