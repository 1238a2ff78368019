"""`BackendUnderTest`: what the author of a sink tells the contract about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec
import pytest

from tracebridge.errors import TracebridgeError
from tracebridge.secret import Secret
from tracebridge.sink import Capabilities, SinkType
from tracebridge.testing.faults import Fault, Faults

SpanId = tuple[str, str]
"""Trace id and span id."""

FaultCase = Literal[
    "busy", "retry_after", "refused", "partial", "too_large", "unauthorized", "slow", "hang", "reset", "read_back"
]
"""What a backend may do. One that cannot, by its protocol, declares so in `BackendUnderTest.unsupported`."""


class ContractError(TracebridgeError, ValueError):
    """The backend under test is described in a way that cannot be tested."""


class BackendUnderTest(msgspec.Struct, frozen=True, kw_only=True):
    """A sink, and the backend that it sends to, which must be empty and without faults when a test begins.

    Faults strike at the backend's own socket: `faults` is what its server asks, as `FaultyServer` and the
    development backend do.
    """

    sink_type: SinkType
    """What the plug-in's entry point names."""
    settings: msgspec.Struct
    """The sink's settings, with a time-out of about a second and, if it can be read, the shortest visibility lag."""
    faults: Faults
    """The live fault plan of the server that the settings lead to."""
    stored: Callable[[], Iterable[SpanId]]
    """Trace id and span id of every copy that the backend holds, asked of the backend itself and not by the sink."""
    timeout_s: float
    """The seconds after which, by these settings, a request is given up."""
    unsupported: Mapping[FaultCase, str] = {}
    """Cases that the backend's protocol cannot express, each with the reason, which the report shows."""

    export_route: str = "POST *"
    """A shell pattern over ``METHOD /path`` of the requests that carry spans."""
    read_route: str = "GET *"
    """The same of the requests that read them back."""
    busy: Fault = Fault(status=503, body="busy")
    """The answer of a backend that has certainly not stored the request and may take it later."""
    refused: Fault = Fault(status=400, body="refused")
    """The answer of a backend that will never take what the request holds."""
    too_large: Fault = Fault(status=413, body="too large")
    """The answer of a backend for which the request is too large."""
    unauthorized: Fault = Fault(status=401, body="unauthorized")
    """The answer of a backend that does not accept the credentials."""

    vendor_packages: tuple[str, ...] = ()
    """Top-level packages that importing the sink type must not load, e.g. `httpx`."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.unsupported) - set(get_args(FaultCase)))
        if unknown:
            raise ContractError(
                f"unsupported: no case is called {', '.join(unknown)}: {', '.join(get_args(FaultCase))}"
            )
        silent = sorted(case for case, reason in self.unsupported.items() if not reason.strip())
        if silent:
            raise ContractError(f"unsupported: say why for {', '.join(silent)}")

    @property
    def capabilities(self) -> Capabilities:
        """What the sink declares with these settings."""
        return self.sink_type.capabilities(self.settings)

    @property
    def keeps_one_copy(self) -> bool:
        """Whether a request of unknown fate must be there once in the end, not only be counted."""
        return self.capabilities.readable or self.capabilities.idempotent

    def require(self, *cases: FaultCase) -> None:
        """End the test as an expected failure, in plain sight, if one of the cases is declared unsupported."""
        for case in cases:
            if case in self.unsupported:
                pytest.xfail(f"declared unsupported: {case}: {self.unsupported[case]}")

    def require_reader(self) -> None:
        """The same if the sink declares that it cannot be read back."""
        if not self.capabilities.readable:
            pytest.xfail("declared unsupported: it has no reader (capabilities.readable is False)")

    def on_export(self, fault: Fault, **changes: Any) -> Fault:
        """The same fault for requests that carry spans."""
        return msgspec.structs.replace(fault, route=self.export_route, **changes)

    def secrets(self) -> list[str]:
        """Every text in the settings that must never be shown."""
        return sorted(filter(None, {secret.reveal() for secret in _secrets_in(self.settings)}))


def _secrets_in(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, msgspec.Struct):
        yield from _secrets_in(msgspec.structs.astuple(value))
    elif isinstance(value, Mapping):
        yield from _secrets_in(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secrets_in(item)
