"""Full disks, folders that cannot be written, and other things that an agent's machine does to its traces.

Each costs the events that could not be written and nothing else: the agent goes on, each lost event is counted, each
kind of trouble is told once, and recording resumes by itself once the cause is gone.
"""

from __future__ import annotations

import contextvars
import gc
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.durability import disk_scenarios as scenarios
from tests.durability.disk_scenarios import SECOND_NS, event_line, lines_of, think, thoughts_in, tracer_in
from tests.durability.small_disk import apart
from tests.waiting import grace_s
from tests.workplace import environment
from tracebridge import Tracer
from tracebridge.assembler import disassemble
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.journal.writer import Journal
from tracebridge.session_stream import SessionStream

SOMEBODY_ELSE = 4242


# --- full disks


@pytest.mark.parametrize("seed", [7919, 104729, 1299709])
def test_what_was_written_on_a_full_disk_is_read_back_and_what_was_not_is_counted(seed: int, tmp_path: Path) -> None:
    outcome = apart(scenarios.fill_a_disk_while_writing, tmp_path / "disk", seed)
    found = outcome.result
    assert found["equal"], "every event whose writing succeeded, and no other, once and in order"
    assert found["lost"] > 10
    assert found["written"] > 300
    assert found["last"] == 599, "recording resumed by itself"
    assert found["counts"] == {"journal: ENOSPC": found["lost"]}
    assert outcome.errors.count("\n") == 1
    assert "No space left" in outcome.errors


def test_a_full_disk_costs_an_agent_its_events_and_leaves_no_half_metadata(tmp_path: Path) -> None:
    outcome = apart(scenarios.fill_a_disk_in_a_run, tmp_path / "disk")
    found = outcome.result
    assert found["thoughts"] == ["before", "after"]
    assert found["metadata"] == {"when": "before"}
    assert found["files"] == ["events.jsonl", "metadata.json"]
    # five thoughts; the end of the session may find room in what is left of the file's last page
    assert found["counts"].pop("metadata.json: ENOSPC") == 1
    assert found["counts"]["journal: ENOSPC"] in (5, 6)
    assert set(found["more"].values()) == {0}
    assert outcome.errors.count("\n") == 2


def test_a_disk_without_room_for_a_sessions_folder_costs_its_events(tmp_path: Path) -> None:
    outcome = apart(scenarios.use_up_all_files, tmp_path / "disk")
    assert outcome.result["counts"] == {"journal: ENOSPC": 3, "metadata.json: ENOENT": 2}
    assert outcome.result["after"] == outcome.result["counts"]
    assert outcome.result["thoughts"] == ["found"]


def test_a_full_disk_under_the_opened_log_costs_no_event_and_shippers_are_told_later(tmp_path: Path) -> None:
    found = apart(scenarios.fill_the_disk_of_the_opened_log, tmp_path / "disk").result
    assert found["written"] == [True] * 4
    assert found["turns"] == [0, 1, 2, 3]
    assert found["told"] == []
    assert found["told after"] == ["session-s"]
    assert found["counts"] == {"opened.log: ENOSPC": 3}


def test_an_opened_log_that_cannot_be_begun_anew_goes_on(tmp_path: Path) -> None:
    found = apart(scenarios.fill_the_disk_while_the_opened_log_is_begun_anew, tmp_path / "disk").result
    assert found["failures"] == ["No space left on device"] * 3
    assert found["kept"]
    assert found["left"] == ["opened.log"]
    assert found["names"] == ["session-c"]


def test_losses_that_found_room_for_a_part_of_their_line_are_told_whole_later(tmp_path: Path) -> None:
    found = apart(scenarios.fill_the_disk_of_the_losses, tmp_path / "disk").result
    assert found["full"] == {"journal: ENOSPC": found["written"]}
    assert found["after"] == {"journal: ENOSPC": found["written"] + 1000}


def test_commands_on_a_full_disk_say_so_and_that_it_could_not_be_done(tmp_path: Path) -> None:
    found = apart(scenarios.run_commands_on_a_full_disk, tmp_path / "disk").result
    for code, said in found.values():
        assert (code, said.count("\n")) == (2, 1), found
        assert "database or disk is full" in said


def test_a_session_is_noted_as_spooled_whole_or_not_at_all_on_a_full_disk(tmp_path: Path) -> None:
    found = apart(scenarios.fill_the_disk_of_the_spooled_log, tmp_path / "disk").result
    assert found["full"] == [str(number) for number in range(found["noted"])]
    assert found["after"] == [*found["full"], "after"]


def test_a_session_that_a_full_disk_keeps_from_being_deleted_is_not_noted_as_gone(tmp_path: Path) -> None:
    found = apart(scenarios.use_up_the_files_of_a_spool, tmp_path / "disk").result
    assert found == {"removed": 0, "full": ["session-other"], "after": ["session-other", "session-s"]}


def test_a_folder_that_is_removed_while_the_disk_is_full_costs_only_what_comes_then(tmp_path: Path) -> None:
    found = apart(scenarios.delete_the_folder_on_a_full_disk, tmp_path / "disk").result
    assert found["written"] == [True] * 10
    assert found["refused"] == [False] * 2
    # nor is there room for the log of opened files
    assert found["counts"].pop("opened.log: ENOSPC") == 2
    assert found["counts"] == {"journal: ENOSPC": 2}
    assert found["last"]
    assert found["turns"] == [*range(10), 12]


def test_a_disk_that_becomes_read_only_costs_events_until_it_is_writable_again(tmp_path: Path) -> None:
    outcome = apart(scenarios.make_the_disk_read_only, tmp_path / "disk")
    found = outcome.result
    assert found["thoughts"] == ["before", "after"]
    assert found["counts"].pop("journal: EROFS") == 4 + 3
    assert sum(found["counts"].values()) == 4, "two runs that could not write their metadata, twice each"
    assert outcome.errors.count("\n") == 1 + len(found["counts"])


# --- folders of somebody else


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="tracebridge-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_somebody_else(work: Callable[[], Any]) -> Any:
    """Do the work in a forked child that has no rights but those of an ordinary user; return its JSON result."""
    import logging  # noqa: F401  what the child may need must be there: it cannot read our files

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(SOMEBODY_ELSE)
                os.setuid(SOMEBODY_ELSE)
            os.write(writing, json.dumps(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as told:
        text = told.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(text)


def give_away(folder: Path, mode: int) -> None:
    """Give a folder to the user that the child becomes, or leave it with us if we are nobody special."""
    if os.geteuid() == 0:
        os.chown(folder, SOMEBODY_ELSE, SOMEBODY_ELSE)
    folder.chmod(mode)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_folder_that_may_not_be_written_costs_events_until_it_may(common_folder: Path) -> None:
    trace_dir = common_folder / "traces"
    trace_dir.mkdir()
    give_away(trace_dir, 0o555)

    def work() -> Any:
        tracer = tracer_in(trace_dir)
        think(tracer, "lost")
        counts = dict(tracer.trouble.counts)
        trace_dir.chmod(0o755)
        think(tracer, "kept")
        return counts, dict(tracer.trouble.counts), thoughts_in(trace_dir)

    counts, after, thoughts = as_somebody_else(work)
    assert counts == after == {"journal: EACCES": 3, "metadata.json: ENOENT": 2}
    assert thoughts == ["kept"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_folder_of_another_owner_costs_the_events_and_nothing_else(common_folder: Path) -> None:
    trace_dir = common_folder / "traces"
    think(tracer_in(trace_dir), "of root")

    def work() -> Any:
        tracer = tracer_in(trace_dir)
        think(tracer, "lost")
        think(tracer, "lost", session_id="another")
        return dict(tracer.trouble.counts), tracer.flush(0.1)

    counts, left = as_somebody_else(work)
    assert counts.pop("journal: EACCES") == 6
    assert sum(counts.values()) == 4
    assert left == 0
    assert thoughts_in(trace_dir) == ["of root"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_state_folder_that_may_not_be_written_costs_no_event(common_folder: Path) -> None:
    trace_dir = common_folder / "traces"
    state = layout.state_folder(trace_dir)
    state.mkdir(parents=True)
    give_away(trace_dir, 0o755)
    give_away(state, 0o555)

    def work() -> Any:
        tracer = tracer_in(trace_dir)
        think(tracer, "one", "two")
        counts = dict(tracer.trouble.counts)
        state.chmod(0o755)
        think(tracer, "three")
        return counts, thoughts_in(trace_dir), OpenedLog(trace_dir).tail().names

    counts, thoughts, told = as_somebody_else(work)
    assert thoughts == ["one", "two", "three"]
    assert set(counts) == {"opened.log: EACCES"}
    assert told == ["session-s"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_session_that_may_not_be_written_costs_its_own_events_only(common_folder: Path) -> None:
    trace_dir = common_folder / "traces"
    closed = layout.session_folder(trace_dir, "closed")
    closed.mkdir(parents=True)
    for folder in (trace_dir, closed):
        give_away(folder, 0o755)
    closed.chmod(0o555)

    def work() -> Any:
        tracer = tracer_in(trace_dir)
        think(tracer, "lost", session_id="closed")
        think(tracer, "kept", session_id="open")
        return dict(tracer.trouble.counts), thoughts_in(trace_dir, "open")

    counts, thoughts = as_somebody_else(work)
    assert counts == {"journal: EACCES": 3, "metadata.json: EACCES": 2}
    assert thoughts == ["kept"]


# --- what stands in the way


def a_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way", encoding="utf-8")


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def a_pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def a_dangling_link(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.parent / "not" / "there")


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (a_file, ".", "journal: ENOTDIR"),
        (a_pipe, ".", "journal: ENOTDIR"),
        (a_dangling_link, ".", "journal: EEXIST"),
        (a_file, "session-s", "journal: ENOTDIR"),
        (a_dangling_link, "session-s", "journal: EEXIST"),
        (a_folder, "session-s/events.jsonl", "journal: EISDIR"),
        (a_pipe, "session-s/events.jsonl", "journal: EINVAL"),
        (a_dangling_link, "session-s/events.jsonl", "journal: ENOENT"),
    ],
)
def test_what_stands_in_the_way_costs_the_events_and_holds_the_agent_up_no_time(
    make: Callable[[Path], None], name: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace_dir = tmp_path / "traces"
    make(trace_dir / name)
    tracer = tracer_in(trace_dir)
    begun = time.monotonic()
    think(tracer, "lost", "lost")
    assert time.monotonic() - begun < grace_s()
    counts = {part: count for part, count in tracer.trouble.counts.items() if part.startswith("journal")}
    assert counts == {kind: 4}
    assert sum(record.message.startswith("journal") for record in caplog.records) == 1
    in_the_way = trace_dir / name
    if in_the_way.is_dir() and not in_the_way.is_symlink():
        in_the_way.rmdir()
    else:
        in_the_way.unlink()
    think(tracer, "kept")
    assert thoughts_in(trace_dir) == ["kept"]


def test_a_folder_that_is_removed_and_made_again_in_the_middle_of_a_run_is_written_on(tmp_path: Path) -> None:
    trace_dir = tmp_path / "traces"
    tracer = tracer_in(trace_dir)
    with tracer.trace_session("s") as session:
        session.log_thinking("one")
        shutil.rmtree(trace_dir)
        trace_dir.mkdir()
        session.log_thinking("two")
    assert thoughts_in(trace_dir) == ["one", "two"]
    assert tracer.trouble.counts == {}
    assert layout.metadata_file(layout.session_folder(trace_dir, "s")).is_file()
    assert OpenedLog(trace_dir).tail().names == ["session-s"]


def test_a_path_that_is_too_long_costs_the_events(tmp_path: Path) -> None:
    tracer = tracer_in(tmp_path.joinpath(*["x" * 200] * 30))
    think(tracer, "lost")
    assert tracer.trouble.counts == {"journal: ENAMETOOLONG": 3, "metadata.json: ENAMETOOLONG": 2}


def test_a_folder_whose_name_is_no_text_is_written(tmp_path: Path) -> None:
    trace_dir = tmp_path / os.fsdecode(b"tr\xe4ces\xff")
    tracer = tracer_in(trace_dir)
    think(tracer, "kept")
    assert thoughts_in(trace_dir) == ["kept"]
    assert tracer.trouble.counts == {}
    (tmp_path / "file").touch()
    tracer = tracer_in(tmp_path / "file" / os.fsdecode(b"\xff"))
    think(tracer, "lost")
    assert tracer.trouble.counts["journal: ENOTDIR"] == 3


# --- open files

MANY_SESSIONS = """
import json, os, resource, sys, threading
from pathlib import Path
from tracebridge.journal.writer import Journal
sessions, rounds, limit = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
journal = Journal(Path(sys.argv[1]))
files = [journal.file(f"s{number}") for number in range(sessions)]
written, most = [], []

def work(thread):
    import time
    for round_ in range(rounds):
        for number in range(thread, sessions, 4):
            line = b'{"session":%d,"n":%d}\\n' % (number, round_)
            written.append(files[number].append(line, time.monotonic_ns()))
        # a thread of its own for each quarter, and one session that all of them write
        written.append(journal.append("common", b'{"session":-1,"n":%d}\\n' % (round_ * 4 + thread)))
        most.append(len(os.listdir("/proc/self/fd")))

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([all(written), len(written), max(most), dict(journal.trouble.counts)]))
"""


def write_many_sessions(trace_dir: Path, sessions: int, rounds: int, limit: int) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", MANY_SESSIONS, str(trace_dir), *map(str, (sessions, rounds, limit))],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        timeout=200,
    )
    for number in range(sessions):
        lines = (trace_dir / f"session-s{number}" / "events.jsonl").read_bytes()
        assert lines == b"".join(b'{"session":%d,"n":%d}\n' % (number, round_) for round_ in range(rounds))
    common = (trace_dir / "session-common" / "events.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["n"] for line in common) == list(range(4 * rounds))
    return json.loads(done.stdout)


def test_more_sessions_than_descriptors_are_written_each_into_its_own_file(tmp_path: Path) -> None:
    all_written, count, most, counts = write_many_sessions(tmp_path, 1_500, 3, 300)
    assert (all_written, count) == (True, 3 * 1_500 + 12)
    assert most < 300
    assert counts == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_10_000_live_sessions_work_with_1_024_descriptors(tmp_path: Path) -> None:
    all_written, count, most, counts = write_many_sessions(tmp_path, 10_000, 3, 1_024)
    assert (all_written, count) == (True, 3 * 10_000 + 12)
    # 256 of ours, what the interpreter has, and what the threads are opening at that moment
    assert most < 300
    assert counts == {}


FEW_LEFT = """
import json, os, resource, sys
from tracebridge import Tracer
import logging
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
tracer = Tracer({"agent_trace": {"trace_dir": sys.argv[1]}})
agents_own = []
open_sessions = []
lost = 0
for number in range(60):
    session = tracer.trace_session(f"s{number}").__enter__()
    session.log_thinking("one")
    open_sessions.append(session)
    if number < 25:
        # the agent gets what it asks for, though it was all ours before
        agents_own.append(os.open("/dev/null", os.O_RDONLY))
for session in open_sessions:
    session.log_thinking("two")
    session.__exit__(None, None, None)
print(json.dumps([len(agents_own), dict(tracer.trouble.counts)]))
"""


def test_an_agent_with_hardly_a_descriptor_left_records_everything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_LEFT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    own, counts = json.loads(done.stdout)
    assert own == 25
    assert counts == {}
    for number in range(60):
        assert thoughts_in(tmp_path, f"s{number}") == ["one", "two"]


# --- clocks

STEPS_S = st.lists(
    st.sampled_from([0, 1, -1, 3600, -3600, 86_400 * 365, -86_400 * 365 * 20]) | st.integers(-(10**6), 10**6),
    min_size=6,
    max_size=30,
)


@given(STEPS_S)
def test_a_wall_clock_that_steps_loses_and_misorders_nothing(steps: list[int]) -> None:
    """It is set before each turn and run, and in the middle of them; the monotonic clock goes on."""
    wall = [1_800_000_000 * SECOND_NS]
    monotonic = [5 * SECOND_NS]
    waiting = list(steps)

    def step() -> None:
        monotonic[0] += 400_000_000
        wall[0] += 400_000_000 + (waiting.pop() * SECOND_NS if waiting else 0)

    with tempfile.TemporaryDirectory() as folder:
        trace_dir = Path(folder)
        tracer = Tracer(
            {"agent_trace": {"trace_dir": folder}}, wall_ns=lambda: wall[0], monotonic_ns=lambda: monotonic[0]
        )
        expected = []
        for run in range(3):
            step()
            with tracer.trace_session("s") as session:
                for turn in range(2):
                    step()
                    with tracer.trace_turn(session, f"{run}.{turn}"):
                        for thought in range(3):
                            step()
                            session.log_thinking(f"{run}.{turn}.{thought}")
                            expected.append(f"{run}.{turn}.{thought}")
        tracer.shutdown()
        assert tracer.trouble.counts == {}
        assert thoughts_in(trace_dir) == expected
        path = layout.events_file(layout.session_folder(trace_dir, "s"))
        events = [line.event for line in lines_of(path) if line.event is not None]
        assert len(events) == 3 * 2 + 3 * 2 * 2 + len(expected)
        for run_id in {event.run_id for event in events}:
            of_run = [event for event in events if event.run_id == run_id]
            assert [event.fields["seq"] for event in of_run] == list(range(len(of_run)))
            for number in (1, 2):
                times = [event.timestamp for event in of_run if event.turn == number]
                assert times == sorted(times), "within a turn, times never run backwards"
        stream = SessionStream(path, lambda _type, data: data)
        spans = [span for taken in stream.steps() for span in taken.spans]
        spans += stream.expire(2**62)
        assert disassemble(spans) == [event.fields for event in events]


def test_a_wall_clock_that_stands_still_or_runs_back_does_not_stop_the_looks_for_the_file(tmp_path: Path) -> None:
    monotonic = [5 * SECOND_NS]
    wall = iter(range(1_800_000_000 * SECOND_NS, 0, -SECOND_NS * 3600))
    tracer = Tracer(
        {"agent_trace": {"trace_dir": str(tmp_path / "traces")}},
        wall_ns=lambda: next(wall),
        monotonic_ns=lambda: monotonic[0],
    )
    with tracer.trace_session("s") as session:
        for number in range(10):
            monotonic[0] += SECOND_NS
            session.log_thinking(str(number))
            shutil.rmtree(tmp_path / "traces")
    assert thoughts_in(tmp_path / "traces")[-1] == "9"
    assert tracer.trouble.counts == {}


def test_descriptors_of_a_tracer_that_is_dropped_are_given_back(tmp_path: Path) -> None:
    def leave_a_session_open(number: int) -> None:
        tracer_in(tmp_path).trace_session(f"s{number}").__enter__().log_thinking("x")

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        contextvars.Context().run(leave_a_session_open, number)
    gc.collect()
    # an earlier test may have let go of something only now
    assert len(os.listdir("/proc/self/fd")) <= before


def test_files_are_made_with_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    think(tracer_in(tmp_path / "traces"), "x")
    mask = os.umask(0)
    os.umask(mask)
    for path in (tmp_path / "traces").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_threads_that_lose_events_at_once_are_all_counted(tmp_path: Path) -> None:
    (tmp_path / "traces").touch()
    journal = Journal(tmp_path / "traces")
    threads = [
        threading.Thread(target=lambda: [journal.append("s", event_line(number, 5)) for number in range(50)])
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.trouble.counts == {"journal: ENOTDIR": 300}
