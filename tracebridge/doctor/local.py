"""The local side: what recording and delivery need on this machine."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.lock import process_lock, shipper_lock
from tracebridge.delivery.state import State
from tracebridge.diagnosis import Check
from tracebridge.errors import StateError, TracebridgeError, UnsupportedFileSystemError
from tracebridge.journal import layout
from tracebridge.journal.file_system import check_file_system
from tracebridge.version import installed_version

_DISTRIBUTION: Final = "tracebridge"
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


def examine_local(settings: Settings) -> Iterator[Check]:
    """Yield what is found on this machine, for settings that could be read."""
    sinks = ", ".join(sink.name for sink in settings.sinks if sink.enabled) or "none but the journal"
    yield Check(name="configuration", status="ok", found=f"{settings.source}; sinks that are switched on: {sinks}")
    for sink, before in settings.repeating_sinks:
        yield Check(
            name=f"place of {sink.name}",
            status="warn",
            found=f"it is that of {before.name}: {sink.endpoint}, where all that both are owed is stored twice",
            remedy=f"switch {sink.name} or {before.name} off",
        )
    yield _versions(settings)
    file_system = _file_system(settings.trace_dir)
    yield file_system
    if file_system.status == "fail":
        # looking at it further may hang, if its server is away
        return
    yield _trace_folder(settings.trace_dir)
    yield _state(settings.trace_dir)
    for sink in settings.enabled_sinks:
        yield _shipper(settings, sink)


def _versions(settings: Settings) -> Check:
    own = installed_version(_DISTRIBUTION) or "from a checkout that is not installed"
    found = [f"tracebridge {own}", f"Python {platform.python_version()}"]
    extras = {sink.sink_type.extra for sink in settings.enabled_sinks if sink.sink_type is not None}
    versions = {name: installed_version(name) for name in _packages_of(extras)}
    found += [f"{name} {number or 'is not installed'}" for name, number in versions.items()]
    if all(versions.values()):
        return Check(name="versions", status="ok", found=", ".join(found))
    wanted = ",".join(sorted(filter(None, extras)))
    remedy = f"pip install 'tracebridge[{wanted}]'" if wanted else "install tracebridge anew"
    return Check(name="versions", status="warn", found=", ".join(found), remedy=remedy)


def _packages_of(extras: set[str]) -> list[str]:
    """The packages that the distribution needs itself, and for these extras."""
    names: dict[str, None] = {}
    try:
        stated = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        stated = []
    for requirement in stated:
        wanted = _EXTRA.search(requirement)
        name = _REQUIREMENT.match(requirement)
        if name is not None and (wanted is None or wanted[1] in extras):
            names[name[0]] = None
    return list(names)


def _file_system(trace_dir: Path) -> Check:
    try:
        check_file_system(trace_dir)
    except UnsupportedFileSystemError as error:
        problem, _, remedy = str(error).rpartition("; ")
        return Check(name="file system", status="fail", found=problem, remedy=remedy)
    return Check(name="file system", status="ok", found=f"{trace_dir} is on one that locks and appends can rely on")


def _trace_folder(trace_dir: Path) -> Check:
    existing = next(path for path in (trace_dir, *trace_dir.parents) if path.exists())
    is_there = existing == trace_dir
    remedy = "let the user that runs the agent write there, or name another trace_dir"
    if not existing.is_dir():
        words = f"{existing} is no folder"
        return Check(name="trace folder", status="fail", found=words, remedy="name another trace_dir")
    if not is_there:
        if os.access(existing, os.W_OK | os.X_OK):
            return Check(name="trace folder", status="ok", found=f"{trace_dir} is not there yet, and can be made")
        words = f"{trace_dir} is not there, and {existing} may not be written to"
        return Check(name="trace folder", status="fail", found=words, remedy=remedy)
    try:
        # trying is the only way to be sure: of a full disk, of one that has become read-only
        with tempfile.NamedTemporaryFile(dir=trace_dir, prefix=".doctor-") as file:
            file.write(b"tracebridge doctor\n")
            file.flush()
    except OSError as error:
        words = f"{trace_dir} cannot be written to ({error.strerror})"
        return Check(name="trace folder", status="fail", found=words, remedy=remedy)
    sessions = sum(1 for _ in layout.session_folders(trace_dir))
    return Check(
        name="trace folder", status="ok", found=f"{trace_dir} can be written to, and holds {sessions:,} sessions"
    )


def _state(trace_dir: Path) -> Check:
    file = layout.state_file(trace_dir)
    if not file.exists():
        return Check(name="state", status="ok", found="there is none yet: nothing was delivered from this folder")
    try:
        state = State(file)
        try:
            targets = len(state.targets())
        finally:
            state.close()
    except StateError as error:
        return Check(
            name="state",
            status="fail",
            found=str(error),
            remedy="a newer state needs the newer tracebridge; a damaged one is replaced by whoever ships next",
        )
    return Check(name="state", status="ok", found=f"it can be read, and knows {targets} backends")


def _shipper(settings: Settings, sink: SinkSettings) -> Check:
    name = f"shipper of {sink.name}"
    try:
        holder = shipper_lock(settings.trace_dir, sink.name).holder()
        detached = process_lock(settings.trace_dir).holder()
    except (OSError, TracebridgeError) as error:
        return Check(
            name=name, status="warn", found=f"it cannot be told who ships ({error})", remedy="see `trace folder`"
        )
    if holder is not None:
        who = f"process {holder}" if holder else "a process that cannot be told"
        return Check(name=name, status="ok", found=f"{who} ships to it now")
    if settings.delivery == "external":
        return Check(
            name=name,
            status="warn",
            found="nobody ships to it now, and agents do not (`delivery: external`)",
            remedy="run `tracebridge ship --follow`",
        )
    when = "the process of its own is about to" if detached is not None else "agents do while they run"
    return Check(name=name, status="ok", found=f"nobody ships to it now; {when}")
