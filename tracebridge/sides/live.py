"""A live backend as a side: everything that a sink's reader shows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tracebridge.config import SinkSettings
from tracebridge.diagnosis import is_probe
from tracebridge.errors import ConfigurationError
from tracebridge.sides.side import Notes, Side
from tracebridge.sink import Query
from tracebridge.span import Span


def live_side(name: str, sink: SinkSettings) -> Side:
    """What the sink's backend shows, but for the probes of `tracebridge doctor`.

    Raises:
        ConfigurationError: the sink cannot be read back.
    """
    if sink.sink_type is None or sink.settings is None:
        raise ConfigurationError(f"{name}: cannot be read: {sink.defect or 'its settings are not complete'}")
    if not sink.capabilities.readable:
        raise ConfigurationError(
            f"{name}: cannot be read back, so it cannot be a side; an OpenTelemetry sink needs `reader:`"
        )
    return Side(name=name, read=partial(_spans, sink), losses=sink.capabilities.losses)


def _spans(sink: SinkSettings, notes: Notes) -> Iterator[Span]:
    if sink.capabilities.hidden_from_search:
        notes.could_not_read(f"{sink.name}: {sink.capabilities.hidden_from_search} Such spans are not compared.")
    reader = sink.open_reader()
    try:
        # clocks are not all the same: to no end, or what seems to begin after now would be missing
        for span in reader.read(Query(start_ns=0)):
            if not is_probe(span.session_id):
                yield span
    finally:
        reader.close()
