"""`Story`: what the demo shows, step by step. Every figure is measured, and every promise is checked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Final

import tracebridge
from tracebridge.demo.backend import LANGFUSE_ROUTE, PUBLIC_KEY, SECRET_KEY, Backend
from tracebridge.demo.commands import Commands, Ran, SinkFigures, findings
from tracebridge.demo.console import Console
from tracebridge.demo.scenario import PlayedTurn, Scenario
from tracebridge.demo.workspace import Workspace

_PATIENCE_S: Final = 60.0
_REFUSALS_SHOWN: Final = 2
_MOST_TURNS_SHOWN: Final = 3
_MOST_CHARACTERS: Final = 72
_FAILED_TOOLS: Final = (
    'select(.event_type == "tool.result" and .data.success == false) | [.session_id, .data.tool_name]'
)

Figures = Mapping[str, SinkFigures]


class Story:
    """Runs a scenario on a backend that goes away for a while, and shows what becomes of it."""

    def __init__(self, scenario: Scenario, workspace: Workspace, backend: Backend, console: Console) -> None:
        self._scenario = scenario
        self._workspace = workspace
        self._backend = backend
        self._console = console
        self._commands = Commands(workspace.configuration)
        self._turns = scenario.play()
        self._checks = 0
        self._broken: list[str] = []

    def tell(self) -> int:
        """Tell all of it; return 0 if everything came out as it should, else 1."""
        began = time.monotonic()
        third = max(1, self._scenario.turns // 3)
        self._show_the_set_up()
        with _log_lines() as log:
            tracebridge.configure(self._workspace.configuration)
            try:
                self._show_the_agent_at_work(third)
                self._show_the_outage(third, log)
                last = self._show_the_recovery(log)
            finally:
                tracebridge.shutdown()
        self._show_the_verdicts()
        self._show_a_corruption(last)
        code = self._conclusion(time.monotonic() - began)
        self._show_what_to_try_next()
        return code

    def _show_the_set_up(self) -> None:
        self._console.step("A backend of its own, and three sinks")
        self._workspace.write_configuration(self._backend.url)
        self._console.say(
            f"`tracebridge devserver` answers at {self._backend.url} (process {self._backend.pid}),",
            "as LangFuse and as Jaeger do. No Docker, no account.",
            f"{self._workspace.configuration} switches on",
            f"  jsonl     the journal in {self._workspace.traces}",
            "  langfuse  fed from the journal, by OTLP as LangFuse wants it",
            "  otel      fed from the journal, by OTLP with GenAI names; read back from Jaeger's API",
        )

    def _show_the_agent_at_work(self, turns: int) -> None:
        self._console.step("The agent works")
        self._console.say(f"{self._scenario.title}.")
        self._play(turns)
        waited = self._deliver_all()
        figures = self._commands.figures()
        self._show(figures)
        undue = self._workspace.count_events() - min(sink.delivered_events for sink in figures.values())
        if undue:
            self._console.say(f"Not due yet: {undue:,} (what opens something is sent together with its end).")
        self._check(
            waited is not None and all(sink.is_up_to_date for sink in figures.values()),
            f"both backends had all that was due {waited or 0:.1f} s after the last event",
        )

    def _show_the_outage(self, turns: int, log: list[str]) -> None:
        self._console.step("LangFuse goes down; the agent goes on")
        before = self._commands.figures()
        self._backend.refuse(LANGFUSE_ROUTE, 503)
        self._console.say("From now on, LangFuse's route answers 503 Service Unavailable to everything.")
        self._play(turns)
        written = time.monotonic()
        self._until(lambda now: now["otel"].is_up_to_date)
        waited = time.monotonic() - written
        during = self._until(
            lambda now: now["langfuse"].state == "backing off" and self._backend.refused() >= _REFUSALS_SHOWN
        )
        self._show(during)
        self._show_log(log)
        langfuse, otel = during["langfuse"], during["otel"]
        self._check(
            langfuse.state == "backing off"
            and not langfuse.is_up_to_date
            and langfuse.delivered_events == before["langfuse"].delivered_events,
            f"langfuse has got nothing more, and {langfuse.in_flight_spans:,} spans wait to be sent again",
        )
        self._check(
            otel.is_up_to_date and otel.delivered_events > before["otel"].delivered_events,
            f"otel was not held up: it had {otel.delivered_events - before['otel'].delivered_events:,} more events"
            f" {waited:.1f} s after the last one was written",
        )

    def _show_the_recovery(self, log: list[str]) -> PlayedTurn:
        self._console.step("LangFuse comes back")
        self._console.say(f"It has refused {self._backend.refused():,} requests. The agent takes its last turns.")
        self._backend.serve_again()
        last = self._play(None)
        waited = self._deliver_all()
        after = self._commands.figures()
        self._show(after)
        self._show_log(log)
        events = self._workspace.count_events()
        delivered = {sink.name: sink.delivered_events for sink in after.values()}
        self._check(
            waited is not None
            and all(sink.is_up_to_date for sink in after.values())
            and set(delivered.values()) == {events},
            f"nothing was lost: {events:,} events of {self._workspace.count_sessions():,} sessions in the journal, "
            + ", ".join(f"{count:,} delivered to {name}" for name, count in delivered.items()),
        )
        return last

    def _show_the_verdicts(self) -> None:
        self._console.step("Do the backends hold what the journal says?")
        self._console.say("Accepted is not stored. Both are read back by their public APIs and compared span by span.")
        self._show_run(self._commands.run("status"))
        verdicts = self._commands.run_at_once(*(("validate", "--sink", sink) for sink in ("langfuse", "otel")))
        for ran in verdicts:
            self._show_run(ran)
        codes = " and ".join(str(ran.exit_code) for ran in verdicts)
        self._check(all(ran.exit_code == 0 for ran in verdicts), f"every span is there and equal (exit codes {codes})")

    def _show_a_corruption(self, turn: PlayedTurn) -> None:
        self._console.step("And if one of them held something else?")
        place = turn.trace_id, turn.span_id
        as_stored = self._backend.stored_output(*place)
        self._backend.change_output(*place, "Nobody said this.")
        self._console.say(
            f"One stored answer is changed behind LangFuse's back (turn {turn.number} of {turn.session_id})."
        )
        only_this = ("validate", "--sink", "langfuse", "--session", turn.session_id)
        ran, for_scripts = self._commands.run_at_once(only_this, (*only_this, "--json"))
        self._show_run(ran)
        found = findings(for_scripts)
        fields = [difference.field for finding in found for difference in finding.differences]
        self._check(
            ran.exit_code == 1
            and [(finding.kind, finding.span_id) for finding in found] == [("different", turn.span_id)]
            and fields == ["output"],
            f"findings: {len(found)}, fields that differ: {', '.join(fields) or 'none'} (exit code {ran.exit_code})",
        )
        self._backend.change_output(*place, as_stored)
        ran = self._commands.run(*only_this)
        self._check(ran.exit_code == 0, f"with the answer put back, all is equal again (exit code {ran.exit_code})")

    def _show_what_to_try_next(self) -> None:
        self._console.step("What to try next")
        if not self._workspace.is_kept:
            self._console.say(
                "Nothing of this run is kept. To keep it, and get the commands to go on with:",
                "  tracebridge demo --folder demo                (make demo ARGS='--folder demo')",
                "Your own chats, in OpenAI's message format, one trajectory a line:",
                "  tracebridge demo --input FILE.jsonl",
                "Your own agent: the ten lines of README.md, then `tracebridge config check`.",
            )
            return
        url, folder = self._backend.url, self._workspace.folder
        self._console.say("Start the backend again, with all that it was sent, and leave it running:")
        self._console.command(f"tracebridge devserver --port {self._backend.port} --db {self._workspace.backend_db}")
        self._console.say("Ask again, in another terminal:")
        self._console.command(self._commands.line("status"))
        self._console.command(self._commands.line("validate"))
        self._console.say("Which tools failed? The journal is plain JSON:")
        self._console.command(f"jq -r '{_FAILED_TOOLS} | @tsv' {folder}/traces/session-*/events.jsonl")
        self._console.say("What do the backends say themselves?")
        self._console.command(f"curl -u {PUBLIC_KEY}:{SECRET_KEY} '{url}/api/public/v2/observations?limit=3'")
        self._console.command(f"curl '{url}/api/v3/services'")

    def _conclusion(self, seconds: float) -> int:
        self._console.step("Did it all come out as promised?")
        if self._broken:
            self._console.say(f"No. {len(self._broken)} of {self._checks} things did not come out as they should:")
            for words in self._broken:
                self._console.broken(words)
            return 1
        self._console.kept(f"all of {self._checks} things, in {seconds:.1f} s")
        return 0

    # --- parts of steps ---------------------------------------------------------------------------------------------

    def _play(self, turns: int | None) -> PlayedTurn:
        """Let the agent take the next turns, all that are left for None; show some, return the last with an answer."""
        before = self._workspace.count_events()
        played = list(islice(self._turns, turns))
        for turn in played[:_MOST_TURNS_SHOWN]:
            self._console.say(f"  {turn.session_id}, turn {turn.number}")
            self._console.say(f"    user   {_shortened(turn.user_input)}", f"    agent  {_shortened(turn.output)}")
        if len(played) > _MOST_TURNS_SHOWN:
            self._console.say(f"  and {len(played) - _MOST_TURNS_SHOWN:,} more turns")
        written = self._workspace.count_events() - before
        self._console.say(f"{len(played):,} turns, {written:,} events written to the journal.")
        return next((turn for turn in reversed(played) if turn.output), played[-1])

    def _deliver_all(self) -> float | None:
        """Wait until everything that can be sent is delivered; return how long that took, None if it is not."""
        began = time.monotonic()
        left = tracebridge.flush(_PATIENCE_S)
        return None if left else time.monotonic() - began

    def _until(self, is_so: Callable[[Figures], bool]) -> Figures:
        """Ask for the figures until they are so, or patience is at its end; return the last ones."""
        deadline = time.monotonic() + _PATIENCE_S
        while not is_so(figures := self._commands.figures()) and time.monotonic() < deadline:
            pass  # each look takes a process of its own, which is pause enough
        return figures

    def _show(self, figures: Figures) -> None:
        """Show the figures beside what the journal holds now."""
        events = self._workspace.count_events()
        self._console.say(f"The journal holds {events:,} events; `tracebridge status` tells of the sinks:")
        rows = [("", "state", "delivered", "in flight", "unread")]
        rows += [
            (
                sink.name,
                sink.state,
                f"{sink.delivered_events:,} events",
                f"{sink.in_flight_spans:,} spans",
                f"{sink.unread_bytes:,} bytes",
            )
            for sink in figures.values()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self._console.output("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))

    def _show_log(self, log: list[str]) -> None:
        """Show what the agent's log has got since the last time."""
        for line in log:
            self._console.say(f"The agent's log: {line}")
        log.clear()

    def _show_run(self, ran: Ran) -> None:
        self._console.command(ran.line)
        self._console.output(ran.output)

    def _check(self, is_so: bool, words: str) -> None:
        self._checks += 1
        if is_so:
            self._console.kept(words)
        else:
            self._console.broken(words)
            self._broken.append(words)


def _shortened(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


@contextmanager
def _log_lines() -> Iterator[list[str]]:
    """Collect what tracebridge logs, which would else stand on standard error between the lines of the story."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tracebridge")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
