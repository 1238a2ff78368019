"""What a backend's adapter is to tracebridge: a `Sink`, perhaps a `Reader`, and their declared `Capabilities`.

An adapter is found through the entry-point group `tracebridge.sinks`, whose entries are `SinkType` objects.
The core never imports a vendor's package; an adapter imports its own only in `open_sink` and `open_reader`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

import msgspec

from tracebridge.span import Span

ENTRY_POINT_GROUP = "tracebridge.sinks"


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a backend is known not to keep.

    `apply` takes a span to what is left of it after the loss; it is pure and idempotent. Two spans are equal up to
    the loss when they are equal after it was applied to both.
    """

    name: str
    """Short and stable, e.g. `time-in-milliseconds`; reports and configuration use it."""
    words: str
    """One sentence for the person who must decide whether the loss matters."""
    apply: Callable[[Span], Span]
    cuts_content: bool = False
    """Whether content goes that nothing can bring back: `migrate advance` then asks for it to be accepted by name."""
    shows: Callable[[Span], bool] | None = None
    """Whether a span that was read back shows that the loss has struck its content, as a reference in the place of an
    image does; None where a span does not tell, or where only its own times are concerned. `restore` counts by it."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink declares about its backend, so that delivery and validation can adapt to it."""

    mapping_version: int
    """Raised whenever a span would be mapped differently from before; part of the fingerprint of sent spans."""
    max_request_bytes: int
    """The largest request that the backend takes, before compression."""
    max_request_spans: int = 1_000
    """The most spans that one request should carry."""
    idempotent: bool = False
    """Whether sending the same span again leaves one copy of it."""
    readable: bool = False
    """Whether `open_reader` gives a reader."""
    visibility_lag_s: float = 0.0
    """How many seconds may pass, as a rule, between acceptance and the span being readable."""
    hidden_from_search: str = ""
    """What of its spans the backend shows to a query by trace alone, and not to one by session or time: a sentence for
    people, empty where there is no such thing. Whoever knows the traces then asks by them."""
    losses: tuple[Loss, ...] = ()
    as_sent: Callable[[Span, int, Span], Span] | None = None
    """What another `mapping_version` of this sink has sent of a span, where some send less of it than others: so what
    was cut under other settings is no difference. The last is what the backend shows of the span, for where the cut was
    cannot be foretold of every version. None where all of them send all."""
    billable_units: Callable[[int, int], int] | None = None
    """What the operator of such a backend counts so many traces and so many spans as for the bill, if anything."""


class Outcome(Enum):
    """What became of a request, as far as its answer tells."""

    ACCEPTED = "accepted"
    """Taken over by the backend, but for what `Receipt.rejected` names."""
    RETRY = "retry"
    """Not taken, through no fault of its content, and certainly not stored: send the same bytes again later."""
    UNKNOWN = "unknown"
    """Sent, and no answer came that says whether it was taken."""
    REJECTED = "rejected"
    """Refused for its content: sending it again unchanged is useless."""
    TOO_LARGE = "too_large"
    """Refused for its size: send less at once."""
    UNAUTHORIZED = "unauthorized"
    """Refused for the credentials: nothing will be taken until someone corrects them."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request."""

    outcome: Outcome
    rejected: int = 0
    """How many of the request's spans an accepting backend refused (OTLP's partial success)."""
    retry_after_s: float | None = None
    """How long the backend asked to be left alone, in seconds."""
    message: str = ""
    """What the backend said, for people; never holds credentials."""


class Sink(Protocol):
    """Sends spans to one backend.

    `encode` and `join` are pure and MUST be free of I/O: what `join` returns is written down before it is sent and,
    after a crash, sent again byte for byte. `deliver` MUST NOT retry, MUST return within its time-out and reports
    trouble in the receipt: an exception from it is taken as UNKNOWN. One sink is used by one thread at a time, but for
    `deliver`, which several threads may call at once.
    """

    def encode(self, span: Span) -> bytes:
        """Encode one span as a part of a request. It takes a small fraction of a millisecond for a usual span."""
        ...

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Make one request of encoded spans. It does no more than put them together (and compress them)."""
        ...

    def deliver(self, request: bytes) -> Receipt:
        """Send one request and report the answer."""
        ...

    def close(self) -> None:
        """Release connections. Nothing is sent."""
        ...


@runtime_checkable
class CuttingSink(Protocol):
    """What a sink has that cuts content by itself, because its backend takes no more of one value.

    What it leaves of a span is a declared loss of its `Capabilities`.
    """

    def take_cut(self) -> int:
        """How many times `encode` has cut a span since this was asked last."""
        ...


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which spans to read: those of one session, of some traces, or of a time window.

    At least one of the three MUST be given; all that are given hold at once. To a session's spans belong, where the
    backend tells, those that other senders have put into the same traces.
    """

    session_id: str | None = None
    trace_ids: tuple[str, ...] = ()
    start_ns: int | None = None
    """Earliest span start, inclusive, in nanoseconds since the epoch."""
    end_ns: int | None = None
    """Latest span start, exclusive."""
    ids_only: bool = False
    """Whether trace and span ids are all that the caller needs, and session ids where they come for nothing; the other
    fields may then be left empty."""
    enough: int | None = None
    """How many spans are enough for the caller: a reader MAY ask for and yield fewer than there are, not fewer than so
    many."""
    is_patient: bool = True
    """Whether the caller waits where the backend limits how often it may be asked; else the reader SHOULD raise
    `BusyBackendError` instead of waiting."""


class Reader(Protocol):
    """Reads spans back from one backend through its public API.

    It MAY have an attribute `server_computed`, as `ComputingReader` describes it.
    """

    def read(self, query: Query) -> Iterator[Span]:
        """Yield every stored copy of every span that `query` asks for, in no fixed order.

        A span that is stored twice is yielded twice. A span without tracebridge's mark is yielded with an empty
        `fingerprint` and as much of its content as can be told.

        Raises:
            BackendError: the backend cannot be reached, refuses the credentials or answers what cannot be read.
            BusyBackendError: it asks to be read later, and the query is not patient.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@runtime_checkable
class ComputingReader(Protocol):
    """What a reader has whose backend shows values that it computed by itself, as prices, where none were sent."""

    @property
    def server_computed(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """By trace and span id, the fields for which the backend shows such values, of what the latest `read` gave.

        In the spans that are read such a value MUST NOT stand: nothing says what it should be.
        """
        ...


class Export(Protocol):
    """Files that a backend has exported, as spans."""

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What these files are known not to hold: the backend's own losses, and what was left out of the export."""
        ...

    def read(self) -> Iterator[Span]:
        """Yield a span for every row, in memory that does not grow with their number; as `Reader.read` otherwise.

        Raises:
            BackendError: a file cannot be read, or holds what is no such export: names the file and the line.
        """
        ...


class SinkType(Protocol):
    """What an entry point of the group `tracebridge.sinks` names: one kind of sink, not yet opened.

    Its module MUST be cheap to import: no vendor package at import time. It MAY have a method more:
    `open_export(files: Sequence[Path]) -> Export`, which looks at a backend's exported files so that `validate` can
    compare them.
    """

    @property
    def settings(self) -> type[msgspec.Struct]:
        """The record of the sink's own settings; fields are the YAML keys, `Secret` fields are never shown."""
        ...

    @property
    def environment(self) -> Mapping[str, Sequence[str]]:
        """Standard environment variables, in order of precedence, that fill a setting which the file leaves out."""
        ...

    @property
    def extra(self) -> str:
        """The extra of the distribution that brings the sink's packages, e.g. `langfuse`; empty when none is needed."""
        ...

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        """What a sink with these settings declares. It makes no connection and loads no vendor package."""
        ...

    def endpoint(self, settings: msgspec.Struct) -> str:
        """Where the sink sends to, for people, without credentials; two places that share nothing have two names.

        What was delivered is remembered for the sink and its endpoint.
        """
        ...

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        """Open the sink. It makes no connection yet.

        Raises:
            MissingExtraError: the sink's packages are not installed.
        """
        ...

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        """Open the reader; only called when `capabilities(...).readable`.

        Raises:
            MissingExtraError: the sink's packages are not installed.
        """
        ...
