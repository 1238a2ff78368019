"""The shim kills at exactly the system call that is named, counts every one of them, and tells how a run ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.killing import FAILED, CannotTraceError, Killer

LINES = 7


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    try:
        with Killer([__name__], tmp_path_factory.mktemp("killing") / "log") as killer:
            yield killer
    except CannotTraceError as error:
        pytest.skip(str(error))


# --- what children do -------------------------------------------------------------------------------------------------


def ask(times: str) -> None:
    for _ in range(int(times)):
        os.getppid()


def write_bytes(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(LINES):
        os.write(descriptor, b"x")
    os.rename(path, path + ".done")


def write_in_threads(folder: str) -> None:
    """Two threads write for ever; the first one waits for them."""
    threads = [threading.Thread(target=_write_for_ever, args=(f"{folder}/{name}",)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _write_for_ever(path: str) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d" % os.getpid())
        while True:
            file.write(b".")


def ask_in_threads(times: str) -> None:
    for _ in range(3):
        thread = threading.Thread(target=ask, args=(times,))
        thread.start()
        thread.join()


def start_a_child(path: str) -> None:
    """The child is at work until it has lost its parent, or until that waits for it."""
    pid = os.getpid()
    child = os.fork()
    if child == 0:
        for _ in range(1000):
            os.getppid()
        Path(path + ".ready").touch()
        while os.getppid() == pid and not Path(path + ".end").exists():
            time.sleep(0.001)
        Path(path).touch()
        os._exit(0)
    while not Path(path + ".ready").exists():
        time.sleep(0.05)
    ask("200")
    Path(path + ".end").touch()
    os.waitpid(child, 0)


def handle_a_signal(path: str) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: Path(path).touch())
    os.kill(os.getpid(), signal.SIGUSR1)


def leave(code: str) -> None:
    os._exit(int(code))


def die() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    print("printed before")
    raise ArithmeticError("on purpose")


def hang() -> None:
    time.sleep(600)


def tell_descriptors(path: str) -> None:
    listed = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    # libffi keeps its own library open, where it is built to write no machine code
    Path(path).write_text(" ".join(sorted(file.name for file in listed if "libffi" not in str(os.path.realpath(file)))))


# --- what is seen of it -----------------------------------------------------------------------------------------------


def test_every_call_counts_once(killer: Killer) -> None:
    none, ten = killer.run(ask, "0"), killer.run(ask, "10")
    assert (none.was_killed, none.exit_code) == (False, 0)
    assert ten.calls == none.calls + 10


def test_calls_of_other_threads_count(killer: Killer) -> None:
    # how often threads wait for one another varies, but by far less
    assert killer.run(ask_in_threads, "1000").calls - killer.run(ask_in_threads, "0").calls in range(2990, 3100)


def test_it_is_killed_before_the_named_call_has_an_effect_and_after_all_before_it_had_theirs(
    killer: Killer, tmp_path: Path
) -> None:
    total = killer.run(write_bytes, str(tmp_path / "whole")).calls
    seen = []
    for number in range(1, total + 1):
        path = tmp_path / str(number)
        ended = killer.run(write_bytes, str(path), kill_at=number)
        assert (ended.was_killed, ended.exit_code, ended.calls) == (True, -signal.SIGKILL, number)
        done = path.with_name(f"{number}.done")
        seen.append("done" if done.exists() else path.stat().st_size if path.exists() else "nothing")
    # the first call is the open one; the last ones end the process
    assert seen[: LINES + 3] == ["nothing", *range(LINES + 1), "done"]
    assert set(seen[LINES + 3 :]) <= {"done"}


def test_a_run_that_ends_before_the_named_call_is_told_from_one_that_was_killed(killer: Killer) -> None:
    total = killer.run(ask, "5").calls
    assert killer.run(ask, "5", kill_at=total).was_killed
    beyond = killer.run(ask, "5", kill_at=total + 1)
    assert (beyond.was_killed, beyond.exit_code, beyond.calls) == (False, 0, total)


def test_a_process_dies_with_all_its_threads(killer: Killer, tmp_path: Path) -> None:
    ended = killer.run(write_in_threads, str(tmp_path), kill_at=2000)
    assert (ended.was_killed, ended.exit_code) == (True, -signal.SIGKILL)
    files = [tmp_path / "a", tmp_path / "b"]
    assert all(file.stat().st_size > 20 for file in files), "both threads were at work"
    assert sum(file.stat().st_size for file in files) < 2000 + 20
    (pid,) = {int(file.read_bytes().rstrip(b".")) for file in files}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_it_has_started_is_not_counted_and_outlives_it(killer: Killer, tmp_path: Path) -> None:
    ended = killer.run(start_a_child, str(tmp_path / "whole"))
    assert (ended.exit_code, (tmp_path / "whole").exists()) == (0, True)
    assert ended.calls < 900
    path = tmp_path / "orphan"
    deadline = time.monotonic() + 10
    killed = killer.run(start_a_child, str(path), kill_at=ended.calls - 100)  # in the middle of those 200
    assert killed.was_killed
    while not path.exists():
        assert time.monotonic() < deadline, "the child of a killed process goes on"
        time.sleep(0.01)


def test_how_a_process_ends_by_itself_is_told(killer: Killer) -> None:
    left, died, failed = killer.run(leave, "7"), killer.run(die), killer.run(fail)
    assert (left.was_killed, left.exit_code) == (False, 7)
    assert (died.was_killed, died.exit_code) == (False, -signal.SIGTERM)
    assert (failed.was_killed, failed.exit_code) == (False, FAILED)
    assert "printed before\n" in killer.log()
    assert "ArithmeticError: on purpose" in killer.log()


def test_signals_of_the_process_reach_it(killer: Killer, tmp_path: Path) -> None:
    assert killer.run(handle_a_signal, str(tmp_path / "handled")).exit_code == 0
    assert (tmp_path / "handled").exists()


def test_a_process_that_hangs_is_ended_and_said_to(killer: Killer) -> None:
    ended = killer.run(hang, time_limit_s=0.2)
    assert (ended.timed_out, ended.was_killed, ended.exit_code) == (True, False, -signal.SIGKILL)
    assert not killer.run(ask, "1").timed_out


def test_a_process_begins_with_nothing_open_but_the_standard_streams(killer: Killer, tmp_path: Path) -> None:
    killer.run(tell_descriptors, str(tmp_path / "open"))
    *standard, _listing = (tmp_path / "open").read_text().split()
    assert standard == ["0", "1", "2"]
