"""A small disk of its own for the traces, so that it can really run full."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SIZE_BYTES: Final = 192 << 20
_BLOCK_BYTES: Final = 1 << 20


class SmallDisk:
    """A tmpfs below `folder`, or, where mounting is not allowed, a plain folder that cannot be filled."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._ballast = self.path / "ballast"
        self.is_real = False

    def __enter__(self) -> Self:
        self.path.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(self.path)],
            check=False,
            capture_output=True,
        )
        self.is_real = mounted.returncode == 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_real:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self) -> None:
        """Leave no room."""
        if not self.is_real:
            return
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(_BLOCK_BYTES))

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)
