"""What this process has open."""

from __future__ import annotations

import os
from pathlib import Path


def open_files_below(folder: Path) -> list[str]:
    """The paths of the files below a folder that are open, once for each descriptor; Linux tells."""
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    return [link for link in links if link.startswith(str(folder))]


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")
