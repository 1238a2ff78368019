"""Journals at a backend as tracebridge sends them, and what is restored of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tests.delivery.file_backend import FileBackend, settings_for
from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.delivery.rules import rules_of
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.restore import Restoration, Restorer, Selection
from tracebridge.session_stream import SessionStream
from tracebridge.span import Span

FAR_OFF_NS = 2**62


def write_journal(trace_dir: Path, session_id: str, lines: Iterable[Mapping[str, Any]]) -> Path:
    folder = layout.session_folder(trace_dir, session_id)
    folder.mkdir(parents=True, exist_ok=True)
    path = layout.events_file(folder)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def spans_of(path: Path, policy: Policy = Policy(), fingerprint: str = "") -> list[Span]:  # noqa: B008
    """The spans of a whole journal, as they are sent."""
    stream = SessionStream(path, partial(policies.apply, policy))
    found = [span for step in stream.steps() for span in step.spans] + stream.expire(FAR_OFF_NS)
    return [msgspec.structs.replace(span, fingerprint=fingerprint) for span in found]


class Shelf:
    """A readable backend in one file, into which spans are put as they are."""

    def __init__(self, folder: Path, policy: Policy = Policy()) -> None:  # noqa: B008
        self.backend = FileBackend()
        self.file = folder / "backend.jsonl"
        self.policy = policy
        self.sink: SinkSettings = settings_for(folder, self.backend, self.file, policy).sinks[0]
        self.fingerprint = rules_of(policy, self.sink.capabilities).fingerprint

    def put(self, spans: Sequence[Span]) -> None:
        with self.file.open("ab") as file:
            file.writelines(msgspec.json.encode(span) + b"\n" for span in spans)

    def send(self, path: Path) -> list[Span]:
        """Put the spans of a journal on the shelf."""
        spans = spans_of(path, self.policy, self.fingerprint)
        self.put(spans)
        return spans

    def restore(self, out: Path, capture: Policy = Policy(), **selection: Any) -> Restoration:  # noqa: B008
        skip_existing = selection.pop("skip_existing", False)
        known = {self.fingerprint: self.policy}
        restorer = Restorer(self.sink, out, capture, known.get)
        try:
            return restorer.restore(Selection(**selection), skip_existing=skip_existing)
        finally:
            restorer.close()


def restored_lines(out: Path, session_id: str) -> list[dict[str, Any]]:
    """The JSON objects of a restored journal, read without tracebridge."""
    text = layout.events_file(layout.session_folder(out, session_id)).read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
