"""The one fault injector: which request meets which fault.

Deciding is here and knows no transport; applying is the server's job. For one plan and one order of
requests the decisions are always the same, also where a fault strikes by probability.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from tracebridge.errors import TracebridgeError


class FaultError(TracebridgeError, ValueError):
    """A fault is described in a way that no request could meet or no server could apply."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What happens to a request, and to which requests.

    Several effects may be combined in one fault, e.g. latency and a status.
    """

    # Which requests.
    route: str = "*"
    """Shell pattern over ``METHOD /path``; gRPC calls are ``GRPC /package.Service/Method``."""
    body_contains: str = ""
    """Only requests whose body, uncompressed, holds this text: how a server chokes on one span of many."""
    over_bytes: int | None = None
    """Only requests whose body, uncompressed, is larger than so many bytes: a server's limit."""
    first: int | None = None
    """Only the first N requests on the route."""
    every: int | None = None
    """Only every Nth request on the route: the Nth, the 2Nth, ..."""
    probability: float | None = None
    """Only this share of the requests, drawn from ``seed`` and the request's number."""
    seed: int = 0
    times: int | None = None
    """At most so many requests; afterwards the fault is spent."""

    # What happens.
    latency_s: float = 0.0
    """The answer waits so long, before anything is stored."""
    visibility_lag_s: float = 0.0
    """What the request stores becomes readable so much later."""
    in_order: bool = False
    """With a lag: whatever is stored later becomes readable later too, as behind a queue."""
    status: int | None = None
    """Answer with this error status and store nothing."""
    body: str = ""
    """The body of that error answer."""
    headers: dict[str, str] = {}
    """Headers of that error answer, e.g. Retry-After."""
    drop: bool = False
    """Accept the request and store nothing."""
    duplicate: bool = False
    """Store what the request holds twice."""
    reject: int = 0
    """Refuse so many of the request's spans and take the others: a partial success. Only OTLP can say so."""
    partial: bool = False
    """Show a part of what was asked for, and say that it is one. Only Tempo's API can say so."""
    truncate: bool = False
    """Close the connection in the middle of the declared length of the answer."""
    reset: Literal["before", "after"] | None = None
    """Reset the connection before or after storing, without an answer."""
    hang: bool = False
    """Hold the request until `Faults.release`; only then do the other effects follow."""

    def __post_init__(self) -> None:
        for name in ("first", "every", "times"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise FaultError(f"fault for {self.route!r}: {name} is {number}, must be at least 1")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise FaultError(f"fault for {self.route!r}: probability is {self.probability}, must be in 0..1")
        if self.over_bytes is not None and self.over_bytes < 0:
            raise FaultError(f"fault for {self.route!r}: over_bytes is {self.over_bytes}, must be at least 0")
        if self.reject < 0:
            raise FaultError(f"fault for {self.route!r}: reject is {self.reject}, must be at least 0")
        if self.latency_s < 0 or self.visibility_lag_s < 0:
            raise FaultError(f"fault for {self.route!r}: times to wait cannot be negative")
        if self.status is not None and not 400 <= self.status <= 599:
            raise FaultError(f"fault for {self.route!r}: status is {self.status}, must be in 400..599")

    @property
    def looks_into_bodies(self) -> bool:
        """Whether it depends on a request's body whether it is struck."""
        return bool(self.body_contains) or self.over_bytes is not None

    def matches(self, route: str, body: bytes = b"") -> bool:
        """Whether requests on this route and with this body are the fault's business at all."""
        if not fnmatchcase(route, self.route):
            return False
        if self.over_bytes is not None and len(body) <= self.over_bytes:
            return False
        return not self.body_contains or self.body_contains.encode() in body

    def strikes(self, number: int, struck: int) -> bool:
        """Whether it strikes request `number` (from 1) on its route, having struck `struck` before."""
        if self.times is not None and struck >= self.times:
            return False
        if self.first is not None and number > self.first:
            return False
        if self.every is not None and number % self.every:
            return False
        if self.probability is None:
            return True
        return random.Random(f"{self.seed}:{self.route}:{number}").random() < self.probability


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of faults as JSON: ``{"faults": [{"route": ..., "status": 503, "times": 2}]}``."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def from_json(cls, text: bytes | str) -> FaultPlan:
        """Read a plan; a `FaultError` says what is wrong with it and where."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FaultError(f"not a fault plan: {error}") from error

    def to_json(self) -> bytes:
        """The plan as JSON, defaults left out."""
        return msgspec.json.encode(self)


class Faults:
    """The live fault plan of a server. Every method may be called from any thread."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._held: list[Future[None]] = []
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        self._struck: list[int] = []
        self.add(*faults)

    @property
    def plan(self) -> FaultPlan:
        """The faults that are in force."""
        with self._lock:
            return FaultPlan(faults=tuple(self._faults))

    @property
    def looks_into_bodies(self) -> bool:
        """Whether any fault in force depends on what a request holds, so that a server must read it first."""
        with self._lock:
            return any(fault.looks_into_bodies for fault in self._faults)

    @property
    def struck(self) -> tuple[int, ...]:
        """How many requests each fault of the plan has struck."""
        with self._lock:
            return tuple(self._struck)

    def add(self, *faults: Fault) -> None:
        """Append faults; the counts of those already there stay."""
        with self._lock:
            for fault in faults:
                self._faults.append(fault)
                self._seen.append(0)
                self._struck.append(0)

    def replace(self, plan: FaultPlan) -> None:
        """Put another plan in force, counting from the start; held requests go on."""
        with self._lock:
            self._faults = list(plan.faults)
            self._seen = [0] * len(plan.faults)
            self._struck = [0] * len(plan.faults)
        self.release()

    def clear(self) -> None:
        """No more faults; held requests go on."""
        self.replace(FaultPlan())

    def decide(self, route: str, body: bytes = b"") -> Fault | None:
        """Count a request on ``METHOD /path`` and return the first fault that strikes it, if any.

        A fault counts every request that it matches, whether or not an earlier fault struck it. `body` is the
        request's, uncompressed; it may be left out while nothing `looks_into_bodies`.
        """
        decided = None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not fault.matches(route, body):
                    continue
                self._seen[index] += 1
                if decided is None and fault.strikes(self._seen[index], self._struck[index]):
                    self._struck[index] += 1
                    decided = fault
        return decided

    def hold(self) -> Future[None]:
        """A future that is done at the next `release`: what a hanging request waits for."""
        future: Future[None] = Future()
        with self._lock:
            self._held.append(future)
        return future

    @property
    def held(self) -> int:
        """How many requests hang now."""
        with self._lock:
            return sum(not future.done() for future in self._held)

    def release(self) -> None:
        """Let every hanging request go on."""
        with self._lock:
            held, self._held = self._held, []
        for future in held:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
