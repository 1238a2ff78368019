"""Which folders are refused, told from mount tables as kernels write them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workplace import environment
from tracebridge.errors import UnsupportedFileSystemError
from tracebridge.journal.file_system import Mount, check_file_system, is_remote, mount_of, parse_mounts, read_mounts

SERVER = rb"""
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 22 0:25 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=3265612k,mode=755
61 22 259:1 / /boot/efi rw,relatime shared:31 - vfat /dev/nvme0n1p1 rw,fmask=0077
88 22 0:48 / /home rw,relatime shared:49 - nfs4 filer.example.com:/export/home rw,vers=4.2,rsize=1048576,hard
91 88 253:3 / /home/local rw,relatime shared:51 - xfs /dev/mapper/vg-local rw,attr2,inode64
95 22 0:50 / /mnt/my\040share\134x rw,relatime shared:53 - cifs //nas.example.com/my\040share rw,vers=3.1.1
97 22 0:52 / /data rw,relatime shared:55 - zfs tank/data rw,xattr,posixacl
99 22 0:54 / /mnt/sshfs rw,nosuid,nodev,relatime shared:57 - fuse.sshfs me@host.example.com:/srv rw,user_id=0
101 22 0:55 / /mnt/dav rw,relatime shared:58 - fuse https://dav.example.com/files rw,user_id=0,group_id=0
103 22 8:17 / /mnt/usb rw,relatime shared:59 - fuseblk /dev/sdb1 rw,user_id=0,allow_other
105 22 0:57 / /mnt/pool rw,relatime shared:60 - fuse.mergerfs a:b rw,user_id=0,allow_other
107 22 0:58 / /mnt/secret rw,relatime shared:61 - fuse.gocryptfs /srv/cipher rw,user_id=0
109 22 0:59 / /mnt/cloud rw,relatime shared:62 - fuse.rclone remote: rw,user_id=0
"""

CONTAINER = rb"""
812 701 0:120 / / rw,relatime master:300 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
813 812 0:123 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
820 812 0:48 /team/a /traces rw,relatime master:49 - nfs filer:/export rw,vers=3,nolock
821 812 254:1 /var/lib/docker/volumes/v/_data /volume rw,relatime master:1 - ext4 /dev/vda1 rw,discard
822 812 0:130 / /shared rw,relatime - virtiofs shared rw
823 812 0:131 / /drive rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\134,trans=fd
"""

# a later mount at /srv hides what was mounted below it before; the last of those at one point is the one that is seen
STACKED = rb"""
20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 0:40 / /srv/old rw - nfs4 filer:/old rw
31 20 8:2 / /srv rw - xfs /dev/sda2 rw
32 20 0:41 / /mnt rw - nfs4 filer:/x rw
33 32 8:3 / /mnt rw - btrfs /dev/sda3 rw,subvol=/
34 33 0:42 / /mnt/net rw - ceph 10.0.0.1:6789:/ rw
"""


@pytest.mark.parametrize(
    ("table", "path", "kind"),
    [
        (SERVER, "/", "ext4"),
        (SERVER, "/var/traces", "ext4"),
        (SERVER, "/homestead", "ext4"),
        (SERVER, "/home", "nfs4"),
        (SERVER, "/home/me/project/traces", "nfs4"),
        (SERVER, "/home/local/traces", "xfs"),
        (SERVER, r"/mnt/my share\x/traces", "cifs"),
        (SERVER, "/data/traces", "zfs"),
        (CONTAINER, "/app/traces", "overlay"),
        (CONTAINER, "/traces", "nfs"),
        (CONTAINER, "/volume/x", "ext4"),
        (STACKED, "/srv/old/traces", "xfs"),
        (STACKED, "/mnt/traces", "btrfs"),
        (STACKED, "/mnt/net/traces", "ceph"),
    ],
)
def test_a_path_is_on_the_mount_that_the_kernel_would_find(table: bytes, path: str, kind: str) -> None:
    mount = mount_of(path, parse_mounts(table))
    assert mount is not None
    assert mount.kind == kind


def test_a_process_whose_root_is_no_mount_sees_those_below_it() -> None:
    mounts = parse_mounts(b"50 12 0:40 / /net rw - nfs filer:/x rw\n51 50 8:1 / /net/disk rw - ext4 /dev/sda1 rw\n")
    assert mount_of("/traces", mounts) is None
    assert [mount_of(path, mounts).kind for path in ("/net/a", "/net/disk/a")] == ["nfs", "ext4"]  # type: ignore[union-attr]


def test_lines_of_another_form_are_passed_over() -> None:
    assert parse_mounts(b"\nrubbish\n1 2 3\n- - -\n1 x 0:1 / / rw - ext4 a rw\n1 0 0:1 / / rw -\n") == []


def test_a_table_that_lies_in_a_circle_ends() -> None:
    mounts = parse_mounts(b"5 5 8:1 / / rw - ext4 /dev/sda1 rw\n6 5 8:2 / / rw - xfs /dev/sda2 rw\n")
    assert mount_of("/a", mounts) == mounts[1]


@pytest.mark.parametrize(
    ("table", "path", "is_refused"),
    [
        (SERVER, "/var", False),
        (SERVER, "/home", True),
        (SERVER, "/home/local", False),
        (SERVER, r"/mnt/my share\x", True),
        (SERVER, "/data", False),
        (SERVER, "/run", False),
        (SERVER, "/mnt/sshfs", True),
        (SERVER, "/mnt/dav", True),
        (SERVER, "/mnt/usb", False),
        (SERVER, "/mnt/secret", False),
        (SERVER, "/mnt/cloud", True),
        (CONTAINER, "/", False),
        (CONTAINER, "/traces", True),
        (CONTAINER, "/shared", False),
        (CONTAINER, "/drive", True),
    ],
)
def test_what_others_than_this_kernel_write_to_is_refused(table: bytes, path: str, is_refused: bool) -> None:
    mount = mount_of(path, parse_mounts(table))
    assert mount is not None
    assert is_remote(mount) is is_refused


def test_a_local_file_system_in_user_space_is_taken_whatever_its_source_is_called() -> None:
    [mount] = [mount for mount in parse_mounts(SERVER) if mount.kind == "fuse.mergerfs"]
    assert not is_remote(mount)
    assert not is_remote(Mount(1, 0, "/", "fuse.fuse-overlayfs", "fuse-overlayfs"))


def test_the_folder_is_refused_with_what_it_is_on_and_what_to_do(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"1 0 8:1 / / rw - nfs4 filer:/root rw\n")
    with pytest.raises(UnsupportedFileSystemError) as refused:
        check_file_system(tmp_path / "not" / "made" / "yet", str(table))
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/not/made/yet is on nfs4 (filer:/root at /)")
    assert said.endswith("put trace_dir on a local disk")


def test_a_link_to_a_folder_that_is_refused_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / %b/net rw - nfs filer:/x rw\n" % os.fsencode(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "net")  # dangling, as the folder is not made yet
    with pytest.raises(UnsupportedFileSystemError):
        check_file_system(tmp_path / "link" / "traces", str(table))
    check_file_system(tmp_path / "traces", str(table))


def test_where_there_is_no_table_nothing_is_refused(tmp_path: Path) -> None:
    check_file_system(tmp_path, str(tmp_path / "none"))


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs a mount table")
def test_every_mount_of_this_machine_is_found_by_its_own_point() -> None:
    mounts = read_mounts()
    assert mounts
    by_point = {mount.point: mount for mount in mounts}
    visible = [mount for mount in mounts if mount_of(mount.point, mounts) == mount]
    assert {mount.point for mount in visible} == {point for point in by_point if mount_of(point, mounts) is not None}
    devices = {mount.point: os.stat(mount.point).st_dev for mount in visible if os.access(mount.point, os.F_OK)}
    for mount in visible:
        below = f"{mount.point.rstrip('/')}/no-such-folder"
        if mount.point in devices and mount_of(below, mounts) != mount:
            pytest.fail(f"{below} is said not to be on {mount}")


@pytest.fixture
def dead_sshfs(tmp_path: Path) -> Iterator[Path]:
    """A real mount of the type `fuse.sshfs` whose server never answers: whoever touches it hangs."""
    libc = ctypes.CDLL(None, use_errno=True)
    point = tmp_path / "net"
    point.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"needs /dev/fuse: {error}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"me@host.example.com:/srv", bytes(point), b"fuse.sshfs", 0, options):
        os.close(device)
        pytest.skip(f"needs the right to mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield point
    finally:
        os.close(device)
        libc.umount2(bytes(point), 2)


USE = """
import json, sys
from tracebridge import Tracer
tracer = Tracer({"agent_trace": {"trace_dir": sys.argv[1]}})
for session_id in ("a", "b"):
    with tracer.trace_session(session_id) as session, tracer.trace_turn(session):
        session.log_thinking("x")
assert tracer.flush(1) == 0
print(json.dumps(dict(tracer.trouble.counts)))
"""


def test_an_agent_on_a_dead_network_file_system_goes_on_at_once_and_says_so_once(dead_sshfs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USE, str(dead_sshfs / "traces")],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        timeout=50,
    )
    assert done.stdout.strip() == '{"trace_dir: UnsupportedFileSystemError": 3}'
    assert done.stderr.count("\n") == 1
    assert "is on fuse.sshfs (me@host.example.com:/srv" in done.stderr
    assert "Nothing is recorded" in done.stderr


@pytest.mark.parametrize("command", [["ship"], ["backfill", "{old}"]])
def test_a_command_on_a_network_file_system_ends_with_2_and_says_so(
    command: list[str], dead_sshfs: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old" / "session-s"
    old.mkdir(parents=True)
    (old / "events.jsonl").write_text("", encoding="utf-8")
    config = tmp_path / "tracebridge.yaml"
    config.write_text(
        f"agent_trace:\n  trace_dir: {dead_sshfs}/traces\n  sinks:\n    otel:\n      endpoint: http://127.0.0.1:9\n",
        encoding="utf-8",
    )
    arguments = [argument.format(old=old.parent) for argument in command]
    done = subprocess.run(
        [sys.executable, "-m", "tracebridge", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=50,
    )
    assert done.returncode == 2, done.stderr
    assert "is on fuse.sshfs" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_there_are_no_posix_locks_the_import_says_so() -> None:
    program = "import sys; sys.modules['fcntl'] = None; import tracebridge"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: tracebridge runs on Linux, macOS and other POSIX")
