"""Runs functions in processes of their own and kills them at the Nth system call, by ptrace.

`Killer` talks to a *zygote*: a process that has imported everything, has one thread and no file of the tests open. For
each run it forks a child, which is traced from just before it calls the function. At the entry of the Nth system call
of all its threads together the whole child is killed, by SIGKILL, so that this call has no effect and all before it
had theirs. Processes that the child starts are neither counted nor killed.

The zygote is a process of its own also because a tracer must wait for any of its children, which would take away those
of the test's.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from tests.workplace import ROOT, environment

FAILED: Final = 70
"""The exit code of a child whose function raised."""
TIME_LIMIT_S: Final = 20.0
"""How long one run may take: a child that hangs is killed then."""

_PTRACE_TRACEME: Final = 0
_PTRACE_SYSCALL: Final = 24
_PTRACE_SETOPTIONS: Final = 0x4200
_PTRACE_GET_SYSCALL_INFO: Final = 0x420E
_TRACESYSGOOD: Final = 0x1
_TRACECLONE: Final = 0x8
_EXITKILL: Final = 0x100000
_WALL: Final = 0x40000000
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_ENTRY: Final = 1


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run."""

    function: str
    """`module:name`."""
    arguments: tuple[str, ...]
    kill_at: int
    """At which system call, counted from 1, the process is killed; 0 for never."""
    time_limit_s: float


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    calls: int
    """How many system calls were entered, that at which it was killed among them."""
    was_killed: bool
    """Whether it was killed at the system call that was named."""
    exit_code: int
    """As `subprocess` has it: negative for a signal."""
    call: int = -1
    """The number, on this machine, of the system call at which it was killed."""
    timed_out: bool = False


class CannotTraceError(Exception):
    """Processes cannot be traced here; the message says why."""


class Killer:
    """Runs functions, and kills them, through one zygote. Use it in a `with` block, from one thread."""

    def __init__(self, modules: Sequence[str], log: Path) -> None:
        """`modules` are imported once, before anything is run; what children print goes to `log`."""
        self._modules = modules
        self._log = log
        self._zygote: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the zygote.

        Raises:
            CannotTraceError: this machine does not let us.
        """
        with self._log.open("ab") as log:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", __name__, *self._modules],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self._check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the zygote, and what it runs."""
        if self._zygote is not None:
            for stream in (self._zygote.stdin, self._zygote.stdout):
                assert stream is not None
                stream.close()
            self._zygote.wait(10)

    def run(
        self, function: Callable[..., object], *arguments: str, kill_at: int = 0, time_limit_s: float = TIME_LIMIT_S
    ) -> Ended:
        """Call a module's function in a new process, to be killed at system call number `kill_at`, if it is not 0."""
        name = f"{function.__module__}:{function.__qualname__}"
        run = Run(function=name, arguments=arguments, kill_at=kill_at, time_limit_s=time_limit_s)
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(msgspec.json.encode(run) + b"\n")
        self._zygote.stdin.flush()
        return msgspec.json.decode(self._answer(), type=Ended)

    def log(self) -> str:
        """What children have printed, and the traceback of those that raised."""
        return self._log.read_text("utf-8", "replace")

    def _check(self) -> None:
        reason = self._answer().decode().strip()
        if reason:
            raise CannotTraceError(reason)

    def _answer(self) -> bytes:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        answer = self._zygote.stdout.readline()
        if not answer:
            raise RuntimeError(f"the zygote has died: {self.log()}")
        return answer


# --- in the zygote ----------------------------------------------------------------------------------------------------


class _Zygote:
    """Reads runs from the standard input and answers on the standard output, neither of which a child gets."""

    def __init__(self) -> None:
        self._runs = os.fdopen(os.dup(0), "rb")
        self._answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what children print goes to the log
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)

    def serve(self, modules: Sequence[str]) -> None:
        """Import, then run what is asked for until nobody can ask any more."""
        for module in modules:
            importlib.import_module(module)
        threads = os.listdir("/proc/self/task") if sys.platform == "linux" else []
        if len(threads) > 1:
            raise RuntimeError(f"what was imported has started {len(threads) - 1} threads, which a fork would lose")
        gc.collect()
        gc.freeze()  # else the first collection of each child would copy most of its memory
        self._answer(self._obstacle().encode())
        for line in self._runs:
            self._answer(msgspec.json.encode(self._run(msgspec.json.decode(line, type=Run))))

    def _answer(self, answer: bytes) -> None:
        self._answers.write(answer + b"\n")
        self._answers.flush()

    def _obstacle(self) -> str:
        """Why nothing can be traced here; empty if it can."""
        if sys.platform != "linux":
            return f"needs Linux's ptrace, and this is {sys.platform}"
        try:
            ended = self._run(Run(function="os:getppid", arguments=(), kill_at=0, time_limit_s=TIME_LIMIT_S))
        except OSError as error:
            return f"processes cannot be traced here: {error}"
        return "" if ended.calls else "processes cannot be traced here: see the log"

    def _run(self, run: Run) -> Ended:
        module, _, name = run.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        pid = os.fork()
        if pid == 0:
            self._be_traced(function, run.arguments)
        return _Child(pid, run.kill_at).follow(run.time_limit_s)

    def _be_traced(self, function: Callable[..., object], arguments: Sequence[str]) -> None:
        code = FAILED
        try:
            os.close(self._runs.fileno())
            os.close(self._answers.fileno())
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            _ptrace(_PTRACE_TRACEME, 0)
            # counting begins when the tracer lets it go on from here
            os.kill(os.getpid(), signal.SIGSTOP)
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


class _Child:
    """A traced process, and what was seen of it."""

    def __init__(self, pid: int, kill_at: int) -> None:
        self._pid = pid
        self._kill_at = kill_at
        self._calls = 0
        self._call = -1
        self._is_overdue = False
        self._threads = {pid}
        self._info = ctypes.create_string_buffer(128)

    def follow(self, time_limit_s: float) -> Ended:
        """Let it run to its end, or to the call at which it is killed."""
        signal.signal(signal.SIGALRM, self._kill_overdue)
        signal.setitimer(signal.ITIMER_REAL, time_limit_s)
        _, status = os.waitpid(self._pid, 0)
        if os.WIFSTOPPED(status):
            _ptrace(_PTRACE_SETOPTIONS, self._pid, 0, _TRACESYSGOOD | _TRACECLONE | _EXITKILL)
            _go_on(self._pid, 0)
            status = self._to_its_end()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return Ended(
            calls=self._calls,
            was_killed=self._call >= 0,
            exit_code=os.waitstatus_to_exitcode(status),
            call=self._call,
            timed_out=self._is_overdue,
        )

    def _kill_overdue(self, *_: object) -> None:
        self._is_overdue = True
        os.kill(self._pid, signal.SIGKILL)

    def _to_its_end(self) -> int:
        while True:
            # the leader is reported as gone only after all of its threads are
            thread, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):
                if thread == self._pid:
                    return status
                continue
            stopped_by = os.WSTOPSIG(status)
            signal_of_its_own = 0
            if stopped_by == _SYSCALL_STOP:
                if self._call < 0 and self._is_at_entry(thread):
                    self._calls += 1
                    if self._calls == self._kill_at:
                        self._call = int.from_bytes(self._info.raw[24:32], sys.byteorder)
                        os.kill(self._pid, signal.SIGKILL)
                        continue
            elif thread not in self._threads:
                # a new thread begins with a stop that the tracer, not the program, has asked for
                self._threads.add(thread)
            elif status >> 16 == 0:
                signal_of_its_own = stopped_by
            _go_on(thread, signal_of_its_own)

    def _is_at_entry(self, thread: int) -> bool:
        try:
            _ptrace(_PTRACE_GET_SYSCALL_INFO, thread, len(self._info), ctypes.addressof(self._info))
        except ProcessLookupError:
            return False
        return self._info.raw[0] == _ENTRY


def _go_on(thread: int, with_signal: int) -> None:
    try:
        _ptrace(_PTRACE_SYSCALL, thread, 0, with_signal)
    except ProcessLookupError:
        return  # killed meanwhile


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    if _LIBC.ptrace(request, thread, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"ptrace {request:#x}")


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

if __name__ == "__main__":
    _Zygote().serve(sys.argv[1:])
