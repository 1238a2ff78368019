"""What must hold before something is switched off. Pure: from facts to conditions."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from tracebridge.config.settings import Demands
from tracebridge.policy import CONTENT_KEYS, Policy, narrow

RAMP: Final = "ramp"
"""The name of a condition that can be accepted beside the narrowings."""
EARLIER_CUTS: Final = "earlier-cuts"
"""The name by which it is accepted that content was cut for a limit that the backend had when it was sent."""
DAY_S: Final = 86_400.0
_MOST_NAMED: Final = 3
AHEAD_S: Final = 60.0
"""So much ahead of the clock a moment may lie, in seconds; of what lies further ahead nobody can tell the age."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one sink that stays, in times of nanoseconds since the epoch."""

    sink: str
    now_ns: int
    is_readable: bool
    policy: Policy
    """What the sink is sent."""
    replaced: Policy
    """What that holds which is switched off."""
    cuts: tuple[str, ...] = ()
    """By which declared losses the sink cuts content that is whole in what is switched off."""
    earlier: tuple[Policy, ...] = ()
    """Earlier policies under which some of the clean sessions were sent, otherwise than they would be now."""
    narrowed_by: tuple[str, ...] = ()
    """The settings by which some of the clean sessions lack something that is in their journal, where that is switched
    off. Capture may leave out more now than it did when they were recorded, or others may have recorded them."""
    is_cut_earlier: bool = False
    """Whether content of the clean sessions was cut for a limit that the backend had when they were sent."""
    owed: int = 0
    """Sessions that the sink should hold, but for those that are younger than the newest validation, or open."""
    clean: int = 0
    """Those of them that were compared as they are, under the present rules, and nothing was found."""
    defective: int = 0
    """Those of them in which something was found."""
    outdated: int = 0
    """Those that were written to since they were compared."""
    other_rules: int = 0
    """Those that were compared under another policy, mapping or project."""
    ahead: int = 0
    """Those that were compared, and whose file is dated later than now: it may have been changed since."""
    uncompared: int = 0
    """Those that were never compared."""
    young: int = 0
    """Sessions that are open, or were written to since the newest validation began: the next one compares them."""
    left_behind: int = 0
    """Sessions that came in when the sink's share was raised and are not sent, because nobody asked for their past."""
    first_ns: int = 0
    """When the first of the clean sessions began; 0 without any."""
    last_ns: int = 0
    """When the last of them began."""
    validated_ns: int = 0
    """When the newest validation ended that was asked to compare everything; 0 if there was none."""
    gone: tuple[str, ...] = ()
    """Backfilled folders that are not there any more, so that nothing tells what was sent from them."""
    apart: tuple[str, ...] = ()
    """Files beside the journals that may hold more of them, as those that were rotated away, and that nobody reads."""
    oldest_ns: int = 0
    """When the oldest event was written that the sink could have and has not taken; 0 without any."""
    dead: int = 0
    """Spans that are dead letters, and that nobody has sent again or given up."""
    paused: str = ""
    """Why the sink is paused; empty if it is not."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must hold."""

    sink: str
    name: str
    holds: bool
    value: str
    """How it is now."""
    wanted: str
    command: str
    """What brings it about."""


_OF_EVIDENCE: Final = frozenset(("compared", "sessions", "days", "fresh"))
"""What makes no sense for a sink that cannot be read back."""


def conditions_for(facts: Facts, demands: Demands, accepted: Collection[str] = ()) -> tuple[Condition, ...]:
    """All that must hold for one sink that stays. `accepted` are narrowings and cuts that were agreed to by name."""
    found = _conditions(facts, demands, frozenset(accepted))
    return tuple(condition for condition in found if facts.is_readable or condition.name not in _OF_EVIDENCE)


def narrowings(stays: Policy, replaced: Policy) -> tuple[str, ...]:
    """Name the settings by which a policy leaves out what another one keeps."""
    both = narrow(replaced, stays)
    return tuple(key for key in Policy.__struct_fields__ if getattr(both, key) != getattr(replaced, key))


def _lacking_by(facts: Facts) -> tuple[str, ...]:
    """Name the settings by which what the sink was sent lacks what is held by what is switched off."""
    found = {name for policy in facts.earlier for name in narrowings(policy, facts.replaced)}
    return tuple(name for name in CONTENT_KEYS if name in found or name in facts.narrowed_by)


def _conditions(facts: Facts, demands: Demands, accepted: frozenset[str]) -> Iterator[Condition]:
    validate = f"tracebridge validate --sink {facts.sink}"

    def condition(name: str, holds: bool, value: str, wanted: str, command: str) -> Condition:
        return Condition(
            sink=facts.sink, name=name, holds=holds, value=value, wanted=wanted, command="" if holds else command
        )

    yield condition(
        "readable",
        facts.is_readable,
        "can be read back" if facts.is_readable else "cannot be read back",
        "a sink that can be read back",
        f"add `reader:` to agent_trace.sinks.{facts.sink}",
    )
    absent = [f"gone: {', '.join(facts.gone)}"] if facts.gone else []
    absent += [f"not read: {_some(facts.apart)}"] if facts.apart else []
    forget = "; ".join(f"tracebridge forget --folder {shlex.quote(folder)}" for folder in facts.gone)
    ways = [f"bring it back, or {forget}"] if facts.gone else []
    ways += ["put its lines, unpacked, before those of events.jsonl, or move it away"] if facts.apart else []
    yield condition(
        "folders",
        not absent,
        "; ".join(absent) or "all backfilled folders are there",
        "every backfilled folder, and of each journal all in one file",
        "; ".join(ways),
    )
    compare = f"touch events.jsonl where it is dated later than now, then {validate}" if facts.ahead else validate
    yield condition("compared", facts.owed == facts.clean, _compared(facts), "all compared and clean", compare)
    yield condition(
        "sessions",
        facts.clean >= demands.min_sessions,
        f"{facts.clean:,} clean",
        f"at least {demands.min_sessions:,}",
        f"{validate}, once more is recorded; or ask for fewer with --min-sessions",
    )
    days = (facts.last_ns - facts.first_ns) / 1e9 / DAY_S
    yield condition(
        "days",
        days >= demands.min_days,
        f"{days:.2f} days from the first clean session to the last",
        f"at least {demands.min_days:g}",
        f"{validate}, once more time has passed; or ask for less with --min-days",
    )
    age_s = (facts.now_ns - facts.validated_ns) / 1e9
    yield condition(
        "fresh",
        facts.validated_ns > 0 and -AHEAD_S <= age_s <= demands.fresh_within,
        _when("the newest validation", "ended", age_s) if facts.validated_ns else "everything was never validated",
        f"at most {_age(demands.fresh_within)} old",
        validate,
    )
    waiting_s = (facts.now_ns - facts.oldest_ns) / 1e9 if facts.oldest_ns else 0.0
    yield condition(
        "pending",
        -AHEAD_S <= waiting_s <= demands.pending_within,
        _when("the oldest that waits", "was written", waiting_s) if facts.oldest_ns else "nothing waits",
        f"nothing older than {_age(demands.pending_within)}",
        f"tracebridge ship --sink {facts.sink}",
    )
    yield condition(
        "dead",
        facts.dead == 0,
        f"{facts.dead:,} dead letters",
        "none that is unresolved",
        f"tracebridge dead list --sink {facts.sink}, then `dead retry` or `dead discard`",
    )
    yield condition(
        "paused",
        not facts.paused,
        f"paused: {facts.paused}" if facts.paused else "not paused",
        "no sink paused",
        "tracebridge doctor",
    )
    agrees_to_ramp = facts.left_behind == 0 or RAMP in accepted
    yield condition(
        RAMP,
        agrees_to_ramp,
        f"{facts.left_behind:,} sessions came in when the share was raised, and their past was not asked for"
        + (", accepted" if facts.left_behind and agrees_to_ramp else "")
        if facts.left_behind
        else "nobody's past is left behind",
        "the past of everybody who is in",
        f"tracebridge migrate ramp --sink {facts.sink} --backfill, or accept it with --accept {RAMP}",
    )
    now = narrowings(facts.policy, facts.replaced)
    narrower = _Agreement.on(now, accepted)
    # a wider policy changes nothing of what the backend holds already
    lacking = _Agreement.on([name for name in _lacking_by(facts) if name not in now], accepted)
    said = (narrower.words("leaves out more by "), lacking.words("what it was sent has less by "))
    remedies = [f"widen agent_trace.sinks.{facts.sink}.policy"] if narrower.open else []
    flags = " ".join(filter(None, (narrower.flags, lacking.flags)))
    yield condition(
        "policy",
        not (narrower.open or lacking.open),
        "; ".join(filter(None, said)) or "leaves out nothing more",
        "no narrower than what is switched off",
        ", or ".join([*remedies, f"accept it with {flags}"]),
    )
    cuts = _Agreement.on([*facts.cuts, *([EARLIER_CUTS] if facts.is_cut_earlier else [])], accepted)
    yield condition(
        "content",
        not cuts.open,
        cuts.words("content is cut: ") or "no content is cut",
        "all content that is whole in what is switched off",
        f"raise the limit of the backend and then agent_trace.sinks.{facts.sink}'s, or accept it with {cuts.flags}",
    )


class _Agreement(NamedTuple):
    """What must be accepted by name, and what of it was."""

    open: list[str]
    agreed: list[str]

    @classmethod
    def on(cls, names: Collection[str], accepted: frozenset[str]) -> _Agreement:
        """Part some names by whether somebody agreed to them."""
        return cls([name for name in names if name not in accepted], [name for name in names if name in accepted])

    def words(self, what: str) -> str:
        """Both in words, with `what` before those that nobody agreed to; empty without any."""
        words = [f"{what}{', '.join(self.open)}"] if self.open else []
        words += [f"{', '.join(self.agreed)} accepted"] if self.agreed else []
        return "; ".join(words)

    @property
    def flags(self) -> str:
        """The flags that accept the rest."""
        return " ".join(f"--accept {name}" for name in self.open)


def _compared(facts: Facts) -> str:
    counts = (
        (facts.defective, "with findings"),
        (facts.uncompared, "never compared"),
        (facts.outdated, "written to since"),
        (facts.other_rules, "compared under other rules"),
        (facts.ahead, "dated later than now, as after the clock was set back"),
    )
    found = [f"{count:,} {words}" for count, words in counts if count]
    young = f" ({facts.young:,} are younger than the newest validation, or open)" if facts.young else ""
    return f"{facts.clean:,} of {facts.owed:,} sessions are clean" + "".join(f", {words}" for words in found) + young


def _some(names: Collection[str]) -> str:
    shown = list(names)[:_MOST_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")


def _when(what: str, happened: str, age_s: float) -> str:
    if age_s < -AHEAD_S:
        return f"{what} {happened} {_age(-age_s)} from now: the clock was set back"
    return f"{what} is {_age(max(0.0, age_s))} old"


def _age(seconds: float) -> str:
    for size, unit in ((DAY_S, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
