"""What may be done about a finding."""

from __future__ import annotations

import shlex

from tracebridge.validation.comparison import FindingKind


def remedy(kind: FindingKind, sink: str, session_id: str, *, is_refused: bool = False) -> str:
    """A command that may clear a finding of this kind; empty if there is none.

    What a backend holds twice, or holds changed, nobody but the backend can take away. `is_refused` says that the span
    is a dead letter: then there is a reason to read before it is sent again.
    """
    name = shlex.quote(sink)
    match kind:
        case "pending":
            return f"tracebridge ship --sink {name}"
        case "missing" if is_refused:
            return f"tracebridge dead list --sink {name}"
        case "missing":
            return f"tracebridge validate --sink {name} --session {shlex.quote(session_id)} --resend"
        case _:
            return ""
