"""One shipper a sink, over threads and processes, and the lock passes on when its holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tracebridge.delivery.lock import ShipperLock

_HOLDER = """
import os, sys, time
from pathlib import Path
from tracebridge.delivery.lock import ShipperLock
assert ShipperLock(Path(sys.argv[1])).acquire()
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), child, flush=True)
time.sleep(60)
"""

_RIVAL = """
import sys
from pathlib import Path
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
