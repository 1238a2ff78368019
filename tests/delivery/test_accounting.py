"""At any moment every event that was written is confirmed, in flight, open, unread, dead, discarded or left out."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery.file_backend import FileBackend, settings_for
from tests.delivery.rig import LONG_AGO, Rig, now, session_lines, write_session
from tests.examples import examples
from tracebridge import Tracer
from tracebridge.delivery.accounting import Accounting, account_for
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.removal import Removal
from tracebridge.delivery.shipper import Shipper
from tracebridge.event import timestamp_ns
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.sink import Outcome, Receipt

ANSWERS = (
    Receipt(outcome=Outcome.RETRY, message="503"),
    Receipt(outcome=Outcome.UNKNOWN, message="500"),
    Receipt(outcome=Outcome.REJECTED, message="400"),
    Receipt(outcome=Outcome.TOO_LARGE, message="413"),
    Receipt(outcome=Outcome.ACCEPTED, rejected=1, message="partly"),
    ConnectionResetError("reset"),
)

STEPS = ("write", "write open", "go on", "round", "round", "round", "restart", "discard", "retry")


class Life:
    """A trace folder, a backend with random faults, and shippers that come and go."""

    def __init__(self, folder: Path, backend: FileBackend, policy: Policy, seed: int) -> None:
        self.rig = Rig(folder, backend, policy)
        self.chance = random.Random(seed)
        self.shipper: Shipper | None = None
        self.sessions = 0
        self.rounds = 0
        backend.answers.breaks_on = {"breaks"}
        backend.answers.poison = {"poison"}
        backend.answers.unencodable = {"odd"}
        backend.answers.randomly = self._answer

    def _answer(self) -> Receipt | Exception | None:
        return self.chance.choice(ANSWERS) if self.chance.random() < 0.4 else None

    def do(self, step: str) -> None:
        match step:
            case "write" | "write open":
                self.sessions += 1
                tool = self.chance.choice(["search", "search", "search", "breaks", "poison", "odd"])
                at = self.chance.choice([now(), LONG_AGO])
                write_session(self.rig.trace_dir, f"s{self.sessions}", 2, tool, step == "write", at)
            case "go on" if self.sessions:
                name = f"s{self.chance.randint(1, self.sessions)}"
                write_session(self.rig.trace_dir, name, 1, run_id=f"run-{self.chance.randint(1, 9)}")
            case "round":
                self.round()
            case "restart":
                self.stop()
            case "remove":
                self.stop()
                removal = Removal(self.rig.settings)
                removal.remove_older_than(-1.0)
                removal.close()
            case "replace" if self.sessions:
                path = layout.events_file(layout.session_folder(self.rig.trace_dir, f"s{self.sessions}"))
                if path.exists():
                    path.unlink()
                    write_session(self.rig.trace_dir, f"s{self.sessions}", 1, at=now())
            case "discard" | "retry":
                self.decide(step)

    def decide(self, step: str) -> None:
        state = self.rig.state()
        try:
            for target in state.targets():
                letters = state.dead.of(target.id)[:1]
                if step == "discard":
                    state.dead.discard(target.id, letters)
                else:
                    state.dead.retry(letters)
        finally:
            state.close()

    def round(self) -> None:
        if self.shipper is None:
            self.shipper = self.rig.shipper(Backoff(first_s=0.0005, longest_s=0.001))
        self.rounds += 1
        self.shipper.round(self.rounds)
        self.shipper.wait(0.002)

    def stop(self) -> None:
        if self.shipper is not None:
            self.shipper.close()
            self.shipper = None

    def events_in_journals(self) -> int:
        files = self.rig.trace_dir.glob("*/events.jsonl")
        return sum(file.read_bytes().count(b"\n") for file in files)

    def accounting(self) -> Accounting:
        """Fails if an event is unaccounted for."""
        state = self.rig.state()
        try:
            state.folder(self.rig.trace_dir)
            sink = self.rig.settings.sinks[0]
            found = account_for(state, state.target(sink.name, str(self.rig.file)), sink.policy)
        finally:
            state.close()
        places = (found.confirmed, found.in_flight, found.pending, found.dead, found.discarded, found.left_out)
        assert found.unaccounted == 0, found
        assert found.written == sum(places), found
        return found


def test_a_journal_that_holds_a_copy_of_itself_is_accounted_for(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.scripted = [Receipt(outcome=Outcome.UNKNOWN)]
    tracer = Tracer({"agent_trace": {"trace_dir": str(rig.trace_dir)}})
    with tracer.trace_session("a") as session, session.tool_call("search", {"q": 1}):
        pass
    tracer.shutdown()
    events = layout.events_file(layout.session_folder(rig.trace_dir, "a"))
    events.write_bytes(events.read_bytes() * 2)
    rig.ship(backoff=Backoff(first_s=0.002, longest_s=0.01))
    account = rig.account()
    assert account.unaccounted_events == 0
    assert account.counters["confirmed_events"] == 8


def test_what_was_sent_before_a_policy_was_narrowed_is_not_left_out_as_well(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    journals = [write_session(rig.trace_dir, f"s{number}", turns=2) for number in range(10)]
    rig.ship()
    state, narrow = rig.state(), Policy(sample_rate=0.2)
    found = account_for(state, 1, narrow)
    assert (found.written, found.confirmed, found.left_out) == (100, 100, 0)
    # what is written from now on
    for journal in journals:
        write_session(rig.trace_dir, journal.parent.name.removeprefix("session-"), turns=1)
    found = account_for(state, 1, narrow)
    state.close()
    assert (found.written, found.confirmed) == (160, 100)
    assert found.left_out + found.unread == 60
    assert 0 < found.unread < 60


def test_what_was_open_when_its_session_was_sampled_out_is_left_out_once_the_file_is_gone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    journal = write_session(rig.trace_dir, "a", turns=1, end=False)
    rig.ship()
    with journal.open("a", encoding="utf-8") as file:
        file.write(session_lines("a", 1, "search", True, now())[-1] + "\n")
    state, narrow = rig.state(), Policy(sample_rate=1e-9)
    before = account_for(state, 1, narrow)
    assert (before.confirmed, before.open, before.left_out) == (4, 1, 1)
    removal = Removal(settings_for(rig.trace_dir, rig.backend, rig.file, narrow))
    try:
        assert removal.remove_older_than(-1.0).sessions == ["a"]
    finally:
        removal.close()
    found = account_for(state, 1, narrow)
    state.close()
    assert (found.written, found.confirmed, found.open, found.left_out, found.unaccounted) == (5, 4, 0, 1, 0)


@pytest.mark.parametrize("readable", [True, False])
@settings(max_examples=examples(30))
@given(st.lists(st.sampled_from(STEPS), max_size=30), st.integers(0, 10**6), st.sampled_from([1.0, 0.5]))
def test_written_is_confirmed_in_flight_pending_dead_and_left_out_after_each_step(
    readable: bool, steps: list[str], seed: int, sample_rate: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = FileBackend(readable=readable, max_request_spans=3)
        life = Life(Path(folder), backend, Policy(sample_rate=sample_rate), seed)
        for step in steps:
            life.do(step)
            assert life.accounting().written == life.events_in_journals()
        life.stop()
        assert life.accounting().written == life.events_in_journals()


@pytest.mark.parametrize("readable", [True, False])
@settings(max_examples=examples(30))
@given(st.lists(st.sampled_from([*STEPS, "remove", "replace"]), max_size=30), st.integers(0, 10**6))
def test_the_account_is_right_also_when_sessions_are_removed_and_files_replaced(
    readable: bool, steps: list[str], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), FileBackend(readable=readable, max_request_spans=3), Policy(), seed)
        for step in steps:
            life.do(step)
            life.accounting()
        life.stop()
        life.accounting()


def test_a_long_life_comes_by_every_place(tmp_path: Path) -> None:
    life = Life(tmp_path, FileBackend(readable=False, max_request_spans=3), Policy(sample_rate=0.8), seed=7)
    seen = dict.fromkeys(("confirmed", "in_flight", "unread", "open", "dead", "discarded", "left_out"), 0)
    for number in range(300):
        life.do(["write", "write open", "round", "go on", "round", "discard", "round", "restart"][number % 8])
        found = life.accounting()
        assert found.written == life.events_in_journals()
        seen = {name: max(most, getattr(found, name)) for name, most in seen.items()}
    life.stop()
    assert all(seen.values()), seen


@pytest.mark.parametrize(
    "first", ['{"timestamp": "2026-02-\n', '{"half": \n\n'], ids=["a torn event", "a torn line and an empty one"]
)
def test_what_waits_behind_a_broken_line_is_as_old_as_it_is(tmp_path: Path, first: str) -> None:
    rig = Rig(tmp_path, FileBackend())
    journal = write_session(rig.trace_dir, "a", at=LONG_AGO)
    # as an old writer has written it, which the fast decoder does not read
    lines = journal.read_text("utf-8").replace('"plan": "pro"', '"plan": NaN')
    journal.write_text(first + lines, "utf-8")
    state = rig.state()
    try:
        state.folder(rig.trace_dir)
        target = state.target(rig.settings.sinks[0].name, rig.settings.sinks[0].endpoint)
        assert account_for(state, target, Policy()).oldest_ns == timestamp_ns(LONG_AGO)
    finally:
        state.close()
