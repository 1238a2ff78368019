"""What idle sessions cost a shipper that follows: processor time and memory, for sessions that ended and that did not.

    python benchmarks/idle.py [--sessions 100000] [--seconds 60]

Makes a trace folder of idle sessions, delivers it once, then starts a shipper that follows it in a process of its own:
its first scan, and then nothing to do. No writer holds any of the sessions. `ended`: each run has its end. `open`: no
run has, and each is due in an hour. `none` is the same shipper on an empty folder. The floors are measured in the same
run: a process that lists the folder and asks for the size of each journal, and a Python process that sleeps. Memory is
read from /proc, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

STAT = """
import os, sys
names = sorted(entry.name for entry in os.scandir(sys.argv[1]) if entry.name.startswith("session-"))
print(sum(os.stat(f"{sys.argv[1]}/{name}/events.jsonl").st_size for name in names))
"""
RSS = """
print(open("/proc/self/statm").read().split()[1])
"""


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch the shipper at idle")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(follow(Path(arguments.child[0]), float(arguments.child[1]))))
        return
    print(f"{arguments.sessions:,} idle sessions, {arguments.seconds:.0f} s of following each\n")
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), arguments.sessions, arguments.seconds)


def run(folder: Path, sessions: int, seconds: float) -> None:
    """Measure the floors, then each kind of session."""
    write_sessions(folder / "ended", sessions, end=True)
    write_sessions(folder / "open", sessions, end=False)
    (folder / "none").mkdir()
    stat_s = cpu_of([sys.executable, "-c", STAT, str(folder / "ended")]) - cpu_of([sys.executable, "-c", "pass"])
    sleeping = f"import time; time.sleep({min(seconds, 5.0)})"
    told = subprocess.run([sys.executable, "-c", sleeping + RSS], capture_output=True, check=True).stdout
    sleeping_mb = int(told) * os.sysconf("SC_PAGE_SIZE") / 1e6
    print(f"floor: listing the folder and asking for {sessions:,} sizes takes {stat_s:.2f} s of processor time")
    print(f"floor: a Python process that sleeps holds {sleeping_mb:.0f} MB\n")
    print(f"{'sessions':<10}{'first scan':>12}{'CPU':>8}{'x floor':>9}{'CPU/min idle':>14}{'RSS':>9}{'over none':>11}")
    none_mb = 0.0
    for kind in ("none", "ended", "open"):
        if kind != "none":
            child(folder / kind, 0.0)  # delivers; what follows finds everything read
        found = child(folder / kind, seconds)
        none_mb = none_mb or found["rss_mb"]
        print(
            f"{kind:<10}{found['scan_s']:>10.2f} s{found['scan_cpu_s']:>6.2f} s{found['scan_cpu_s'] / stat_s:>8.1f}x"
            f"{found['idle_cpu_s_a_minute']:>12.3f} s{found['rss_mb']:>6.0f} MB{found['rss_mb'] - none_mb:>8.0f} MB",
            flush=True,
        )


def child(folder: Path, seconds: float) -> dict[str, Any]:
    """Follow a folder in a process of its own."""
    command = [sys.executable, __file__, "--child", str(folder), str(seconds)]
    path = os.pathsep.join((str(ROOT), str(ROOT / "adapters")))
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def follow(folder: Path, seconds: float) -> dict[str, float]:
    """Ship what there is, then look on for some time."""
    from tests.delivery.file_backend import FileBackend, settings_for
    from tracebridge.delivery.pace import FullSpeed
    from tracebridge.delivery.shipper import Shipper

    settings = settings_for(folder, FileBackend(readable=False), Path(os.devnull))
    shipper = Shipper(settings.sinks[0], folder, FullSpeed())
    begun, cpu = time.monotonic(), time.process_time()
    while not shipper.round().is_done:
        shipper.wait(0.05)
    scan_s, scan_cpu_s = time.monotonic() - begun, time.process_time() - cpu
    begun, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < begun + seconds:
        shipper.wait(shipper.round().wait_s)
    idle_cpu_s = (time.process_time() - cpu) * 60 / max(0.001, time.monotonic() - begun)
    rss_mb = rss_bytes() / 1e6
    shipper.close()
    return {"scan_s": scan_s, "scan_cpu_s": scan_cpu_s, "idle_cpu_s_a_minute": idle_cpu_s, "rss_mb": rss_mb}


def rss_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_of(command: list[str]) -> float:
    """The processor time that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_sessions(folder: Path, sessions: int, end: bool) -> None:
    """Write sessions as a writer leaves them that is gone."""
    now = datetime.now(UTC).isoformat()
    for number in range(sessions):
        session = folder / f"session-{number:06}"
        session.mkdir(parents=True)
        (session / "events.jsonl").write_bytes(b"".join(lines(f"{number:06}", now, end)))
    state = folder / ".tracebridge"
    state.mkdir()
    (state / "opened.log").write_text("".join(f"session-{number:06}\n" for number in range(sessions)))


def lines(session_id: str, at: str, end: bool) -> list[bytes]:
    """One run of one thought."""
    event = {"timestamp": at, "event_type": "", "session_id": session_id, "run_id": "run-1", "turn": 0}
    kinds = ("session.start", "thinking", "session.end") if end else ("session.start", "thinking")
    return [
        json.dumps(event | {"event_type": kind, "duration_ms": None, "data": {}}).encode() + b"\n" for kind in kinds
    ]


if __name__ == "__main__":
    main()
