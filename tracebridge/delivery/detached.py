"""`DetachedShipper`: delivery by a process that outlives the agent, started by whichever agent finds none.

An agent that uses it loads neither SQLite nor any sink's packages. The process holds a lock for as long as it lives, so
looking whether there is one takes a few microseconds.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracebridge.config import Settings, reveal
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.lock import process_lock
from tracebridge.errors import TracebridgeError
from tracebridge.journal import layout
from tracebridge.threads import BackgroundThread

PYTHON_PATH_VARIABLE: Final = "TRACEBRIDGE_PYTHON_PATH"
"""The environment variable that tells the process where the agent imports from, however it came to that."""
_PROGRAM: Final = f"""\
import os, sys
sys.path[:] = os.environ.pop({PYTHON_PATH_VARIABLE!r}).split(os.pathsep)
from tracebridge.cli import main
sys.exit(main())
"""
_HAND_OVER_S: Final = 5.0
_POLL_S: Final = 0.1
_COUNT_S: Final = 0.2
_LONGEST_WORDS: Final = 1000


def log_file(trace_dir: Path) -> Path:
    """The file to which the process tells how it is going."""
    return layout.state_folder(trace_dir) / "shipper.log"


class NotStartedError(TracebridgeError):
    """The process could not be started: says why."""


class DetachedShipper:
    """Sees to it that a process ships what is in one trace folder."""

    def __init__(self, settings: Settings, report: Callable[[Exception], None]) -> None:
        """`report` is told of each attempt to start the process that failed, from any thread."""
        self._settings = settings
        self._report = report
        self._lock = process_lock(settings.trace_dir)
        self._backoff = Backoff()
        self._not_before = 0.0
        # reentrant, as a signal handler of the agent may record in the middle of a recording
        self._guard = threading.RLock()

    def start(self) -> None:
        """Start the process if there is none."""
        self.notice()

    def notice(self) -> None:
        """A run begins or has ended: start the process if there is none.

        The process gives its lock up before it looks for the last time whether something is new. So who writes first,
        and then finds the lock held, can be sure that what was written is seen.
        """
        if self._lock.holder() is not None:
            self._not_before = 0.0
            self._backoff.succeeded()
            return
        with self._guard:
            if time.monotonic() < self._not_before:
                # it is about to start, or it cannot
                return
            self._not_before = time.monotonic() + self._backoff.failed()
            try:
                self._start()
            except (OSError, subprocess.SubprocessError, TracebridgeError) as error:
                self._report(error)

    def flush(self, timeout: float) -> int:
        """Wait until everything written so far is delivered, at most `timeout` seconds.

        Returns the number of events that at least one sink has not taken, as far as they could be counted in the time.
        """
        # imported here: it brings SQLite, which an agent that does not ask need not load
        from tracebridge.delivery.backlog import left_of

        deadline = time.monotonic() + timeout
        counting_from = deadline - min(_COUNT_S, timeout / 4)
        nobody_since = time.monotonic()
        while True:
            self.notice()
            if not any(left_of(sink, self._settings.trace_dir, 0.0).events for sink in self._settings.enabled_sinks):
                return 0
            now = time.monotonic()
            if self._lock.holder() is not None:
                nobody_since = now
            if now >= counting_from or now - nobody_since > _HAND_OVER_S:
                break
            time.sleep(min(_POLL_S, counting_from - now))
        sinks = self._settings.enabled_sinks
        return max(left_of(sink, self._settings.trace_dir, deadline).events for sink in sinks)

    def stop(self, timeout: float) -> int:  # the process outlives the agent
        """See to it that the process ships what is left. Does not wait, and does not know what that is."""
        self.notice()
        return 0

    def _start(self) -> None:
        content = reveal(self._settings)
        isolated = ["-I"] if sys.flags.isolated else []
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                [_python(), *isolated, "-c", _PROGRAM, "--config", "-", "ship", "--until-idle", "--detach"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, PYTHON_PATH_VARIABLE: os.pathsep.join(map(os.path.abspath, sys.path))},
                start_new_session=True,
            )
            # a thread, because what is started goes on in a process of its own, and this one must not be left a zombie
            BackgroundThread(target=self._attend, args=(process,), name="tracebridge-start").start()
            theirs.close()
            ours.settimeout(_HAND_OVER_S)
            # what a process that has ended already had to say, `_attend` tells
            with suppress(BrokenPipeError, ConnectionResetError):
                _send(ours, content)

    def _attend(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as words:
            lines = words.read().decode("utf-8", "replace").split("\n")
        code = process.wait()
        if code:
            # of a trace, what it came to
            what = next((line for line in reversed(lines) if line.strip()), f"it ended with exit code {code}")
            self._report(NotStartedError(f"the process that ships could not be started: {what[:_LONGEST_WORDS]}"))


def _send(connection: socket.socket, content: bytes) -> None:
    view = memoryview(content)
    # a reader that is gone must not cost the agent a SIGPIPE
    while view:
        view = view[connection.send(view, getattr(socket, "MSG_NOSIGNAL", 0)) :]
    # an agent that forks at this moment must not keep the end of the file back
    connection.shutdown(socket.SHUT_WR)


def _python() -> str:
    """The interpreter, also where `sys.executable` names the program that embeds it."""
    if getattr(sys, "frozen", False):
        raise NotStartedError(
            "this program is frozen and has no Python interpreter to start; use `delivery: thread` or `external`"
        )
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, os.path.join(sys.exec_prefix, "bin", name), shutil.which(name)):
        if candidate and Path(candidate).name.startswith(("python", "pypy")) and os.access(candidate, os.X_OK):
            return candidate
    raise NotStartedError("no Python interpreter was found to start; use `delivery: thread` or `external`")
