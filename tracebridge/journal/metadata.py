"""`metadata.json`: what is known of a session's last run, for people and scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tracebridge.event import Json
from tracebridge.journal import layout

if TYPE_CHECKING:
    from pathlib import Path


def write_metadata(folder: Path, run_id: str, metadata: Mapping[str, Json]) -> None:
    """Replace a session's metadata file; a reader sees the old one or the new one, never a part.

    Raises:
        OSError: the file cannot be written.
    """
    # two runs of one session may end at once, in two processes
    unfinished = folder / f".{layout.METADATA}.{run_id}"
    try:
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(metadata), indent=2) + b"\n")
        os.replace(unfinished, layout.metadata_file(folder))
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
