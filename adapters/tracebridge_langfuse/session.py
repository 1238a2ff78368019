"""What a span says of its session: the same on all spans of a run, and so mapped once."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from tracebridge.span import Span
from tracebridge_langfuse import names
from tracebridge_langfuse.served import served_environment
from tracebridge_langfuse.text import is_plain, plain
from tracebridge_otlp.wire import Attributes


class SessionAttributes(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of a session; shared by spans, so they MUST NOT be changed."""

    attributes: Attributes
    is_ordinary: bool
    """Whether they are known to give the session's values back."""


def session_of(span: Span) -> SessionAttributes:
    """The session of `span`."""
    return _session(span.session_id, span.user_id, span.agent_name, span.environment, span.release, span.tags)


@lru_cache(maxsize=256)
def _session(
    session_id: str, user_id: str, agent_name: str, environment: str, release: str, tags: tuple[str, ...]
) -> SessionAttributes:
    attributes: Attributes = {
        names.SESSION: plain(session_id),
        names.USER: plain(user_id),
        names.TRACE_NAME: plain(agent_name) or names.DEFAULT_TRACE_NAME,
        names.TAGS: [plain(tag) for tag in tags],
        names.ENVIRONMENT: plain(environment),
        names.RELEASE: plain(release),
    }
    return SessionAttributes(
        attributes={name: value for name, value in attributes.items() if value},
        is_ordinary=is_plain("".join((session_id, user_id, agent_name, release, *tags)))
        and agent_name != names.DEFAULT_TRACE_NAME
        and environment != names.DEFAULT_ENVIRONMENT
        and (environment == "" or served_environment(environment) == environment)
        and list(tags) == sorted({*tags} - {""}),
    )
