"""`Place`: the folder of one run, the names it may use and the backend it delivers to, as child and parent see it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.durability.ledger import LedgerSettings, LedgerType
from tracebridge.config import Settings, SinkSettings, load
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.registry import Registry
from tracebridge.sink import Capabilities, SinkType
from tracebridge_langfuse.factory import sink_type as langfuse
from tracebridge_otel.factory import sink_type as otel

REQUEST_SPANS = 4
"""How many spans a request may carry: few, so that a short run needs several requests at once."""

Backend = Literal["langfuse", "otel", "ledger"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path
    prefix: str
    """Every session of the run has an id that begins so: no other run on the same backend has."""
    backend: Backend
    url: str = ""
    authority: str = ""
    """A file with one certificate: without it each client reads more than a hundred, call by call."""
    lag_s: float
    """What the sink declares."""
    delivery: Literal["thread", "external"] = "external"

    def to_json(self) -> str:
        return msgspec.json.encode(self, enc_hook=str).decode()

    @classmethod
    def from_json(cls, text: str) -> Place:
        return msgspec.json.decode(text, type=cls, dec_hook=lambda kind, value: kind(value))

    @property
    def trace_dir(self) -> Path:
        return self.folder / "traces"

    @property
    def old(self) -> Path:
        """A folder of traces that are backfilled."""
        return self.folder / "old"

    @property
    def progress(self) -> Path:
        """Gets a byte for each event, once the call that records it has returned."""
        return self.folder / "progress"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def session_folders(self) -> list[Path]:
        """Those of all sessions that have a journal now."""
        return [folder for parent in (self.trace_dir, self.old) for folder in layout.session_folders(parent)]

    @property
    def settings(self) -> Settings:
        section = {"trace_dir": str(self.trace_dir), "delivery": self.delivery, "sinks": self._sinks()}
        settings = load({"agent_trace": section}, {}, sink_types=_SINK_TYPES)
        if self.backend == "ledger":
            return msgspec.structs.replace(settings, sinks=(self._ledger_sink(),))
        return settings

    @property
    def sink(self) -> SinkSettings:
        (sink,) = self.settings.sinks
        return sink

    def _sinks(self) -> Mapping[str, Any]:
        match self.backend:
            case "langfuse":
                keys = {"host": self.url, "public_key": "pk-lf-dev", "secret_key": "sk-lf-dev"}
                return {"langfuse": keys | {"visibility_lag": self.lag_s, "ca_file": self.authority}}
            case "otel":
                reader = {"type": "jaeger", "url": self.url, "visibility_lag": self.lag_s}
                return {"otel": {"endpoint": self.url, "certificate": self.authority, "reader": reader}}
            case "ledger":
                return {}

    def _ledger_sink(self) -> SinkSettings:
        return SinkSettings(
            name="ledger",
            type="ledger",
            enabled=True,
            policy=Policy(),
            settings=LedgerSettings(self.ledger),
            sink_type=_SINK_TYPES.find("ledger"),
        )


class _SmallRequests:
    """A sink type as it is, but for the number of spans in a request."""

    def __init__(self, sink_type: SinkType) -> None:
        self._sink_type = sink_type

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink_type, name)

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        return msgspec.structs.replace(self._sink_type.capabilities(settings), max_request_spans=REQUEST_SPANS)


# asked for by name, so that no run looks through what is installed
_SINK_TYPES = Registry(
    {
        "langfuse": lambda: _SmallRequests(langfuse),
        "otel": lambda: _SmallRequests(otel),
        "ledger": lambda: _SmallRequests(LedgerType()),
    }
)
