"""The entry point: what the core needs to know of the adapter before anything of it is opened."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from tracebridge.diagnosis import Check
from tracebridge.errors import MissingExtraError
from tracebridge.sink import Capabilities, Export, Reader, Sink
from tracebridge_langfuse.configuration import ENVIRONMENT, LangfuseSettings
from tracebridge_otlp.secrecy import without_credentials

MAPPING_VERSION: Final = 4
"""Raised with every change of `mapping` that changes what is sent."""

_MAX_REQUEST_BYTES: Final = 4_500_000  # LangFuse Cloud takes 5 MB; the rest is for the resource and the scope


class LangfuseSinkType:
    """The sink type `langfuse`."""

    settings: type[msgspec.Struct] = LangfuseSettings
    environment: Mapping[str, Sequence[str]] = ENVIRONMENT
    extra = "langfuse"

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        """What LangFuse v4 does with spans."""
        from tracebridge_langfuse.losses import LOSSES

        return Capabilities(
            mapping_version=MAPPING_VERSION,
            max_request_bytes=_MAX_REQUEST_BYTES,
            max_request_spans=1_000,
            idempotent=False,  # a span that is sent twice is stored twice
            readable=True,
            visibility_lag_s=_own(settings).visibility_lag,
            losses=LOSSES,
            # https://langfuse.com/docs/administration/billable-units: traces, observations and scores alike, and
            # tracebridge sends no scores
            billable_units=operator.add,
        )

    def endpoint(self, settings: msgspec.Struct) -> str:
        """The server's address, without what may stand before an @ in it, and the project's public key.

        The key belongs to it: another project on the same server holds nothing of what this one was sent.
        """
        own = _own(settings)
        scheme, _, rest = own.base_url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]} as {own.public_key}"

    def trace_url(self, settings: msgspec.Struct, trace_id: str) -> str:
        """The page that finds the trace's project by itself."""
        own = _own(settings)
        return f"{without_credentials(own.base_url)}/trace/{trace_id}"

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        """Open the sink; the package `langfuse` is not needed for sending."""
        try:
            from tracebridge_langfuse.sink import LangfuseSink
        except ImportError as error:
            raise _missing(error) from error
        return LangfuseSink(_own(settings))

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        """Open the reader."""
        try:
            from tracebridge_langfuse.reader import LangfuseReader
        except ImportError as error:
            raise _missing(error) from error
        return LangfuseReader(_own(settings))

    def open_export(self, files: Sequence[Path]) -> Export:
        """Files of LangFuse's blob-storage export."""
        from tracebridge_langfuse.export import LangfuseExport

        return LangfuseExport.open(files)

    def diagnose(self, settings: msgspec.Struct, timeout_s: float) -> Iterator[Check]:
        """What can be told of the server before anything is sent to it."""
        try:
            from tracebridge_langfuse.diagnosis import diagnose
        except ImportError as error:
            raise _missing(error) from error
        return diagnose(_own(settings), timeout_s)


def _own(settings: msgspec.Struct) -> LangfuseSettings:
    return cast(LangfuseSettings, settings)


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"the langfuse sink needs packages that are not installed ({error}): pip install 'tracebridge[langfuse]'"
    )


sink_type: Final = LangfuseSinkType()
