"""Which file systems a journal can rely on: not those where others than this machine's kernel write and lock."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.errors import UnsupportedFileSystemError

if TYPE_CHECKING:
    from pathlib import Path

MOUNT_TABLE: Final = "/proc/self/mountinfo"

_REMOTE: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncp", "ncpfs", "afs", "coda", "9p"),
        # of clusters: whether locks and appends hold between machines is a matter of how they are mounted, and SQLite's
        # shared memory never does
        *("ceph", "lustre", "beegfs", "gpfs", "ocfs2", "gfs", "gfs2", "pvfs2", "orangefs", "panfs", "glusterfs"),
        # the folders that a virtual machine's host shares with it
        *("vboxsf", "vmhgfs", "prl_fs"),
        *("davfs", "mfs", "wekafs"),
    }
)
"""The types that are refused.

All others are taken, so also those that nobody has thought of: what keeps its files on this machine (ext4, xfs, btrfs,
zfs, tmpfs, overlay) and virtiofs, which serves one kernel that does the locking itself.
"""

_REMOTE_FUSE: Final = frozenset(
    {
        *("sshfs", "ceph", "ceph-fuse", "davfs", "davfs2", "curlftpfs", "smbnetfs", "hdfs", "fuse_dfs", "gvfsd-fuse"),
        *("s3fs", "gcsfuse", "goofys", "geesefs", "mountpoint-s3", "blobfuse", "blobfuse2", "rclone", "alluxio-fuse"),
        *("juicefs", "moosefs", "mfsmount", "seaweedfs", "vmhgfs-fuse", "grpcfuse", "osxfs"),
    }
)
"""File systems in user space that are refused, beside those whose source is on another machine."""

_LOCAL_FUSE: Final = frozenset({"mergerfs", "unionfs", "unionfs-fuse", "mhddfs"})
"""File systems in user space whose source is a list of local folders, with colons between them."""

# `host:/path`, `user@host:path`, `//host/share`, `https://host/`
_ELSEWHERE: Final = re.compile(r"[^/]+:|//[^/]")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True):
    """One line of the mount table."""

    number: int
    parent: int
    """The number of the mount that this one lies on."""
    point: str
    """The folder that it is mounted at."""
    kind: str
    """The type of its file system."""
    source: str
    """The device, or the server and its folder."""


def check_file_system(folder: Path, table: str = MOUNT_TABLE) -> None:
    """Refuse a folder that lies, or would lie once it is made, where appends and locks cannot be relied on.

    Where there is no mount table, which only Linux has, nothing is refused.

    Raises:
        UnsupportedFileSystemError: says which file system it is, and what to do.
    """
    mounts = read_mounts(table)
    # as it is written first: resolving a link asks the file system, which hangs when its server is away
    for path in (os.path.abspath, os.path.realpath):
        mount = mount_of(path(folder), mounts)
        if mount is not None and is_remote(mount):
            raise UnsupportedFileSystemError(
                f"{folder} is on {mount.kind} ({mount.source} at {mount.point}): appends and locks cannot be relied on "
                "there; put trace_dir on a local disk"
            )


def read_mounts(table: str = MOUNT_TABLE) -> list[Mount]:
    """Read the mount table; empty where there is none."""
    try:
        with open(table, "rb") as file:
            return parse_mounts(file.read())
    except OSError:
        return []


def parse_mounts(text: bytes) -> list[Mount]:
    """Parse the text of a mount table; a line of another form is passed over.

    A line is `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw`: number, parent, device, root, mount
    point, options, any number of optional fields, `-`, type, source, more options.
    """
    mounts = []
    for line in text.splitlines():
        fields, _, described = line.partition(b" - ")
        head, tail = fields.split(b" "), described.split(b" ")
        if len(head) >= 6 and len(tail) >= 2 and head[0].isdigit() and head[1].isdigit():
            mounts.append(Mount(int(head[0]), int(head[1]), _path(head[4]), _path(tail[0]), _path(tail[1])))
    return mounts


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that an absolute path is on; None if the table does not tell.

    The path is followed from the root, as the kernel does. So the longest mount point wins, of several at one point
    the last, but a mount that lies hidden below a later one does not.
    """
    by_place = {(mount.parent, mount.point): mount for mount in mounts}
    numbers = {mount.number for mount in mounts}
    # what the table begins with lies on a mount that this process cannot see
    beginnings = {mount.point: mount for mount in mounts if mount.parent not in numbers or mount.parent == mount.number}
    current: Mount | None = None
    for place in _ways(path):
        if current is None:
            current = beginnings.get(place)
        seen: set[int] = set()
        while current is not None and current.number not in seen:
            seen.add(current.number)
            current = by_place.get((current.number, place), current)
    return current


def is_remote(mount: Mount) -> bool:
    """Whether a journal must not lie on this mount."""
    kind, _, name = mount.kind.partition(".")
    if kind != "fuse":
        return mount.kind in _REMOTE
    if name in _REMOTE_FUSE or name in _REMOTE:
        return True
    return name not in _LOCAL_FUSE and _ELSEWHERE.match(mount.source) is not None


def _ways(path: str) -> Iterable[str]:
    yield "/"
    for end in range(1, len(path)):
        if path[end] == "/":
            yield path[:end]
    if path != "/":
        yield path


def _path(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda octal: bytes([int(octal[1], 8) & 0xFF]), field))
