"""Reads spans back through the v2 observations API.

It speaks to the server itself. The `langfuse` package would bring a tracer provider, versions of OpenTelemetry that the
agent may not have, and models that refuse a whole page for one value that they do not know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from tracebridge.errors import BackendError
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_langfuse import names
from tracebridge_langfuse.api import PublicApi, RefusedError
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.inexact import EARLIEST_NS, LATEST_NS
from tracebridge_langfuse.observation import MS, milliseconds_text, observation_of, server_computed, span_of
from tracebridge_langfuse.paging import LARGEST_PAGE, PageSize, rows
from tracebridge_langfuse.rows import Page, Row, page_of
from tracebridge_langfuse.server_mode import health, missing_route, refuse_legacy_mode, write_mode
from tracebridge_langfuse.text import REPLACEMENT, plain
from tracebridge_otlp.address import has_room_in_url

_ROUTE: Final = "v2/observations"
_NOT_FOUND: Final = 404
_BEGINNING: Final = 300
"""So many characters have room in a URL in any script."""
_MODE_IS_KNOWN_FOR_S: Final = 60.0
"""A server is switched to another write mode by starting it anew, which takes about as long."""


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a LangFuse server says of itself and of the credentials."""

    version: str
    project: str
    organization: str
    write_mode: str = ""
    """`events_only`, `dual` or `legacy`; see `server_mode`."""


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Project(msgspec.Struct, frozen=True):
    name: str
    organization: _Named


class _Projects(msgspec.Struct, frozen=True):
    data: list[_Project]


class LangfuseReader:
    """A `tracebridge.sink.Reader`."""

    def __init__(
        self,
        settings: LangfuseSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to read; no connection is made yet. `clock` and `sleep` are for waits that the server asks for.

        Raises:
            ConfigurationError: the certificate of the authority cannot be loaded.
        """
        self._api = PublicApi(settings, clock=clock, sleep=sleep)
        self.server_computed: dict[tuple[str, str], tuple[str, ...]] = {}
        """Of what was read last, the fields that the server filled by itself: it counts tokens and knows prices."""
        self._clock = clock
        self._mode_known_until: float | None = None

    def read(self, query: Query) -> Iterator[Span]:
        """Yield every stored copy of every span that `query` asks for."""
        self._api.is_patient = query.is_patient
        self.server_computed = {}
        traces = frozenset(query.trace_ids)
        is_any_replaced = False
        for row in self._found(query):
            if query.ids_only and query.session_id is None and REPLACEMENT in (row.session_id or ""):
                is_any_replaced = True
            else:
                yield from self._wanted(row, query, traces)
        if is_any_replaced:
            # what the id was stands in the metadata; asked for together, as there may be many
            whole = msgspec.structs.replace(query, ids_only=False)
            for conditions in _runs(whole):
                for row in self._rows({**conditions, "filter": _filter("contains", REPLACEMENT)}, whole):
                    yield from self._wanted(row, query, traces)

    def check(self) -> ServerInfo:
        """Ask the server for its version, its write mode and the project that the credentials belong to.

        Raises:
            BackendError: the server cannot be reached or refuses the credentials.
        """
        version = health(self._api).version
        projects = self._api.get("projects", msgspec.json.Decoder(_Projects).decode).data
        if not projects:
            raise BackendError(f"{self._api.place}: the credentials belong to no project; check the keys")
        project = projects[0]
        return ServerInfo(
            version=version,
            project=project.name,
            organization=project.organization.name,
            write_mode=write_mode(self._api),
        )

    def close(self) -> None:
        """Release connections."""
        self._api.close()

    def _found(self, query: Query) -> Iterator[Row]:
        long_id = _long_session_id(query)
        for conditions in _runs(query):
            for row in self._rows(conditions, query):
                if long_id is None or row.session_id == long_id:
                    yield row

    def _wanted(self, row: Row, query: Query, traces: frozenset[str]) -> Iterator[Span]:
        """The span of a row, if the query asks for it."""
        observation = observation_of(row.fields())
        span = span_of(observation)
        if _is_wanted(span, query, traces):
            if computed := server_computed(observation, span):
                self.server_computed[span.trace_id, span.span_id] = computed
            yield span

    def _rows(self, conditions: Mapping[str, str], query: Query) -> Iterator[Row]:
        """All rows; a caller for whom a few are enough stops asking, and gets a small page first."""
        fields = names.ID_FIELD_GROUPS if query.ids_only else names.FIELD_GROUPS
        size = PageSize(query.enough or LARGEST_PAGE)
        found = rows(self._page, {"fields": fields, **conditions}, size)
        first = next(found, None)
        if first is None:
            self._refuse_legacy_mode()
            return
        yield first
        yield from found

    def _page(self, parameters: Mapping[str, str], can_be_less: bool) -> Page:
        try:
            return self._api.get(_ROUTE, page_of, parameters, can_be_less=can_be_less)
        except RefusedError as error:
            if error.status != _NOT_FOUND:
                raise
            raise missing_route(self._api, error) from None

    def _refuse_legacy_mode(self) -> None:
        now = self._clock()
        if self._mode_known_until is None or now >= self._mode_known_until:
            refuse_legacy_mode(self._api)
            self._mode_known_until = now + _MODE_IS_KNOWN_FOR_S


def _runs(query: Query) -> list[dict[str, str]]:
    """What to ask for, each a run of pages: a session or a window at once, traces without either one by one."""
    conditions = _conditions(query)
    traces = tuple(dict.fromkeys(query.trace_ids))
    if not conditions and not traces:
        raise ValueError("a query needs a session, a window or trace ids")
    if conditions and len(traces) != 1:
        return [conditions]
    return [{**conditions, "traceId": trace_id} for trace_id in traces]


def _conditions(query: Query) -> dict[str, str]:
    conditions: dict[str, str] = {}
    long_id = _long_session_id(query)
    if long_id is not None:
        conditions["filter"] = _filter("starts with", long_id[:_BEGINNING])
    elif query.session_id is not None:
        conditions["sessionId"] = plain(query.session_id)
    # a time that cannot be sent is stored as the nearest that can
    if query.start_ns is not None:
        conditions["fromStartTime"] = milliseconds_text(min(max(query.start_ns, 0), LATEST_NS) // MS)
    if query.end_ns is not None:
        # exclusive for both; times are stored cut to milliseconds
        end_ns = min(max(query.end_ns, EARLIEST_NS + 1), LATEST_NS + 1)
        conditions["toStartTime"] = milliseconds_text(-(-end_ns // MS))
    return conditions


def _filter(operator: str, value: str) -> str:
    """The sessions by what stands in their ids."""
    condition = {"type": "string", "column": "sessionId", "operator": operator, "value": value}
    return json.dumps([condition], ensure_ascii=False)


def _long_session_id(query: Query) -> str | None:
    """The session's id, as the server has it, if a URL has room for its beginning only."""
    if query.session_id is None:
        return None
    session_id = plain(query.session_id)
    return None if has_room_in_url(session_id) else session_id


def _is_wanted(span: Span, query: Query, trace_ids: frozenset[str]) -> bool:
    if trace_ids and span.trace_id not in trace_ids:
        return False
    if query.session_id is None or query.ids_only or not span.fingerprint:
        return True
    return span.session_id == query.session_id
