"""Reads spans back through the v2 observations API, with the API client of the `langfuse` package.

Only the generated API client is used: building the package's `Langfuse` object would install a global tracer
provider in the agent's process.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import httpx
import msgspec
import pydantic
from langfuse.api import LangfuseAPI
from langfuse.api.core import ApiError

from tracebridge.errors import BackendError
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_langfuse import names
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.observation import MS, observation_of, span_of
from tracebridge_langfuse.text import plain

_LARGEST_PAGE: Final = 1_000
_SMALLEST_PAGE: Final = 10
_TOO_MUCH_AT_ONCE: Final = frozenset({413, 422, 504})
_UNAUTHORIZED: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_TOO_MANY_REQUESTS: Final = 429
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last that a datetime can say

T = TypeVar("T")


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a LangFuse server says of itself and of the credentials."""

    version: str
    project: str
    organization: str


class LangfuseReader:
    """A `tracebridge.sink.Reader`."""

    def __init__(self, settings: LangfuseSettings) -> None:
        self._place = settings.base_url
        verify = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
        self._http = httpx.Client(timeout=settings.timeout, verify=verify)
        self._credentials = (settings.public_key, settings.secret_key.reveal())
        self._api = LangfuseAPI(
            base_url=settings.base_url,
            username=self._credentials[0],
            password=self._credentials[1],
            timeout=settings.timeout,
            httpx_client=self._http,
        )
        self._has_seen_rows = False

    def read(self, query: Query) -> Iterator[Span]:
        """Yield every stored copy of every span that `query` asks for."""
        wanted = frozenset(query.trace_ids)
        conditions = _conditions(query)
        # a session or a window is one run of pages; single traces without either are asked for one by one
        runs = [conditions] if conditions else [{"trace_id": trace_id} for trace_id in query.trace_ids]
        if not runs:
            raise ValueError("a query needs a session, a window or trace ids")
        fields = names.ID_FIELD_GROUPS if query.ids_only else names.FIELD_GROUPS
        for run in runs:
            for row in self._rows(fields, run, query.enough or _LARGEST_PAGE):
                span = span_of(self._observation(row))
                if _is_wanted(span, query, wanted):
                    yield span

    def check(self) -> ServerInfo:
        """Ask the server for its version and for the project that the credentials belong to.

        Raises:
            BackendError: the server cannot be reached or refuses the credentials.
        """
        health = self._ask("its version", self._api.health.health)
        projects = self._ask("the project of the credentials", self._api.projects.get).data
        if not projects:
            raise BackendError(f"{self._place}: the credentials belong to no project; check the keys")
        project = projects[0]
        return ServerInfo(version=health.version, project=project.name, organization=project.organization.name)

    def close(self) -> None:
        """Release connections."""
        self._http.close()

    def _rows(self, fields: str, conditions: dict[str, Any], enough: int) -> Iterator[dict[str, Any]]:
        """The rows, page by page; a caller for whom a few are enough stops asking, and gets a small page first."""
        cursor: str | None = None
        limit = min(max(enough, _SMALLEST_PAGE), _LARGEST_PAGE)
        while True:
            try:
                page = self._api.observations.get_many(fields=fields, limit=limit, cursor=cursor, **conditions)
            except (ApiError, httpx.HTTPError, ValueError, pydantic.ValidationError) as error:
                if _is_too_much(error) and limit > _SMALLEST_PAGE:
                    limit = max(limit // 4, _SMALLEST_PAGE)
                    continue
                raise self._explained("observations", error) from error
            if not page.data and not self._has_seen_rows:
                self._refuse_legacy_mode()
            self._has_seen_rows = True
            for row in page.data:
                yield dict(row)
            cursor = page.meta.cursor
            if not cursor:
                return

    def _observation(self, row: dict[str, Any]) -> Any:
        try:
            return observation_of(row)
        except ValueError as error:
            raise BackendError(f"{self._place} answered with {error}; is it a LangFuse v4 server?") from error

    def _refuse_legacy_mode(self) -> None:
        """Tell an empty answer from legacy mode's, where the v2 route answers and never has any data."""
        question = {"view": "observations", "metrics": [{"measure": "count", "aggregation": "count"}]}
        window = {"fromTimestamp": "2020-01-01T00:00:00Z", "toTimestamp": "2020-01-02T00:00:00Z"}
        metrics = self._status_of("v2/metrics", query=json.dumps(question | window))
        if metrics == _NOT_FOUND and self._status_of("traces", limit="1") == httpx.codes.OK:
            raise BackendError(
                f"{self._place} runs in the write mode `legacy`, in which nothing can be read through "
                "/api/public/v2/observations: let it run in `events_only` (the default of v4) or `dual`"
            )

    def _status_of(self, route: str, **parameters: str) -> int:
        url = f"{self._place}/api/public/{route}"
        try:
            return self._http.get(url, params=parameters, auth=self._credentials).status_code
        except httpx.HTTPError as error:
            raise self._explained(route, error) from error

    def _ask(self, what: str, question: Callable[[], T]) -> T:
        try:
            return question()
        except (ApiError, httpx.HTTPError, ValueError, pydantic.ValidationError) as error:
            raise self._explained(what, error) from error

    def _explained(self, what: str, error: Exception) -> BackendError:
        """Never with the error's own text where that may hold headers or credentials."""
        asked = f"{self._place} was asked for {what}"
        if not isinstance(error, ApiError):
            words = f"{type(error).__name__}: {error}" if isinstance(error, httpx.HTTPError) else "no LangFuse answer"
            return BackendError(f"{asked}, without success ({words}); check the host and that the server runs")
        said = f"HTTP {error.status_code}: {_words(error.body)}"
        if error.status_code in _UNAUTHORIZED:
            return BackendError(f"{asked} and refuses the credentials ({said}); check public_key and secret_key")
        if error.status_code == _NOT_FOUND:
            return BackendError(
                f"{asked} and has no such route ({said}); reading back needs LangFuse v4 or later: check "
                "the host, and upgrade an older server"
            )
        if error.status_code == _TOO_MANY_REQUESTS:
            return BackendError(f"{asked} and limits the rate ({said}); try again in a minute")
        return BackendError(f"{asked} and answered {said}")


def _conditions(query: Query) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    if query.session_id is not None:
        conditions["session_id"] = plain(query.session_id)
    if query.start_ns is not None:
        conditions["from_start_time"] = _moment(query.start_ns // MS)
    if query.end_ns is not None:
        # exclusive for both; times are stored cut to milliseconds
        conditions["to_start_time"] = _moment(-(-query.end_ns // MS))
    return conditions


def _is_wanted(span: Span, query: Query, trace_ids: frozenset[str]) -> bool:
    if trace_ids and span.trace_id not in trace_ids:
        return False
    if query.session_id is None or query.ids_only or not span.fingerprint:
        return True
    return span.session_id == query.session_id


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(ms, 0), _LATEST_MS))


def _is_too_much(error: Exception) -> bool:
    if isinstance(error, ApiError):
        return error.status_code in _TOO_MUCH_AT_ONCE
    return isinstance(error, httpx.ReadTimeout)


def _words(body: Any) -> str:
    if isinstance(body, dict):
        body = body.get("message") or body.get("error")
    return str(body)[:200]
