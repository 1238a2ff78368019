"""Where things lie in a trace folder, and which folder belongs to which session.

    traces/
      session-<id>/metadata.json, events.jsonl
      .tracebridge/opened.log, state.sqlite, locks/

Ordinary session ids appear as they are. In others, every byte of their UTF-8 but letters, digits and
`-_.~@+=,:` is written as `%XX`, so that no id leaves the folder or collides with another. An id whose folder
name would be longer than 255 bytes is cut, and `%~` and a hash of the whole id follow: such a name belongs to
one id only, but the id is then read from the session's files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

EVENTS: Final = "events.jsonl"
METADATA: Final = "metadata.json"
STATE_FOLDER: Final = ".tracebridge"

_PREFIX: Final = "session-"
_QUOTED: Final = re.compile(rb"[^A-Za-z0-9_.~@+=,:-]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_LONGEST_NAME: Final = 255
_SHORTENED: Final = "%~"
_HASH_DIGITS: Final = 40
_FIRST_LINE_BYTES: Final = 1 << 20


class _Named(msgspec.Struct):
    session_id: str


def session_folder(trace_dir: Path, session_id: str) -> Path:
    """Return the folder of a session."""
    return trace_dir / folder_name(session_id)


def folder_name(session_id: str) -> str:
    """Return the name of a session's folder: different for every id, and at most 255 bytes of plain ASCII."""
    # lone surrogates get the form that they have in the session's events
    encoded = session_id.encode("utf-8", "backslashreplace")
    name = _PREFIX + _QUOTED.sub(lambda byte: b"%%%02X" % byte[0][0], encoded).decode("ascii")
    if len(name) <= _LONGEST_NAME:
        return name
    # loaded for such ids only: it brings OpenSSL, which costs more than the rest of the import
    from hashlib import blake2b

    digest = blake2b(encoded, digest_size=_HASH_DIGITS // 2).hexdigest()
    return name[: _LONGEST_NAME - len(_SHORTENED) - _HASH_DIGITS] + _SHORTENED + digest


def is_session_folder_name(name: str) -> bool:
    """Whether `name` is that of a session's folder."""
    return name.startswith(_PREFIX)


def session_id_of(folder: Path) -> str:
    """Return the id of the session whose folder this is.

    A shortened name does not tell it: then it is read from the metadata or the first event, and if neither
    can be read, what the name holds is returned.
    """
    name = folder.name.removeprefix(_PREFIX)
    if _SHORTENED in name:
        return _recorded_id(folder) or name
    encoded = name.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), encoded).decode("utf-8", "backslashreplace")


def session_folders(trace_dir: Path) -> Iterator[Path]:
    """Yield the folders of all sessions that have events, in the order of their names."""
    if not trace_dir.is_dir():
        return
    for folder in sorted(trace_dir.iterdir()):
        if is_session_folder_name(folder.name) and (folder / EVENTS).is_file():
            yield folder


def events_file(folder: Path) -> Path:
    """Return the journal file of a session's folder."""
    return folder / EVENTS


def metadata_file(folder: Path) -> Path:
    """Return the metadata file of a session's folder."""
    return folder / METADATA


def state_folder(trace_dir: Path) -> Path:
    """Return the folder in which tracebridge keeps what is not the user's."""
    return trace_dir / STATE_FOLDER


def opened_log(trace_dir: Path) -> Path:
    """Return the file to which writers append the names of the sessions that they open."""
    return state_folder(trace_dir) / "opened.log"


def lost_log(trace_dir: Path) -> Path:
    """The file that tells how many events could not be written."""
    return state_folder(trace_dir) / "lost.log"


def state_file(trace_dir: Path) -> Path:
    """Return the SQLite file of delivery's state."""
    return state_folder(trace_dir) / "state.sqlite"


def kept_marker(trace_dir: Path) -> Path:
    """Return the file whose time tells since when the journal is kept again, whatever older processes were told."""
    return state_folder(trace_dir) / "kept"


def returning_log(trace_dir: Path) -> Path:
    """Return the file that names the sessions that are being brought back, and are restored but for their last step."""
    return state_folder(trace_dir) / "returning.log"


def spooled_log(trace_dir: Path) -> Path:
    """Return the file that names the sessions whose files a spool has deleted."""
    return state_folder(trace_dir) / "spooled.log"


def pruned_log(trace_dir: Path) -> Path:
    """Return the file that names the sessions whose files `tracebridge prune` has deleted."""
    return state_folder(trace_dir) / "pruned.log"


def locks_folder(trace_dir: Path) -> Path:
    """Return the folder of the shippers' lock files."""
    return state_folder(trace_dir) / "locks"


def _recorded_id(folder: Path) -> str | None:
    try:
        return msgspec.json.decode(metadata_file(folder).read_bytes(), type=_Named).session_id
    except (OSError, ValueError):
        pass
    try:
        with events_file(folder).open("rb") as events:
            return msgspec.json.decode(events.readline(_FIRST_LINE_BYTES), type=_Named).session_id
    except (OSError, ValueError):
        return None
