"""`tracebridge migrate status|advance|rollback|restore|history`: from tier to tier, and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.cli.command import Commands, add_command, print_json, say, settings_of
from tracebridge.cli.progress import progress
from tracebridge.cli.times import as_text, days, duration, share, whole_number
from tracebridge.errors import TracebridgeError

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.state import State
    from tracebridge.migration.conditions import Condition
    from tracebridge.migration.configuration_file import ConfigurationFile
    from tracebridge.migration.gate import Asked, TakenBack
    from tracebridge.migration.return_files import Returned
    from tracebridge.migration.tiers import Switch

_DESCRIPTION = """\
Moves from JSONL to LangFuse to OpenTelemetry, one switch of the configuration at a time, and back.

  tracebridge migrate status                     where you are, and what stands between here and the next tier
  tracebridge migrate advance --dry-run          what the next step would change
  tracebridge migrate advance                    make it, if everything holds that must
  tracebridge migrate advance --off langfuse     another step: switch a sink off, or with --on on
  tracebridge migrate rollback                   take the last step back
  tracebridge migrate restore                    bring back what was deleted while JSONL was off
  tracebridge migrate ramp --sink otel --share 10%
                                                 send a sink another share of the sessions
  tracebridge migrate history                    every step: when, by whom, on which evidence
"""

_ADVANCE = """\
Changes one value in the YAML file, and nothing else of it. Something is switched off only if the sinks that stay hold
everything: every owed session was compared and is clean, there are enough of them, the newest validation is fresh,
nothing waits, no dead letter is unresolved, no sink is paused, and none is sent less than what is switched off held.

Exit codes: 0 done; 1 refused: it names each thing in the way and the command that clears it; 2 it could not be done.
"""

_ROLLBACK = """\
Takes the last step back in the YAML file; what somebody else changed in it since stays. If the step had switched JSONL
off, the files that the spool has deleted are read back from a backend into the trace folder, never over what is there.

Exit codes: 0 done; 1 done, but not everything is back as it was: it says what; 2 it could not be done.
"""

_RESTORE = """\
Reads back from a backend what the spool has deleted while JSONL was off and what is not there again. `rollback` does so
too; this goes on with what it has left, or with what a process deleted that went on by the old configuration.

Exit codes: 0 everything is back as it was; 1 not everything is; 2 it could not be done.
"""

_RAMP = """\
Changes the share of sessions that a sink is sent, `policy.sample_rate` in the YAML file. Whoever is in at 1 % is in at
10 % and at 100 %. Who comes in because the share is raised is sent from then on, each session whole that begins after
that; with --backfill, what is there of them is sent as well, now or whenever it is asked for.

Exit codes: 0 done; 2 it could not be done.
"""

_MOST_NAMED: Final = 20


def add_to(commands: Commands) -> None:
    """Describe the command and its subcommands."""
    parser = add_command(commands, "migrate", _help, "go from tier to tier, guarded, and back", _DESCRIPTION)
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(metavar="ACTION")
    status = add_command(
        actions,
        "status",
        _status,
        "where you are, and what stands in the way",
        "Tells the tier, the next step, and each condition with its present value. Exit codes: 0 nothing stands in "
        "the way; 1 something does; 2 it could not be told.",
    )
    advance = add_command(actions, "advance", _advance, "make the next step", _ADVANCE)
    for one in (status, advance):
        _add_step(one)
    advance.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be changed")
    advance.add_argument(
        "--override",
        type=_reason,
        metavar="REASON",
        help="do it though not everything holds; the history keeps the reason",
    )
    rollback = add_command(actions, "rollback", _rollback, "take the last step back", _ROLLBACK)
    rollback.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be changed")
    restore = add_command(actions, "restore", _restore, "bring back what a spool has deleted", _RESTORE)
    for one in (rollback, restore):
        one.add_argument("--from", dest="source", metavar="SINK", help="read from this sink; else from the fullest")
    ramp = add_command(actions, "ramp", _ramp, "send a sink another share of the sessions", _RAMP)
    ramp.add_argument("--sink", required=True, metavar="SINK", help="a sink that is switched on")
    ramp.add_argument("--share", type=share, metavar="SHARE", help="the new share, e.g. 25%%; else it stays")
    ramp.add_argument("--backfill", action="store_true", help="send the past of everybody who is in, too")
    ramp.set_defaults(usage_error=ramp.error)
    history = add_command(
        actions, "history", _history, "every step that was made", "Tells every step: when, by whom, on which evidence."
    )
    for one in (status, advance, rollback, restore, ramp, history):
        one.add_argument("--json", action="store_true", help="print it as JSON")


def _add_step(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--off", metavar="SINK", help="switch this off: a sink, or jsonl; else the next step of the way")
    which.add_argument("--on", metavar="SINK", help="switch this on")
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="SINK",
        help="only this sink must hold everything; else all that stay",
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="NAME",
        help="agree that a sink leaves more out, e.g. sample_rate, or cuts content by a declared loss",
    )
    parser.add_argument(
        "--min-sessions", type=whole_number, metavar="N", help="clean sessions; else as agent_trace.migration says"
    )
    parser.add_argument("--min-days", type=days, metavar="DAYS", help="that they span")
    parser.add_argument(
        "--fresh",
        type=duration,
        metavar="AGE",
        help="the oldest that a validation may be, e.g. 24h",
    )


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("say why: the history keeps it for ever")
    return text.strip()


def _help(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return 2


def _status(arguments: argparse.Namespace) -> int:
    from tracebridge.migration.gate import plan_of
    from tracebridge.migration.tiers import MigrationError, tier_of

    settings = settings_of(arguments)
    tier = tier_of(settings)
    plan, switch, why = None, None, ""
    try:
        switch = _switch(arguments, settings)
    except MigrationError as error:
        if arguments.on or arguments.off:
            raise
        why = str(error)
    if switch is not None:
        with _state(settings) as state:
            plan = plan_of(settings, state, switch, _asked(arguments, settings))
    if arguments.json:
        print_json({"tier": tier, "next": plan, "note": why, "blockers": len(plan.blockers) if plan else 0})
    else:
        print(f"tier {tier.number}, {tier.name}: {', '.join(tier.sinks)}")
        if plan is None:
            print(f"next: {why}")
        else:
            print(f"next: {plan.switch}, which is tier {plan.after.number}, {plan.after.name}")
            _print_conditions(plan.conditions)
    return 1 if plan is not None and plan.blockers else 0


def _advance(arguments: argparse.Namespace) -> int:
    from tracebridge.migration.gate import advance, alone, plan_of

    settings = settings_of(arguments)
    asked = _asked(arguments, settings)
    with alone(settings), _state(settings) as state:
        file = _file(arguments)
        plan = plan_of(settings, state, _switch(arguments, settings), asked)
        is_refused = bool(plan.blockers) and not arguments.override
        if not is_refused:
            override = arguments.override or ""
            advance(settings, file, state, plan, asked, override, dry_run=arguments.dry_run)
    if arguments.json:
        is_made = not is_refused and not arguments.dry_run
        print_json({"made": is_made, "dry_run": arguments.dry_run, "file": str(file.path), "step": plan})
    elif is_refused:
        print(f"refused: cannot {plan.switch}", file=sys.stderr)
        _print_conditions(plan.blockers, out_of=len(plan.conditions))
    else:
        _print_conditions(plan.conditions)
        would = "would be changed" if arguments.dry_run else "changed"
        print(f"{file.path}: {would}: `{'.'.join(plan.switch.path)}: {'true' if plan.switch.on else 'false'}`")
        if not arguments.dry_run:
            print(f"tier {plan.after.number}, {plan.after.name}: {', '.join(plan.after.sinks)}")
            _print_what_to_do(settings, plan.switch)
    return 1 if is_refused else 0


def _rollback(arguments: argparse.Namespace) -> int:
    from tracebridge.migration.gate import alone, step_back
    from tracebridge.migration.tiers import JOURNAL, Switch

    settings = settings_of(arguments)
    returned = None
    with alone(settings), _state(settings) as state:
        file = _file(arguments)
        back = step_back(settings, file, state, dry_run=arguments.dry_run)
        is_made = not arguments.dry_run and not back.was_before
        if not arguments.json:
            print(f"{file.path}: {_taken_back(back, dry_run=arguments.dry_run)}")
        if not arguments.dry_run and back.switch == Switch(sink=JOURNAL, on=True):
            returned = _returned(arguments, settings, state)
    if arguments.json:
        print_json({"made": is_made, "file": str(file.path), "undone": back.step, "returned": returned})
    elif not arguments.dry_run:
        if returned is not None:
            _print_returned(returned)
        _print_what_to_do(settings, back.switch)
    return 0 if returned is None or returned.is_whole else 1


def _taken_back(back: TakenBack, *, dry_run: bool) -> str:
    step = f"step {back.step.id} ({back.step.record.switch})"
    if back.was_before:
        would = "would come back" if dry_run else "comes back"
        return f"unchanged: {step} was taken back before, by a process that was interrupted; what is left {would}"
    return f"{'would be changed' if dry_run else 'changed'}: {step} is taken back: {back.switch}"


def _restore(arguments: argparse.Namespace) -> int:
    from tracebridge.migration.gate import alone

    settings = settings_of(arguments)
    with alone(settings), _state(settings) as state:
        returned = _returned(arguments, settings, state)
    if arguments.json:
        print_json(returned)
    else:
        _print_returned(returned)
    return 0 if returned.is_whole else 1


def _ramp(arguments: argparse.Namespace) -> int:
    from tracebridge.migration.gate import alone
    from tracebridge.migration.ramping import change_share
    from tracebridge.migration.tiers import Switch

    if arguments.share is None and not arguments.backfill:
        arguments.usage_error("give --share, --backfill or both")
    settings = settings_of(arguments)
    sink = settings.sink(arguments.sink)
    present = 1.0 if sink is None else sink.policy.sample_rate
    wanted = present if arguments.share is None else arguments.share
    with alone(settings), _state(settings) as state:
        file = _file(arguments)
        ramped = change_share(settings, file, state, arguments.sink, wanted, backfill=arguments.backfill)
    if arguments.json:
        print_json(ramped)
        return 0
    print(f"{ramped.sink}: {ramped.after:.2%} of the sessions, which were {ramped.before:.2%}")
    print(f"  {ramped.came_in:,} that are there already came in")
    if ramped.left_behind:
        print(
            f"  {ramped.left_behind:,} of those who are in are not sent, because they began before: ask for them with"
        )
        print(f"  `tracebridge migrate ramp --sink {ramped.sink} --backfill`")
    if ramped.after != ramped.before:
        _print_what_to_do(settings, Switch(sink=ramped.sink, on=True))
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from tracebridge.migration.history import entries

    settings = settings_of(arguments)
    with _state(settings) as state:
        history = entries(state)
    if arguments.json:
        print_json(history)
        return 0
    if not history:
        print("no step was made yet")
    for entry in history:
        record = entry.record
        what = f"takes step {record.undoes} back: {record.switch}" if record.undoes else str(record.switch)
        print(f"{entry.id}  {as_text(entry.at_ns)}  {entry.who}  {what}: {record.before} to {record.after}")
        if record.outcome == "not made":
            print("   NOT MADE: it could not be, or was interrupted before it was")
        if record.outcome == "intended":
            print("   interrupted: the next step finds out whether it was made")
        if record.returning:
            print("   interrupted while files came back: go on with `tracebridge migrate restore`")
        if record.backfill:
            print("   with the past of everybody who is in")
        if record.override:
            say(f"   overridden: {record.override}")
        for condition in record.conditions:
            print(f"   {'holds' if condition.holds else 'DOES NOT HOLD'}  {_told(condition)}")
        if record.accepted:
            print(f"   accepted: {', '.join(record.accepted)}")
    return 0


def _returned(arguments: argparse.Namespace, settings: Settings, state: State) -> Returned:
    from tracebridge.cli.restore import policies_of
    from tracebridge.journal.spooled import SpooledLog
    from tracebridge.migration.history import returning
    from tracebridge.migration.return_files import Returned, return_files, source_for
    from tracebridge.migration.tiers import MigrationError

    with returning(state):
        sink = source_for(settings, arguments.source)
        if sink is None:
            if not SpooledLog(settings.trace_dir).sessions():
                return Returned(sink="")
            raise MigrationError(
                f"{settings.source}: no sink that is switched on can be read back; name one with "
                "`tracebridge migrate restore --from SINK`"
            )
        try:
            with progress(f"bringing back from {sink.name}", "sessions") as bar:
                return return_files(settings, state, sink, policies_of(settings, sink), bar.update)
        except (TracebridgeError, OSError) as error:
            raise MigrationError(f"{error}; what is left comes back with `tracebridge migrate restore`") from error


def _print_conditions(conditions: tuple[Condition, ...], out_of: int | None = None) -> None:
    if out_of is not None:
        print(f"{len(conditions)} of {out_of} conditions do not hold:")
    for condition in conditions:
        print(f"  {'ok' if condition.holds else 'NO':<3} {_told(condition)}")
        if condition.command:
            print(f"        {condition.command}")


def _told(condition: Condition) -> str:
    from tracebridge.report.visible import in_one_line

    wanted = "" if condition.holds else f" (wanted: {condition.wanted})"
    # a backend says why it is paused
    return in_one_line(f"{condition.sink} {condition.name}: {condition.value}{wanted}")


def _print_returned(returned: Returned) -> None:
    from tracebridge.restore.record import WORDS

    if not returned.sink:
        print("nothing was deleted while JSONL was off")
        return
    print(f"{len(returned.sessions):,} sessions are back from {returned.sink}")
    for name, count in returned.narrowed.items():
        # the name of a declared loss says itself what it takes
        print(f"  {name}: {count:,} {WORDS.get(name, 'less than the originals had')}")
    for state, words, sessions in (
        ("not whole", "events are missing between others", returned.with_gaps),
        ("not back", "there again with later events; what they had before stays at the backend", returned.kept),
        ("not back", "not at the backend", returned.not_found),
    ):
        for session_id in sessions[:_MOST_NAMED]:
            say(f"  {state}: {session_id}: {words}")
        if len(sessions) > _MOST_NAMED:
            print(f"  … and {len(sessions) - _MOST_NAMED:,} more {words}: --json tells all")
    if returned.with_gaps:
        print("  what stands behind a gap has another place now: `validate` finds it different, or missing and extra;")
        print("  do not --resend it: a session whose folder is moved out of the trace folder is not compared any more")
    if returned.unlisted:
        say(f"  {returned.unlisted} What of it no search finds is not back.")
    if returned.left:
        say(f"  {returned.left:,} were not reached: {returned.trouble}; go on with `tracebridge migrate restore`")


def _print_what_to_do(settings: Settings, switch: Switch) -> None:
    """Running processes have read the configuration when they started."""
    from tracebridge.delivery.lock import process_lock, shipper_lock
    from tracebridge.migration.tiers import JOURNAL, Switch

    locks = [
        process_lock(settings.trace_dir),
        *(shipper_lock(settings.trace_dir, sink.name) for sink in settings.sinks),
    ]
    running = sorted({pid for lock in locks if (pid := lock.holder())})
    named = f" (shipping here: {', '.join(f'process {pid}' for pid in running)})" if running else ""
    print(f"restart agents and `tracebridge ship`: they read the file only when they start{named}")
    if switch == Switch(sink=JOURNAL, on=False):
        print(f"  until then they keep the files; then those go {settings.spool_keep:g} s after every sink shows them")
    elif not switch.on:
        print("  until then they go on sending to it, and what is recorded stays in the journal for the others")


@contextmanager
def _state(settings: Settings) -> Iterator[State]:
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    state = State(layout.state_file(settings.trace_dir))
    try:
        yield state
    finally:
        state.close()


def _file(arguments: argparse.Namespace) -> ConfigurationFile:
    from tracebridge.config import locate
    from tracebridge.migration.configuration_file import ConfigurationFile
    from tracebridge.migration.tiers import MigrationError

    path = None if arguments.config == "-" else locate(arguments.config)
    if path is None:
        raise MigrationError("a step changes a configuration file: name one with --config FILE")
    return ConfigurationFile(path)


def _switch(arguments: argparse.Namespace, settings: Settings) -> Switch:
    from tracebridge.migration.tiers import asked_switch, next_switch

    if arguments.on or arguments.off:
        return asked_switch(settings, on=arguments.on, off=arguments.off)
    return next_switch(settings)


def _asked(arguments: argparse.Namespace, settings: Settings) -> Asked:
    from tracebridge.migration.conditions import EARLIER_CUTS, RAMP
    from tracebridge.migration.facts import cuts_of
    from tracebridge.migration.gate import Asked
    from tracebridge.migration.tiers import MigrationError
    from tracebridge.policy import Policy

    cuts = sorted(set().union(*map(cuts_of, settings.enabled_sinks)))
    names = (*Policy.__struct_fields__, RAMP, *cuts, EARLIER_CUTS)
    unknown = set(arguments.accept) - set(names)
    if unknown:
        raise MigrationError(f"--accept {sorted(unknown)[0]}: nothing is called so (there are {', '.join(names)})")
    given = {
        "min_sessions": arguments.min_sessions,
        "min_days": arguments.min_days,
        "fresh_within": arguments.fresh,
    }
    return Asked(
        demands=msgspec.structs.replace(
            settings.migration, **{name: value for name, value in given.items() if value is not None}
        ),
        accepted=tuple(arguments.accept),
        successors=tuple(arguments.to),
    )
