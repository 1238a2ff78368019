"""What a report tells besides the verdict: collected from the configuration and the state."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tracebridge.config import SinkSettings
from tracebridge.delivery.rules import current_rules
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.report.coverage import by_day, owed_sessions
from tracebridge.report.record import DeclaredLoss, SinkReport
from tracebridge.validation.verdict import Verdict


def sink_report(sink: SinkSettings, trace_dir: Path, verdict: Verdict) -> SinkReport:
    """All that there is to tell of a sink that was validated.

    Raises:
        StateError: the state cannot be used.
    """
    state = State(layout.state_file(trace_dir))
    try:
        target = state.target(sink.name, sink.endpoint)
        compared = state.evidence.compared(target)
        return SinkReport(
            verdict=verdict,
            losses=tuple(DeclaredLoss(name=loss.name, words=loss.words) for loss in sink.capabilities.losses),
            policy=policy_in_words(sink.policy),
            # with nothing written down yet there is no coverage to tell of
            days=by_day(owed_sessions(state, target, sink.policy), compared, current_rules(sink)) if compared else (),
            validations=tuple(state.evidence.validations(target)),
        )
    finally:
        state.close()


def policy_in_words(policy: Policy) -> tuple[str, ...]:
    """What a policy does other than the one that leaves nothing out, as it is written in the configuration."""
    usual, values = msgspec.structs.asdict(Policy()), msgspec.structs.asdict(policy)
    return tuple(f"{name}: {_as_written(value)}" for name, value in values.items() if value != usual[name])


def _as_written(value: object) -> str:
    # more than numbers and switches would be too much here, and might be nobody's business
    return str(value).lower() if isinstance(value, bool | int | float) else "…"
