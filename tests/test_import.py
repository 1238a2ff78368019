"""What `import tracebridge` costs an agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SPENT = """
import json, resource, sys
package = sys.argv[1]
def spent_ms():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1000
before = spent_ms()
__import__(package)
print(json.dumps([spent_ms() - before, sorted(sys.modules)]))
"""


def imported(package: str = "tracebridge") -> tuple[float, set[str]]:
    """Import a package in a process of its own; return the processor time in milliseconds, and what was loaded."""
    done = subprocess.run(
        [sys.executable, "-c", SPENT, package], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    milliseconds, modules = json.loads(done.stdout)
    return milliseconds, set(modules)


def test_nothing_is_loaded_that_recording_does_not_need() -> None:
    _, modules = imported()
    heavy = {
        "asyncio",
        "google",
        "grpc",
        "hashlib",
        "httpx",
        "importlib.metadata",
        "langfuse",
        "logging",
        "opentelemetry",
        "socket",
        "sqlite3",
        "tracebridge.assembler",
        "tracebridge.config",
        "tracebridge.delivery",
        "tracebridge.sink",
        "yaml",
    }
    assert not heavy & modules


def test_the_import_takes_less_than_60_ms() -> None:
    # processor time, because others may be using the machine; one that is slow or too busy even so shows it by the
    # time of the one package that we need
    for _ in range(10):
        spent_ms, msgspec_ms = imported()[0], imported("msgspec")[0]
        if spent_ms < max(60, 1.5 * msgspec_ms):
            return
    pytest.fail(f"{spent_ms:.0f} ms, of which msgspec takes {msgspec_ms:.0f}")
