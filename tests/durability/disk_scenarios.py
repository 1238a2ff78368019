"""What happens on a small disk, as functions that a child process calls, and what all tests here write and read."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.durability.small_disk import SmallDisk
from tests.workplace import Workplace
from tracebridge import Tracer
from tracebridge.delivery.removal import Removal
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.journal.lost import lost_events, write_down
from tracebridge.journal.opened import OpenedLog
from tracebridge.journal.reader import JournalLine, read_journal
from tracebridge.journal.spooled import SpooledLog
from tracebridge.journal.writer import Journal

SECOND_NS = 1_000_000_000


def tracer_in(folder: Path) -> Tracer:
    return Tracer({"agent_trace": {"trace_dir": str(folder)}})


def think(tracer: Tracer, *thoughts: str, session_id: str = "s") -> None:
    """Record one run: `session.start`, the thoughts, `session.end`."""
    with tracer.trace_session(session_id) as session:
        for thought in thoughts:
            session.log_thinking(thought)


def event_line(number: int, size: int) -> bytes:
    event = {
        "timestamp": "2026-02-06T22:10:00.123Z",
        "event_type": "thinking",
        "session_id": "s",
        "turn": number,
        "data": {"content": "x" * size},
    }
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def lines_of(path: Path) -> list[JournalLine]:
    with path.open("rb") as file:
        return list(read_journal(file, 0))


def turns_in(path: Path) -> list[int]:
    return [line.event.turn for line in lines_of(path) if line.event is not None]


def thoughts_in(trace_dir: Path, session_id: str = "s") -> list[str]:
    path = layout.events_file(layout.session_folder(trace_dir, session_id))
    events = [line.event for line in lines_of(path) if line.event is not None]
    return [event.data["content"] for event in events if event.event_type == "thinking"]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill_a_disk_while_writing(folder: str, seed: str) -> Any:
    """Write lines of all sizes while the disk is full, free, full again."""
    disk = SmallDisk(folder, kilobytes=2048)
    journal = Journal(disk.folder / "traces")
    written: list[int] = []
    lost = 0
    for number in range(600):
        phase = number % 100
        if phase == 40:
            disk.fill()
        if phase == 70:
            disk.free()
        size = (number * int(seed)) % 9973 if phase < 40 else (number * int(seed)) % 500
        if journal.append("s", event_line(number, size if number < 200 else size // 20)):
            written.append(number)
        else:
            lost += 1
    path = layout.events_file(disk.folder / "traces" / "session-s")
    read = turns_in(path)
    return {
        "equal": read == written,
        "written": len(written),
        "lost": lost,
        "counts": dict(journal.trouble.counts),
        "last": read[-1],
    }


def fill_a_disk_in_a_run(folder: str) -> Any:
    disk = SmallDisk(folder)
    tracer = tracer_in(disk.folder / "traces")
    with tracer.trace_session("s", {"when": "before"}) as session:
        session.log_thinking("before")
        disk.fill()
        for number in range(5):
            session.log_thinking(f"lost {number} " + "x" * 5000)
        session.metadata["when"] = "after"
    folder_of_session = layout.session_folder(disk.folder / "traces", "s")
    metadata = json.loads(layout.metadata_file(folder_of_session).read_text("utf-8"))
    left = files_in(folder_of_session)
    counts = dict(tracer.trouble.counts)
    disk.free()
    think(tracer, "after")
    return {
        "metadata": metadata["metadata"],
        "files": left,
        "counts": counts,
        "thoughts": thoughts_in(disk.folder / "traces"),
        "more": {kind: n - counts.get(kind, 0) for kind, n in tracer.trouble.counts.items()},
    }


def fill_the_disk_of_the_losses(folder: str) -> Any:
    """Write losses down until the disk is full in the middle of a line, and again once there is room."""
    disk = SmallDisk(folder)
    traces = disk.folder / "traces"
    layout.state_folder(traces).mkdir(parents=True)
    write_down(traces, {"journal: ENOSPC": 1})
    disk.fill()
    written = 1 + _succeeded(lambda _: write_down(traces, {"journal: ENOSPC": 1}))
    full = lost_events(traces)
    disk.free()
    write_down(traces, {"journal: ENOSPC": 1000})
    return {"written": written, "full": full, "after": lost_events(traces)}


def run_commands_on_a_full_disk(folder: str) -> Any:
    """What commands come to that have to write to the state: exit code, and what they say."""
    disk = SmallDisk(folder, kilobytes=2048)
    sink = {"host": "http://127.0.0.1:9", "public_key": "pk", "secret_key": "sk"}
    workplace = Workplace(disk.folder / "here", {"langfuse": sink}, delivery="external")
    workplace.record("s")
    # as a shipper does: its files are there, so that it can be opened
    state = State(layout.state_file(workplace.trace_dir))
    disk.fill()
    commands = {"status": [], "validate": [], "migrate": ["status"], "prune": ["--older-than", "0s"]}
    ran = {name: workplace.call(name, *more) for name, more in commands.items()}
    state.close()
    return {name: (one.returncode, one.stderr) for name, one in ran.items()}


def use_up_the_files_of_a_spool(folder: str) -> Any:
    """Have a spool delete a session while no file and no folder can be made, and again once they can."""
    disk = SmallDisk(folder, kilobytes=2048, files=200)
    workplace = Workplace(disk.folder / "here", {"jsonl": {"enabled": True}}, delivery="external")
    workplace.record("s")
    log = SpooledLog(workplace.trace_dir)
    log.append("session-other", "other")
    removal = Removal(workplace.settings, noted_in=log)
    disk.use_up_files()
    removed = _succeeded(lambda _: removal.remove_older_than(0))
    full = list(log.sessions())
    disk.give_files_back()
    removal.remove_older_than(0)
    removal.close()
    return {"removed": removed, "full": full, "after": list(log.sessions())}


def fill_the_disk_of_the_spooled_log(folder: str) -> Any:
    """Note sessions until the disk is full in the middle of a line, and again once there is room."""
    disk = SmallDisk(folder)
    log = SpooledLog(disk.folder / "traces")
    log.append("session-0", "0")
    disk.fill()
    noted = 1 + _succeeded(lambda number: log.append(f"session-{number}", str(number)))
    full = [spooled.session_id for spooled in log.noted()]
    disk.free()
    log.append("session-after", "after")
    return {"noted": noted, "full": full, "after": [spooled.session_id for spooled in log.noted()]}


def _succeeded(act: Callable[[int], object]) -> int:
    """How often something succeeds until there is no room, given the numbers from 1 on."""
    for number in itertools.count(1):
        try:
            act(number)
        except OSError:
            return number - 1
    raise AssertionError("the disk is never full")


def use_up_all_files(folder: str) -> Any:
    disk = SmallDisk(folder, files=50)
    tracer = tracer_in(disk.folder / "traces")
    disk.use_up_files()
    think(tracer, "lost", session_id="a")
    counts = dict(tracer.trouble.counts)
    disk.give_files_back()
    think(tracer, "found", session_id="a")
    return {
        "counts": counts,
        "thoughts": thoughts_in(disk.folder / "traces", "a"),
        "after": dict(tracer.trouble.counts),
    }


def fill_the_disk_of_the_opened_log(folder: str) -> Any:
    disk = SmallDisk(folder)
    trace_dir = disk.folder.parent / "traces"
    trace_dir.mkdir()
    layout.state_folder(trace_dir).symlink_to(disk.folder)
    journal = Journal(trace_dir)
    file = journal.file("s")
    disk.fill()
    now_ns = time.monotonic_ns()
    written = [file.append(event_line(number, 10), now_ns + number * SECOND_NS) for number in range(3)]
    counts = dict(journal.trouble.counts)
    told = OpenedLog(trace_dir).tail().names
    disk.free()
    written.append(file.append(event_line(3, 10), now_ns + 3 * SECOND_NS))
    journal.close()
    return {
        "written": written,
        "counts": counts,
        "told": told,
        "told after": OpenedLog(trace_dir).tail().names,
        "turns": turns_in(layout.events_file(layout.session_folder(trace_dir, "s"))),
        "size": layout.opened_log(trace_dir).stat().st_size,
    }


def fill_the_disk_while_the_opened_log_is_begun_anew(folder: str) -> Any:
    disk = SmallDisk(folder)
    log = OpenedLog(disk.folder, large=100)
    while not log.append("session-a"):
        pass
    before = layout.opened_log(disk.folder).read_bytes()
    disk.fill()
    failures = []
    for _ in range(3):
        log.append("session-b")
        try:
            log.begin_anew()
        except OSError as error:
            failures.append(error.strerror)
    kept = layout.opened_log(disk.folder).read_bytes().startswith(before)
    left = files_in(layout.state_folder(disk.folder))
    disk.free()
    log.begin_anew()
    log.append("session-c")
    return {"failures": failures, "kept": kept, "left": left, "names": log.tail().names}


def delete_the_folder_on_a_full_disk(folder: str) -> Any:
    """What a deleted file took with it cannot be brought back while the disk is full."""
    disk = SmallDisk(folder)
    trace_dir = disk.folder / "traces"
    journal = Journal(trace_dir)
    file = journal.file("s")
    now_ns = time.monotonic_ns()
    written = [file.append(event_line(number, 6000), now_ns) for number in range(10)]
    shutil.rmtree(trace_dir)
    disk.fill()
    refused = [file.append(event_line(number, 10), now_ns + SECOND_NS) for number in (10, 11)]
    counts = dict(journal.trouble.counts)
    disk.free()
    last = file.append(event_line(12, 10), now_ns + 2 * SECOND_NS)
    journal.close()
    turns = turns_in(layout.events_file(layout.session_folder(trace_dir, "s")))
    return {"written": written, "refused": refused, "last": last, "counts": counts, "turns": turns}


def make_the_disk_read_only(folder: str) -> Any:
    disk = SmallDisk(folder)
    tracer = tracer_in(disk.folder / "traces")
    think(tracer, "before")
    disk.make_read_only()
    think(tracer, "lost", "lost")
    think(tracer, "lost", session_id="never-there")
    counts = dict(tracer.trouble.counts)
    disk.make_writable()
    think(tracer, "after")
    return {"counts": counts, "after": dict(tracer.trouble.counts), "thoughts": thoughts_in(disk.folder / "traces")}


WRITER = """
import itertools, os, sys, time
from pathlib import Path
from tests.durability.disk_scenarios import event_line
from tracebridge.journal.writer import Journal
journal, first, sizes = Journal(Path(sys.argv[1])), int(sys.argv[2]), list(map(int, sys.argv[3].split(",")))
for number in itertools.count(first):
    if journal.append("s", event_line(number, sizes[number % len(sizes)])):
        os.write(1, b"%d\\n" % number)
"""
EACH = 1_000_000
"""How far apart the numbers of two writers' events are."""


class Writers:
    """Processes that write one session as fast as they can, and tell of each event whose writing succeeded."""

    def __init__(self, trace_dir: Path, *sizes: int) -> None:
        self.trace_dir = trace_dir
        self._sizes = ",".join(map(str, sizes))
        self._told: list[Path] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        told = self.trace_dir.parent / f"told-{len(self._told)}"
        with told.open("wb") as file:
            arguments = [str(self.trace_dir), str(len(self._told) * EACH), self._sizes]
            self._running.append(subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=file))
        self._told.append(told)

    def kill_oldest(self) -> None:
        """SIGKILL the writer that runs for longest; the disk's state is as it leaves it."""
        writer = self._running.pop(0)
        assert writer.poll() is None, "it ended by itself"
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)

    def kill_all(self) -> None:
        while self._running:
            self.kill_oldest()

    def count_told(self) -> int:
        return sum(path.stat().st_size for path in self._told)

    def wait_for_more(self, count: int = 1) -> None:
        """Wait until the writers have told of about so many events more."""
        enough, deadline = self.count_told() + count * 3, time.monotonic() + 20
        while self.count_told() < enough:
            assert time.monotonic() < deadline, "nobody writes any more"
            time.sleep(0.001)

    def account(self) -> dict[str, Any]:
        """Compare what the writers have told with what a reader finds."""
        told = [int(text) for path in self._told for text in path.read_text("ascii").split("\n")[:-1]]
        lines = lines_of(layout.events_file(self.trace_dir / "session-s"))
        read = [line.event.turn for line in lines if line.event is not None]
        contents = [line.event.data["content"] for line in lines if line.event is not None]
        return {
            "writers": len(self._told),
            "told": len(told),
            "missing": sorted(set(told) - set(read)),
            "twice": len(read) - len(set(read)),
            "untold": len(set(read) - set(told)),
            "torn": sum(1 for line in lines if line.problem),
            "mixed": sum(content.strip("x") != "" for content in contents),
            "out of order": sum(
                list(numbers) != sorted(numbers)
                for numbers in ([n for n in read if n // EACH == by] for by in range(len(self._told)))
            ),
        }


def kill_writers_again_and_again(folder: str, kills: str) -> Any:
    """Two writers of one session; every few events the older one is killed and another one begins."""
    trace_dir = Path(folder) / "traces"
    trace_dir.mkdir(parents=True)
    writers = Writers(trace_dir, 150_000, 40, 1_000_000, 9_000, 300_000)
    chance = random.Random(int(kills))
    writers.start()
    writers.start()
    for _ in range(int(kills)):
        writers.wait_for_more(chance.randrange(1, 20))
        time.sleep(chance.random() * 0.003)  # not a wait for anything: any moment will do
        writers.kill_oldest()
        writers.start()
    writers.wait_for_more(5)
    writers.kill_all()
    return writers.account()


def kill_writers_on_a_full_disk(folder: str, kills: str) -> Any:
    """The same on a disk that is full again and again, so that half lines are everywhere."""
    trace_dir = Path(folder) / "traces"
    trace_dir.mkdir(parents=True)
    disk = SmallDisk(str(layout.session_folder(trace_dir, "s")), kilobytes=20_000)
    writers = Writers(trace_dir, 70_000, 40, 9_000, 150_000)
    chance = random.Random(int(kills))
    writers.start()
    writers.start()
    for number in itertools.count():
        writers.wait_for_more(chance.randrange(1, 10))
        disk.fill()
        time.sleep(chance.random() * 0.01)  # not a wait for anything: any moment will do
        if number % 2:
            writers.kill_oldest()
            writers.start()
        disk.free()
        size = layout.events_file(disk.folder).stat().st_size
        if number == int(kills) or size > 12_000_000:
            break
    writers.wait_for_more(3)
    writers.kill_all()
    return {**writers.account(), "rounds": number}
