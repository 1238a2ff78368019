"""The development backend as one ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp

from tracebridge.devserver import admin, jaeger_api, langfuse_api, tempo_api
from tracebridge.devserver.langfuse_api import Credentials
from tracebridge.devserver.store import Store
from tracebridge.devserver.tempo_api import Tempo
from tracebridge.testing.faults import Faults
from tracebridge.testing.faulty import FaultyApp, RequestCounts


def create_app(
    store: Store,
    credentials: Credentials,
    tempo: Tempo,
    faults: Faults,
    counts: RequestCounts,
    started: Callable[[], None],
) -> ASGIApp:
    """Wire all routes over one store, behind the fault injector; `started` is called once it serves."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        started()
        yield

    routes = [
        *langfuse_api.routes(store, credentials),
        *jaeger_api.routes(store),
        *tempo_api.routes(store, tempo),
        *admin.routes(store, faults, counts),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: langfuse_api.not_found})
    return FaultyApp(app, routes, faults, counts)
