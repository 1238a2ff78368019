"""What was written into a deleted file comes back, each line once, whoever wrote it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.workplace import environment
from tracebridge.journal import deleted, layout
from tracebridge.journal.writer import Journal
from tracebridge.trouble import Trouble

SECOND_NS = 1_000_000_000


def raise_it(error: BaseException) -> None:
    raise error


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def path_of(trace_dir: Path, session_id: str = "s") -> Path:
    return layout.events_file(layout.session_folder(trace_dir, session_id))


def read(trace_dir: Path, session_id: str = "s") -> list[dict[str, Any]]:
    return [json.loads(text) for text in path_of(trace_dir, session_id).read_bytes().splitlines() if text]


def numbers(trace_dir: Path, session_id: str = "s") -> list[int]:
    return [event["n"] for event in read(trace_dir, session_id)]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def trace_dir(tmp_path: Path) -> Path:
    return tmp_path / "traces"


@pytest.fixture
def journal(trace_dir: Path) -> Iterator[Journal]:
    journal = Journal(trace_dir, trouble=Trouble(raise_it))
    yield journal
    journal.close()


def test_closing_a_file_that_was_deleted_brings_back_what_was_written_since_it_was_last_seen(
    journal: Journal, trace_dir: Path
) -> None:
    file = journal.file("s")
    now_ns = time.monotonic_ns()
    before = open_descriptors()
    file.append(line(n=0), now_ns)
    file.append(line(n=1), now_ns + SECOND_NS)  # sees the file with event 0 in its place
    shutil.rmtree(trace_dir)
    file.append(line(n=2), now_ns + SECOND_NS + 1)
    file.close()
    assert numbers(trace_dir) == [1, 2]
    assert open_descriptors() == before


def test_the_metadata_goes_into_the_folder_that_was_made_again(journal: Journal, trace_dir: Path) -> None:
    journal.append("s", line(n=0))
    shutil.rmtree(trace_dir)
    journal.append("s", line(n=1))
    journal.write_metadata("s", "run-1", {"session_id": "s"})
    assert numbers(trace_dir) == [0, 1]
    assert layout.metadata_file(path_of(trace_dir).parent).is_file()


def test_a_file_that_was_moved_away_is_left_as_it_is(journal: Journal, trace_dir: Path, tmp_path: Path) -> None:
    file = journal.file("s")
    now_ns = time.monotonic_ns()
    file.append(line(n=0), now_ns)
    trace_dir.rename(tmp_path / "moved")
    file.append(line(n=1), now_ns + 1)
    file.append(line(n=2), now_ns + SECOND_NS)
    assert numbers(tmp_path / "moved") == [0, 1]
    assert numbers(trace_dir) == [2]


def test_lines_of_any_number_and_size_come_back_in_order(journal: Journal, trace_dir: Path) -> None:
    journal.append("s", line(n=-1))
    os.unlink(path_of(trace_dir))
    sizes = [10, 5_000, 3_000_000, 1, 70_000]
    for number in range(200):
        journal.append("s", line(n=number, text="x" * sizes[number % 5] if number < 20 else ""))
    journal.file("s").close()
    assert numbers(trace_dir) == [-1, *range(200)]


def test_lines_that_are_the_same_come_back_as_often_as_they_were_written(journal: Journal, trace_dir: Path) -> None:
    for _ in range(3):
        journal.append("s", line(n=0))
    os.unlink(path_of(trace_dir))
    journal.append("s", line(n=0))
    journal.close()
    assert numbers(trace_dir) == [0] * 4


def test_a_file_that_is_deleted_again_and_again_costs_nothing(journal: Journal, trace_dir: Path) -> None:
    file = journal.file("s")
    for number in range(30):
        file.append(line(n=number), number * SECOND_NS // 3)
        if number % 2:
            shutil.rmtree(trace_dir, ignore_errors=True)
    file.close()
    # what was seen in its place was deleted on purpose
    assert numbers(trace_dir)[-1] == 29
    assert len(numbers(trace_dir)) == len(set(numbers(trace_dir)))


def test_writers_of_one_deleted_file_bring_each_line_over_once(trace_dir: Path) -> None:
    one, other = (Journal(trace_dir, trouble=Trouble(raise_it)) for _ in range(2))
    one.append("s", line(n=0))
    other.append("s", line(n=1))
    shutil.rmtree(trace_dir)
    one.append("s", line(n=2))
    other.append("s", line(n=3))
    one.close()
    other.append("s", line(n=4))
    other.close()
    assert sorted(numbers(trace_dir)) == [0, 1, 2, 3, 4]


def test_events_that_cannot_be_brought_back_wait_and_are_brought_back_later(trace_dir: Path) -> None:
    journal = Journal(trace_dir)
    file = journal.file("s")
    now_ns = time.monotonic_ns()
    file.append(line(n=0), now_ns)
    shutil.rmtree(trace_dir)
    trace_dir.write_text("in the way", encoding="utf-8")
    assert file.append(line(n=1), now_ns + 1)
    assert not file.append(line(n=2), now_ns + SECOND_NS)
    assert not file.append(line(n=3), now_ns + SECOND_NS)
    assert journal.trouble.counts == {"journal: ENOTDIR": 2}
    trace_dir.unlink()
    assert file.append(line(n=4), now_ns + SECOND_NS)
    assert numbers(trace_dir) == [0, 1, 4]
    journal.close()


def test_events_that_cannot_be_brought_back_at_the_end_are_counted_one_by_one_and_told_once(
    trace_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_descriptors()
    journal = Journal(trace_dir)
    for number in range(7):
        journal.append("s", line(n=number))
    shutil.rmtree(trace_dir)
    trace_dir.write_text("in the way", encoding="utf-8")
    journal.append("s", line(n=7))
    journal.close()
    assert journal.trouble.counts == {"journal: ENOTDIR": 8}
    assert len(caplog.records) == 1
    assert open_descriptors() == before
    trace_dir.unlink()
    journal.append("s", line(n=8))
    journal.close()
    assert numbers(trace_dir) == [8]


def test_a_forked_child_leaves_the_deleted_file_to_its_parent(journal: Journal, trace_dir: Path) -> None:
    journal.append("s", line(n=0))
    shutil.rmtree(trace_dir)
    journal.append("s", line(n=1))

    def write() -> None:
        journal.append("s", line(n=2))
        journal.close()

    child = multiprocessing.get_context("fork").Process(target=write)
    child.start()
    child.join(50)
    assert child.exitcode == 0
    assert numbers(trace_dir) == [2]
    journal.close()
    assert sorted(numbers(trace_dir)) == [0, 1, 2]


def test_a_daemon_that_closes_all_descriptors_loses_no_event(trace_dir: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from tracebridge.journal.writer import Journal
journal = Journal(Path(sys.argv[1]))
assert journal.append("s", b'{"n":0}\\n')
os.closerange(3, 100)
assert journal.append("s", b'{"n":1}\\n')
assert not journal.trouble.counts
"""
    subprocess.run([sys.executable, "-c", program, str(trace_dir)], check=True, env=environment(), timeout=50)
    assert numbers(trace_dir) == [0, 1]


AT_EXIT = """
import shutil, sys, threading
from tracebridge import Tracer
tracer = Tracer({"agent_trace": {"trace_dir": sys.argv[1]}})
session = tracer.trace_session("s").__enter__()
shutil.rmtree(sys.argv[1])
session.log_thinking("the last one")
"""


def test_the_end_of_the_process_brings_back_what_a_session_that_is_still_open_wrote(trace_dir: Path) -> None:
    subprocess.run([sys.executable, "-c", AT_EXIT, str(trace_dir)], check=True, env=environment(), timeout=50)
    assert [event["event_type"] for event in read(trace_dir)] == ["session.start", "thinking"]


@pytest.mark.parametrize("by", ["the next event", "closing the file"])
def test_a_folder_that_goes_again_while_what_was_in_it_is_written_again_costs_no_event(
    journal: Journal, trace_dir: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    goes = [True] * 3
    alone_in = deleted._alone_in

    def deleted_before(folder: Path) -> AbstractContextManager[None]:
        if goes:
            goes.pop()
            shutil.rmtree(folder)
        return alone_in(folder)

    monkeypatch.setattr(deleted, "_alone_in", deleted_before)
    now_ns = time.monotonic_ns()
    file = journal.file("s")
    assert file.append(line(n=0), now_ns)
    shutil.rmtree(trace_dir)
    assert file.append(line(n=1), now_ns)
    if by == "the next event":
        assert file.append(line(n=2), now_ns + SECOND_NS)
    journal.close()
    assert goes == []
    assert numbers(trace_dir) == ([0, 1, 2] if by == "the next event" else [0, 1])


WRITER = """
import json, sys
from pathlib import Path
from tracebridge.journal.writer import Journal
journal = Journal(Path(sys.argv[1]))
written = []
for number in iter(int, 1):
    n = len(written)
    text = "x" * (n * 7919 % 3000)
    written.append(journal.append("s", b'{"by":%d,"n":%d,"text":"%b"}\\n' % (int(sys.argv[2]), n, text.encode())))
    if not sys.stdin.readline():
        break
journal.close()
print(json.dumps([all(written), len(written), dict(journal.trouble.counts)]))
"""


def test_processes_lose_no_event_that_is_younger_than_the_last_look_while_the_folder_is_removed_again_and_again(
    trace_dir: Path,
) -> None:
    """The folder goes at the worst moments; what the deleted files held is compared with what came back."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(trace_dir), str(number)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    seen: Counter[tuple[int, int]] = Counter()
    stop = threading.Event()

    def drive(writer: subprocess.Popen[str]) -> None:
        assert writer.stdin is not None
        while not stop.wait(0.002):
            writer.stdin.write("\n")
            writer.stdin.flush()

    drivers = [threading.Thread(target=drive, args=(writer,)) for writer in writers]
    for driver in drivers:
        driver.start()
    doomed: list[int] = []
    long_enough = time.monotonic() + 3.5
    removed = 0
    while time.monotonic() < long_enough or removed < 3:
        stop.wait(0.1)
        if path_of(trace_dir).exists():
            doomed.append(os.open(path_of(trace_dir), os.O_RDONLY))
            shutil.rmtree(trace_dir, ignore_errors=True)
            removed += 1
    stop.set()
    for driver in drivers:
        driver.join(50)
    written = []
    for writer in writers:
        out, _ = writer.communicate(timeout=50)
        written.append(json.loads(out))
    assert [entry[0] for entry in written] == [True] * 3
    assert [entry[2] for entry in written] == [{}] * 3
    left = [(event["by"], event["n"]) for event in read(trace_dir)]
    final = set(left)
    assert len(final) == len(left), "a line came over twice"
    for descriptor in doomed:
        with open(descriptor, "rb") as file:
            texts = [text for text in file.read().splitlines() if text]
        events = [(event["by"], event["n"]) for event in map(json.loads, texts)]
        assert len(events) == len(set(events)), "a line came over twice"
        seen.update(events)
    # each event was in some file, and what was in the last one of them is there
    assert set(seen) | final == {(by, n) for by, entry in enumerate(written) for n in range(entry[1])}
    assert final, "the last events came back"
    newest = {by: max(n for one, n in final if one == by) for by in range(3)}
    assert newest == {by: entry[1] - 1 for by, entry in enumerate(written)}
