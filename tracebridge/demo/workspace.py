"""`Workspace`: the folder of one demo, with its configuration, its journal and what its backend stores."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tracebridge.demo.backend import PUBLIC_KEY, SECRET_KEY
from tracebridge.errors import TracebridgeError
from tracebridge.journal import layout

_CONFIGURATION: Final = """\
# Written by `tracebridge demo`: three sinks, all fed from one journal.
agent_trace:
  trace_dir: {trace_dir}
  environment: demo
  release: "1"
  sinks:
    jsonl: {{enabled: true}}
    langfuse:
      enabled: true
      host: {url}
      public_key: {public_key}
      secret_key: {secret_key}
    otel:
      enabled: true
      endpoint: {url}
      protocol: http/protobuf
      compression: none
      service_name: tracebridge-demo
      reader: {{type: jaeger, url: "{url}"}}
"""


class FolderError(TracebridgeError):
    """The folder that was named cannot hold a demo."""


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the things of one demo lie."""

    folder: Path
    is_kept: bool
    """Whether the folder stays when the demo is over."""

    @property
    def configuration(self) -> Path:
        """The configuration."""
        return self.folder / "tracebridge.yaml"

    @property
    def traces(self) -> Path:
        """The journal's folder."""
        return self.folder / "traces"

    @property
    def backend_db(self) -> Path:
        """What the backend stores."""
        return self.folder / "backend.sqlite"

    @property
    def backend_log(self) -> Path:
        """What the backend complains of."""
        return self.folder / "backend.log"

    def write_configuration(self, url: str) -> None:
        """Write the configuration, for a backend at `url`."""
        # a JSON string is a YAML one, whatever the path holds
        text = _CONFIGURATION.format(
            trace_dir=json.dumps(str(self.traces.absolute())),
            url=url,
            public_key=PUBLIC_KEY,
            secret_key=SECRET_KEY,
        )
        self.configuration.write_text(text, encoding="utf-8")

    def count_events(self) -> int:
        """Count the events that the journal holds now, over all sessions."""
        return sum(
            layout.events_file(folder).read_bytes().count(b"\n") for folder in layout.session_folders(self.traces)
        )

    def count_sessions(self) -> int:
        """Count the sessions that the journal holds now."""
        return sum(1 for _ in layout.session_folders(self.traces))


@contextmanager
def opened_workspace(folder: Path | None) -> Iterator[Workspace]:
    """Make `folder`, which then stays, or a folder that is gone after the block.

    Raises:
        FolderError: `folder` holds something already, or cannot be made.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="tracebridge-demo-") as temporary:
            yield Workspace(folder=Path(temporary), is_kept=False)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise FolderError(f"{folder}: cannot be made a folder ({error.strerror}); name another one") from None
    if not is_empty:
        raise FolderError(f"{folder}: holds something already; name a folder that is empty or not there yet")
    yield Workspace(folder=folder, is_kept=True)
