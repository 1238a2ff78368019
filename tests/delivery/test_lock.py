"""One shipper a sink, over threads and processes, and the lock passes on when its holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tracebridge.delivery.lock import ShipperLock

_HOLDER = """
import os, sys, time
from pathlib import Path
import pytest

from tracebridge.delivery.lock import ShipperLock
assert ShipperLock(Path(sys.argv[1])).acquire()
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), child, flush=True)
time.sleep(60)
"""

_LOOKING = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.lockf(file, fcntl.LOCK_SH)
print("looking", flush=True)
sys.stdin.read()
"""

_RIVAL = """
import sys
from pathlib import Path
import pytest

from tracebridge.delivery.lock import ShipperLock
sys.exit(ShipperLock(Path(sys.argv[1])).acquire())
"""


def test_two_in_one_process_do_not_both_get_it(tmp_path: Path) -> None:
    first, second = ShipperLock(tmp_path / "x.lock"), ShipperLock(tmp_path / "x.lock")
    assert first.acquire()
    assert not second.acquire()
    assert second.holder() == os.getpid()
    first.release()
    assert second.holder() is None
    assert second.acquire()
    second.release()


def test_two_in_one_process_do_not_both_get_it_by_different_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    first, second = ShipperLock(tmp_path / "real" / "x.lock"), ShipperLock(tmp_path / "link" / "x.lock")
    assert first.acquire()
    assert not second.acquire()
    assert second.holder() == os.getpid()
    rival = subprocess.run([sys.executable, "-c", _RIVAL, str(tmp_path / "real" / "x.lock")], check=False)
    assert rival.returncode == 0, "looking by the other path has dropped the lock"
    first.release()
    assert second.acquire()
    second.release()


def test_it_passes_on_when_its_holder_is_killed_though_a_forked_child_lives(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        parent, child = map(int, holder.stdout.readline().split())
        lock = ShipperLock(path)
        assert not lock.acquire()
        assert lock.holder() == parent
        os.kill(parent, signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # the child lives
        assert lock.acquire()
        lock.release()
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_does_not_hold_its_parents_lock_nor_can_it_give_it_up(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    lock = ShipperLock(path)
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0 if not ShipperLock(path).acquire() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    rival = subprocess.run([sys.executable, "-c", _RIVAL, str(path)], check=False)
    assert rival.returncode == 0, "another process got a lock that is held"
    lock.release()


def test_a_holder_notices_that_its_file_is_gone_and_that_another_has_taken_its_place(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "x.lock"
    lock = ShipperLock(path)
    assert not lock.is_in_place()
    assert lock.acquire()
    assert lock.is_in_place()
    path.unlink()
    assert not lock.is_in_place()
    path.touch()
    assert not lock.is_in_place(), "the path names another file"
    lock.release()
    assert lock.acquire()
    assert lock.is_in_place()
    lock.release()


def test_looking_who_holds_it_neither_makes_the_file_nor_keeps_it_from_being_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert ShipperLock(path).holder() is None
    assert not path.exists()
    path.touch()
    looking = subprocess.Popen(
        [sys.executable, "-c", _LOOKING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with looking:
        assert looking.stdout is not None
        assert looking.stdout.readline() == b"looking\n"
        assert ShipperLock(path).holder() is None
        looking.communicate(b"")


def test_a_file_that_cannot_be_made_is_an_error_and_not_a_held_lock(tmp_path: Path) -> None:
    (tmp_path / "locks").touch()
    with pytest.raises(OSError, match="locks"):
        ShipperLock(tmp_path / "locks" / "x.lock").acquire()


def test_giving_up_a_lock_whose_descriptor_was_closed_by_others_closes_no_other_file(tmp_path: Path) -> None:
    lock = ShipperLock(tmp_path / "x.lock")
    with (tmp_path / "other").open("w") as other:
        assert lock.acquire()
        # what daemonizing code does with descriptors that it does not know
        lock_number = lock._descriptor
        os.dup2(other.fileno(), lock_number)
        assert not lock.is_in_place()
        lock.release()
        os.close(lock_number)
