"""The configuration: one YAML section, `agent_trace`, read into typed settings."""

from tracebridge.config.effective import reveal, show
from tracebridge.config.loader import DEFAULT_FILE, PATH_VARIABLE, Source, examine, load, locate
from tracebridge.config.mistake import Mistake
from tracebridge.config.settings import Delivery, Demands, Settings, SinkSettings, TraceScope

__all__ = [
    "DEFAULT_FILE",
    "PATH_VARIABLE",
    "Delivery",
    "Demands",
    "Mistake",
    "Settings",
    "SinkSettings",
    "Source",
    "TraceScope",
    "examine",
    "load",
    "locate",
    "reveal",
    "show",
]
