from __future__ import annotations

import collections
import fcntl
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import grace_s
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.journal.reader import read_journal
from tracebridge.journal.writer import Journal
from tracebridge.trouble import Trouble


def raise_it(error: BaseException) -> None:
    raise error


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, trouble=Trouble(raise_it))


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def path_of(journal: Journal, session_id: str) -> Path:
    return layout.events_file(layout.session_folder(journal.trace_dir, session_id))


def read(journal: Journal, session_id: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path_of(journal, session_id).read_bytes().splitlines()]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def take_descriptor() -> int | None:
    """Take one of the process's descriptors; None when there is none left."""
    try:
        return os.dup(0)
    except OSError:
        return None


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def in_child(work: Callable[[], object]) -> int:
    """Fork, do the work in the child, and return the child's exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_events_are_appended_in_order(journal: Journal) -> None:
    for number in range(3):
        assert journal.append("s", line(n=number))
    assert [event["n"] for event in read(journal, "s")] == [0, 1, 2]


def test_a_shipper_is_told_of_a_session_before_its_first_event(journal: Journal) -> None:
    journal.append("s", line(n=0))
    journal.append("s", line(n=1))
    assert OpenedLog(journal.trace_dir).tail().names == ["session-s"]
    opened = layout.opened_log(journal.trace_dir).stat().st_mtime_ns
    assert opened <= path_of(journal, "s").stat().st_mtime_ns


def test_a_session_is_announced_again_when_it_is_opened_again(journal: Journal) -> None:
    journal.append("a/b", line(n=0))
    journal.close()
    journal.append("a/b", line(n=1))
    assert OpenedLog(journal.trace_dir).tail().names == ["session-a%2Fb"] * 2


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts system calls by /proc/self/io")
def test_an_event_is_one_write(journal: Journal) -> None:
    def writes() -> int:
        fields = dict(entry.split(": ") for entry in Path("/proc/self/io").read_text("ascii").splitlines())
        return int(fields["syscw"])

    journal.append("s", line(n=0))
    before = writes()
    for number in range(100):
        journal.append("s", line(n=number, text="x" * 100_000))
    assert writes() - before == 100


def test_threads_that_write_one_session_never_mix_their_lines(journal: Journal) -> None:
    texts = ["x" * 10, "y" * 50_000]

    def write(thread: int) -> None:
        for number in range(100):
            journal.append("s", line(thread=thread, n=number, text=texts[number % 2]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    events = read(journal, "s")
    assert len(events) == 800
    for thread in range(8):
        assert [event["n"] for event in events if event["thread"] == thread] == list(range(100))


def test_files_that_take_turns_in_being_open_get_only_their_own_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, trouble=Trouble(raise_it), max_open_files=3)

    def write(thread: int) -> None:
        for number in range(150):
            session = f"s{(number * 7 + thread) % 20}"
            journal.append(session, line(session=session, thread=thread, n=number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    counted = 0
    for session in (f"s{number}" for number in range(20)):
        events = read(journal, session)
        assert {event["session"] for event in events} == {session}
        counted += len(events)
    assert counted == 8 * 150


def test_no_more_files_are_open_than_allowed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, trouble=Trouble(raise_it), max_open_files=5)
    before = open_descriptors()
    for number in range(50):
        journal.append(f"s{number}", line(n=number))
        assert open_descriptors() - before <= 5
    journal.close()
    assert open_descriptors() <= before, "fewer, if an earlier test has let go of something only now"


def test_the_files_that_are_used_stay_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, trouble=Trouble(raise_it), max_open_files=5)
    for number in range(50):
        journal.append("busy", line(n=number))
        journal.append(f"s{number}", line(n=number))
    assert OpenedLog(tmp_path).tail().names.count("session-busy") == 1


def test_nothing_is_remembered_of_sessions_whose_files_are_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, trouble=Trouble(raise_it), max_open_files=2)
    for number in range(100):
        journal.append(f"s{number}", line(n=number))
    gc.collect()
    files = [known for known in gc.get_objects() if type(known).__name__ == "JournalFile"]
    assert len([file for file in files if file._journal is journal]) <= 2


def test_a_file_is_locked_against_deletion_as_long_as_it_is_open(journal: Journal) -> None:
    journal.append("s", line(n=0))
    assert is_locked(path_of(journal, "s"))
    journal.file("s").close()
    assert not is_locked(path_of(journal, "s"))


def test_a_file_that_is_deleted_while_its_lock_is_waited_for_is_created_again(journal: Journal) -> None:
    journal.append("s", line(n=0))
    journal.close()
    path = path_of(journal, "s")
    with path.open("rb") as deleted:
        fcntl.flock(deleted, fcntl.LOCK_EX)
        writer = threading.Thread(target=journal.append, args=("s", line(n=1)))
        writer.start()
        time.sleep(0.02)  # the writer waits for the lock, or will find the file gone: both are tested
        path.unlink()
        path.parent.rmdir()
    writer.join(50)
    assert [event["n"] for event in read(journal, "s")] == [1]


def test_a_file_that_stays_locked_costs_the_event_and_a_moment_but_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("s", line(n=0))
    journal.close()
    with path_of(journal, "s").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        begun = time.monotonic()
        assert not journal.append("s", line(n=1))
        assert time.monotonic() - begun < grace_s()
    assert journal.append("s", line(n=2))
    assert [event["n"] for event in read(journal, "s")] == [0, 2]
    assert journal.trouble.counts == {"journal: EAGAIN": 1}


@pytest.mark.parametrize("half", [b'{"timestamp":"2026', b'{"a":1}'])
def test_a_line_that_a_killed_writer_left_half_is_ended_first(half: bytes, journal: Journal) -> None:
    path = path_of(journal, "s")
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"n":0}\n' + half)
    journal.append("s", line(n=1))
    assert path.read_bytes() == b'{"n":0}\n' + half + b"\n" + line(n=1)


SHORT_WRITES = """
import json, resource, sys
from pathlib import Path
from tracebridge.journal.writer import Journal
journal = Journal(Path(sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
written = [journal.append("s", b'{"n":0}\\n')]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
written += [journal.append("s", b'{"text":"%b"}\\n' % (b"x" * 2000)) for _ in range(3)]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
written.append(journal.append("s", b'{"n":1}\\n'))
print(json.dumps([written, dict(journal.trouble.counts)]))
"""


def test_after_a_short_write_the_next_event_has_a_line_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT_WRITES, str(tmp_path)], check=True, capture_output=True, text=True
    )
    written, counts = json.loads(done.stdout)
    assert written == [True, False, False, False, True]
    assert counts == {"journal: EFBIG": 3}
    lines = (tmp_path / "session-s" / "events.jsonl").read_bytes().splitlines()
    assert lines[0] == b'{"n":0}'
    assert lines[-1] == b'{"n":1}'
    assert done.stderr.count("journal: EFBIG") == 1


ALL_BUT_THE_NEWLINE = """
import json, resource, sys
from pathlib import Path
from tracebridge.journal.writer import Journal
journal, other = Journal(Path(sys.argv[1])), Journal(Path(sys.argv[1]))
event = b'{"timestamp":"2026-02-06T22:10:00Z","event_type":"thinking","session_id":"s","turn":%d}\\n'
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
written = [journal.append("s", event % 0), other.append("s", event % 1)]
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * len(event % 0) - 1, hard))
written.append(journal.append("s", event % 2))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
first, then = (journal, other) if sys.argv[2] == "same" else (other, journal)
written += [first.append("s", event % 3), then.append("s", event % 4)]
print(json.dumps([written, dict(journal.trouble.counts)]))
"""


@pytest.mark.parametrize("next_writer", ["same", "other"])
def test_an_event_of_which_only_the_newline_could_not_be_written_is_there_once(
    next_writer: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL_BUT_THE_NEWLINE, str(tmp_path), next_writer],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == [[True] * 5, {}]
    with (tmp_path / "session-s" / "events.jsonl").open("rb") as file:
        events = [entry.event.turn for entry in read_journal(file, 0) if entry.event is not None]
    assert events == [0, 1, 2, 3, 4]


def test_a_trace_folder_that_cannot_be_made_costs_events_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("in the way", encoding="utf-8")
    journal = Journal(tmp_path / "traces")
    assert not journal.append("s", line(n=0))
    journal.write_metadata("s", "run-1", {})
    assert journal.trouble.counts == {"journal: ENOTDIR": 1, "metadata.json: ENOTDIR": 1}
    (tmp_path / "traces").unlink()
    assert journal.append("s", line(n=1))


def test_each_kind_of_trouble_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "traces").write_text("in the way", encoding="utf-8")
    journal = Journal(tmp_path / "traces")
    for number in range(5):
        journal.append(f"s{number}", line(n=number))
    assert [record.name for record in caplog.records] == ["tracebridge"]
    assert "ENOTDIR" in caplog.text


def test_recording_goes_on_in_a_new_file_when_someone_removed_the_folder(journal: Journal) -> None:
    file = journal.file("s")
    now_ns = time.monotonic_ns()
    file.append(line(n=0), now_ns)
    path = path_of(journal, "s")
    path.unlink()
    path.parent.rmdir()
    file.append(line(n=1), now_ns + 1_000_000_000)
    assert [event["n"] for event in read(journal, "s")] == [0, 1]


def test_a_descriptor_that_something_else_closed_and_reused_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    file = journal.file("s")
    now_ns = time.monotonic_ns()
    file.append(line(n=0), now_ns)
    [ours] = [
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}") and os.path.samefile(f"/proc/self/fd/{name}", path_of(journal, "s"))
    ]
    with (tmp_path / "other").open("wb") as other:
        os.dup2(other.fileno(), ours)
        file.append(line(n=1), now_ns + 1_000_000_000)
        os.fstat(ours)
        os.close(ours)
    assert [event["n"] for event in read(journal, "s")] == [0, 1]
    assert (tmp_path / "other").read_bytes() == b""


def test_a_process_without_descriptors_closes_ours_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path, trouble=Trouble(raise_it))
    for number in range(10):
        journal.append(f"s{number}", line(n=number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # opening, and the log of opened sessions, take two at a time
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    try:
        blockers = list(iter(take_descriptor, None))
        assert journal.append("another", line(n=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for blocker in blockers:
            os.close(blocker)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_through_a_file_and_a_lock_of_its_own(journal: Journal) -> None:
    journal.append("s", line(n=0))

    def write() -> None:
        assert journal.append("s", line(n=1))
        journal.close()

    assert in_child(write) == 0
    assert is_locked(path_of(journal, "s"))
    journal.append("s", line(n=2))
    assert [event["n"] for event in read(journal, "s")] == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_no_lock_of_its_parent(journal: Journal) -> None:
    journal.append("s", line(n=0))
    asked, ask = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ask)
        os.write(tell, b"forked")
        os.read(asked, 1)
        os._exit(0)
    try:
        assert os.read(told, 6) == b"forked"
        journal.close()
        assert not is_locked(path_of(journal, "s"))
    finally:
        for descriptor in (ask, asked, tell, told):
            os.close(descriptor)
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_another_thread_writes_can_write(journal: Journal) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            journal.append("s", line(by="thread"))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        codes = [in_child(lambda: signal.alarm(10) or journal.append("s", line(by="child"))) for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 20
    assert collections.Counter(event["by"] for event in read(journal, "s"))["child"] == 20


def test_processes_that_write_one_session_never_mix_their_lines(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tracebridge.journal.writer import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        'line = b\'{"by":%d,"text":"%b"}\\n\' % (int(sys.argv[2]), b\'x\' * 9000)\n'
        "for n in range(200): journal.append('s', line)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)]) for number in range(3)]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    events = [json.loads(text) for text in (tmp_path / "session-s" / "events.jsonl").read_bytes().splitlines() if text]
    assert collections.Counter(event["by"] for event in events) == {0: 200, 1: 200, 2: 200}


def test_an_event_of_a_signal_handler_in_the_middle_of_another_one_is_written(journal: Journal) -> None:
    handled = []

    def handle(_signal: int, _frame: object) -> None:
        handled.append(journal.append("s", line(by="handler")))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        deadline = time.monotonic() + 10
        while len(handled) < 50 and time.monotonic() < deadline:
            signal.setitimer(signal.ITIMER_REAL, 0.00005)
            for _ in range(20):
                journal.append("s", line(by="agent"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled
    assert sum(event["by"] == "handler" for event in read(journal, "s")) == len(handled)
