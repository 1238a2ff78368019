"""What comparing two folders takes: wall time, CPU and the most memory, and whether it grows as the spans do.

    python benchmarks/validate.py [--spans 10000 100000 1000000] [--engine duckdb] [--json]

Writes two folders of journals to a temporary folder (1 GB for a million spans; they are deleted at the end), the same
but for one span in every thousandth session, and compares them as `tracebridge validate --left folder:A --right
folder:B` does, in a process of its own. The floor is to decode each line of both folders once, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "adapters")]

import msgspec  # noqa: E402

TURNS = 10
SPANS_OF_SESSION = 1 + 3 * TURNS
DIFFERS_EVERY = 1_000


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", choices=("floor", "compare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.folder, arguments.engine)))
        return
    figures = []
    for spans in arguments.spans:
        with tempfile.TemporaryDirectory() as folder:
            figures.append(measure(Path(folder), spans, arguments.engine))
        if not arguments.json:
            print_row(figures[-1], is_first=len(figures) == 1)
    if arguments.json:
        print(json.dumps(figures, indent=2))


def measure(folder: Path, spans: int, engine: str) -> dict[str, Any]:
    sessions = -(-spans // SPANS_OF_SESSION)
    size = sum(write_folder(folder / side, sessions, side) for side in ("a", "b"))
    floor, compared = (run_child(what, folder, engine) for what in ("floor", "compare"))
    changed = -(-sessions // DIFFERS_EVERY)
    expected = sessions * SPANS_OF_SESSION
    assert compared["equal"] == expected - changed, compared
    assert compared["counts"] == {"different": changed}, compared
    return {"spans": expected, "bytes": size, "floor": floor, "compare": compared}


def run_child(what: str, folder: Path, engine: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, "--folder", str(folder), "--engine", engine]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def child(what: str, folder: Path, engine: str) -> dict[str, Any]:
    began = time.perf_counter()
    found = floor_of(folder) if what == "floor" else compare(folder, engine)
    wall = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    kilobyte = 1 if sys.platform == "darwin" else 1_024
    return {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * kilobyte,
        **found,
    }


def floor_of(folder: Path) -> dict[str, Any]:
    lines = 0
    for file in folder.rglob("events.jsonl"):
        for line in file.read_bytes().splitlines():
            msgspec.json.decode(line)
            lines += 1
    return {"lines": lines}


def compare(folder: Path, engine: str) -> dict[str, Any]:
    from tracebridge.policy import Policy
    from tracebridge.sides import Settings, compare_sides
    from tracebridge.sides.folder import folder_side

    left, right = (folder_side(f"folder:{side}", folder / side, Policy()) for side in ("a", "b"))
    verdict = compare_sides(left, right, Settings(engine="spark" if engine == "spark" else "duckdb"))
    return {"equal": verdict.equal, "counts": verdict.counts}


def write_folder(folder: Path, sessions: int, side: str) -> int:
    """Write sessions in the original format, whose ids follow from the session's; return their bytes."""
    text = session_text()
    size = 0
    for number in range(sessions):
        name = f"s{number:08}"
        own = text.replace("SESSION", name)
        if side == "b" and number % DIFFERS_EVERY == 0:
            own = own.replace("answer 3", "ANSWER 3", 1)
        (folder / f"session-{name}").mkdir(parents=True)
        size += (folder / f"session-{name}" / "events.jsonl").write_text(own)
    return size


def session_text() -> str:
    events: list[tuple[str, int | None, dict[str, Any]]] = [("session.start", None, {"metadata": {"plan": "pro"}})]
    for turn in range(1, TURNS + 1):
        question = {"role": "user", "content": f"question {turn} " + "of some length " * 8}
        events += [
            ("turn.start", turn, {"user_input": question["content"]}),
            ("llm.request", turn, {"model": "gpt-4", "messages": [question]}),
            (
                "llm.response",
                turn,
                {
                    "content": f"answer {turn} " + "of some length " * 8,
                    "tool_calls": [],
                    "tokens": {"prompt": 100 + turn, "completion": 20},
                },
            ),
            ("tool.call", turn, {"tool": "find_order", "args": {"customer": "ada", "page": turn}}),
            ("tool.result", turn, {"tool": "find_order", "success": True, "result": {"status": "shipped"}}),
            ("turn.end", turn, {"output": f"done {turn}"}),
        ]
    events.append(("session.end", None, {"summary": "done"}))
    lines = [
        {
            "timestamp": f"2026-02-06T10:{second // 60:02}:{second % 60:02}.123Z",
            "event_type": event_type,
            "session_id": "SESSION",
            "run_id": "run-1",
            "turn": turn,
            "duration_ms": 12.5 if event_type.endswith(("response", "result", "end")) else None,
            "data": data,
        }
        for second, (event_type, turn, data) in enumerate(events)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def print_row(figures: dict[str, Any], *, is_first: bool) -> None:
    if is_first:
        print("| spans a side | journals | wall | CPU | µs a span and side | peak memory | floor | x floor |")
        print("| --: | --: | --: | --: | --: | --: | --: | --: |")
    compared, floor, spans = figures["compare"], figures["floor"], figures["spans"]
    print(
        f"| {spans:,} | {figures['bytes'] / 1e6:,.0f} MB | {compared['wall_s']:.1f} s | {compared['cpu_s']:.1f} s "
        f"| {compared['wall_s'] / spans / 2 * 1e6:.0f} | {compared['peak_bytes'] / 1e6:,.0f} MB "
        f"| {floor['wall_s']:.2f} s | {compared['wall_s'] / floor['wall_s']:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
