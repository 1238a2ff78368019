"""A sink type for the tests of the configuration: it has every form of setting, and sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

import msgspec

from tracebridge.errors import MissingExtraError
from tracebridge.registry import Registry
from tracebridge.secret import Secret
from tracebridge.sink import Capabilities, Reader, Sink


class DiskReader(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="disk"):
    folder: str


class WebReader(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="web"):
    url: str
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "http://127.0.0.1:3000"
    key: Secret
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    batch: Annotated[int, msgspec.Meta(ge=1)] = 100
    verify: bool = True
    headers: dict[str, Secret] = {}
    attributes: dict[str, str] = {}
    regions: tuple[str, ...] = ()
    reader: DiskReader | WebReader | None = None

    def __post_init__(self) -> None:
        if self.protocol == "grpc" and not self.verify:
            raise ValueError(f"protocol grpc always verifies, also {self.host!r}: `verify` must be true")


class Collector:
    """Implements `tracebridge.sink.SinkType`."""

    settings: type[msgspec.Struct] = CollectorSettings
    environment: Mapping[str, Sequence[str]] = {
        "host": ("COLLECTOR_TRACES_HOST", "COLLECTOR_HOST"),
        "key": ("COLLECTOR_KEY",),
        "timeout": ("COLLECTOR_TIMEOUT",),
        "attributes": ("COLLECTOR_ATTRIBUTES",),
        "headers": ("COLLECTOR_HEADERS",),
        "regions": ("COLLECTOR_REGIONS",),
    }
    extra = "collector"

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        return Capabilities(mapping_version=1, max_request_bytes=1_000_000)

    def endpoint(self, settings: msgspec.Struct) -> str:
        return cast("CollectorSettings", settings).host

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        raise MissingExtraError("install tracebridge[collector]")

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        raise MissingExtraError("install tracebridge[collector]")


COLLECTOR = Collector()


def registry() -> Registry:
    return Registry({"collector": lambda: COLLECTOR})
