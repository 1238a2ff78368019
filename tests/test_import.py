"""What `import tracebridge` costs an agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LOADED = """
import json, sys
import msgspec
before = set(sys.modules)
import tracebridge
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))
"""

SMALL = {"atexit", "contextvars", "errno", "fcntl", "resource", "threading", "weakref"}
"""What recording needs of the standard library: all small. Modules that begin with `_` are parts of these."""


def loaded() -> tuple[set[str], set[str]]:
    """Import tracebridge in a process of its own; return what msgspec had loaded, and what was loaded beside."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    before, beside = json.loads(done.stdout)
    return set(before), set(beside)


def test_nothing_is_loaded_that_recording_does_not_need() -> None:
    before, beside = loaded()
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
    assert not heavy & (before | beside)


def test_beside_msgspec_and_its_own_parts_the_import_loads_only_small_modules() -> None:
    _, beside = loaded()
    others = {name for name in beside if not name.startswith(("_", "tracebridge"))}
    assert others <= SMALL
    parts = {name for name in beside if name.startswith("tracebridge")}
    assert {name.split(".")[1] for name in parts if "." in name} <= {
        "errors",
        "event",
        "fork",
        "interruption",
        "journal",
        "jsonvalue",
        "policy",
        "recording",
        "tracecontext",
        "trouble",
    }
