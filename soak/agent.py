"""One agent: records sessions until it is killed. What could not be written it notes outside of the small disk.

Usage: python -m soak.agent CONFIG NOTES SEED [SESSIONS]
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time

from tracebridge import Session
from tracebridge.recording.tracer import Tracer

_LONGEST_PAUSE_S = 0.02


def main() -> None:
    config, notes, seed, *sessions = sys.argv[1:]
    lost = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    tracer = Tracer(config, on_error=lambda error: _note(lost, error))
    choose = random.Random(int(seed))
    for number in range(int(sessions[0])) if sessions else itertools.count():
        # some sessions are entered again and again, by several agents at once
        name = f"shared-{choose.randrange(4)}" if choose.random() < 0.3 else f"own-{seed}-{number}"
        with tracer.trace_session(name, user_id="ada") as session:
            for _ in range(choose.randint(1, 4)):
                _turn(tracer, session, choose)


def _note(lost: int, error: BaseException) -> None:
    os.write(lost, f"{type(error).__name__}: {error}\n".encode())


def _turn(tracer: Tracer, session: Session, choose: random.Random) -> None:
    with tracer.trace_turn(session, user_input="question " * choose.randint(1, 40)) as turn:
        for _ in range(choose.randint(0, 3)):
            time.sleep(choose.random() * _LONGEST_PAUSE_S)
            match choose.randrange(5):
                case 0 | 1:
                    with session.llm_call(model="m", messages=[{"content": "x" * choose.randint(1, 5000)}]) as call:
                        call.finish("answer", tokens={"prompt": 1, "completion": 2})
                case 2 | 3:
                    with session.tool_call("search", {"q": choose.random()}) as tool:
                        tool.finish("found")
                case _:
                    session.log_thinking("hm")
        turn.output = "done"


if __name__ == "__main__":
    main()
