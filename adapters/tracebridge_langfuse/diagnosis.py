"""What `tracebridge doctor` can tell of a LangFuse server before anything is sent to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
import msgspec

from tracebridge.diagnosis import Check
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.server_mode import METRICS_QUERY
from tracebridge_otlp.answer import Answer, shortened
from tracebridge_otlp.http_client import client_for
from tracebridge_otlp.http_transport import Certificates, tls_context
from tracebridge_otlp.reachability import Exchange, ask, clock_check, reach, said, silence
from tracebridge_otlp.secrecy import Redactor

_OLDEST_MAJOR: Final = 4
_API: Final = "/api/public/"
_AFTER_SERVER: Final = ("clock", "credentials", "write mode")


def diagnose(settings: LangfuseSettings, timeout_s: float) -> Iterator[Check]:
    """Yield what is found, the nearest first; see `tracebridge.diagnosis.Diagnostic`."""
    context = tls_context(Certificates(authority=settings.ca_file))
    is_reached = True
    for check in reach(settings.base_url, context, timeout_s, authority="ca_file"):
        is_reached = is_reached and check.status != "fail"
        yield check
    if not is_reached:
        yield from _skipped("server", *_AFTER_SERVER)
        return
    timeout = min(settings.timeout, timeout_s)
    with client_for(settings.host, verify=context, timeout=timeout) as client:
        yield from _Server(settings, client, timeout).checks()


class _Server:
    """A server that can be connected to."""

    def __init__(self, settings: LangfuseSettings, client: httpx.Client, timeout_s: float) -> None:
        self._settings = settings
        self._client = client
        self._timeout_s = timeout_s
        secret = settings.secret_key.reveal()
        self._keys = (settings.public_key, secret)
        self._redact = Redactor([secret], settings.base_url)

    def checks(self) -> Iterator[Check]:
        health = self._ask("health", with_keys=False)
        server = self._server(health)
        yield server
        if health.answer is None or _version_in(health.answer) is None:
            yield from _skipped(*_AFTER_SERVER)
            return
        yield clock_check(health)
        credentials = self._credentials()
        yield credentials
        if credentials.status == "fail":
            yield from _skipped("write mode")
            return
        yield self._write_mode()

    def _server(self, health: Exchange) -> Check:
        answer = health.answer
        if answer is None:
            found, remedy = silence(health, self._settings.base_url, self._timeout_s)
            return Check(name="server", status="fail", found=found, remedy=remedy)
        version = _version_in(answer)
        if version is None:
            return self._no_langfuse(answer)
        if (major := _major(version)) is None:
            words = f"LangFuse says that it has version {version!r}, which is none that can be compared"
            return Check(name="server", status="warn", found=words, remedy="check that it is version 4 or later")
        if major < _OLDEST_MAJOR:
            return Check(
                name="server",
                status="fail",
                found=f"LangFuse {version}: before version 4 nothing can be read back the way tracebridge does",
                remedy="upgrade the server to version 4",
            )
        if answer.status != httpx.codes.OK:
            words = f"LangFuse {version} says that it is not well: {self._said(answer)}"
            return Check(name="server", status="fail", found=words, remedy="look at the server's log")
        return Check(name="server", status="ok", found=f"LangFuse {version}")

    def _no_langfuse(self, answer: Answer) -> Check:
        if 300 <= answer.status < 400:
            to = shortened(answer.headers.get("location", "nowhere"))
            found, remedy = f"it redirects to {to}", "write the address that it redirects to, or log in to the proxy"
        elif answer.status == httpx.codes.NOT_FOUND:
            found = f"there is nothing at {self._settings.base_url}{_API}health (HTTP 404)"
            remedy = "write the server's address without the API's path in `host`, and with its base path if it has one"
        elif answer.is_web_page:
            found = f"HTTP {answer.status} with a web page: a login page, or another server"
            remedy = "check `host`; if a proxy asks for a login, let /api/public/ through"
        else:
            found = f"it does not answer as LangFuse does: {self._said(answer)}"
            remedy = "check `host`"
        return Check(name="server", status="fail", found=found, remedy=remedy)

    def _credentials(self) -> Check:
        answered = self._ask("projects")
        answer = answered.answer
        if answer is None:
            return Check(name="credentials", status="fail", found=answered.trouble, remedy="try again")
        if answer.status in (401, 403):
            return Check(
                name="credentials",
                status="fail",
                found=f"the keys are refused: {self._said(answer)}",
                remedy="check that public_key and secret_key are a pair, of a project on this server: keys of another "
                "region or another server are refused",
            )
        if answer.status != httpx.codes.OK:
            return _passing("credentials", self._said(answer), answer)
        projects = _object_in(answer).get("data")
        match projects:
            case [{"name": str(name), **rest}, *_]:
                organization = rest.get("organization")
                of = organization.get("name") if isinstance(organization, dict) else None
                return Check(name="credentials", status="ok", found=f"project {name!r}" + (f" of {of!r}" if of else ""))
        return Check(
            name="credentials",
            status="fail",
            found="the keys belong to no project",
            remedy="take the keys from the settings of a project",
        )

    def _write_mode(self) -> Check:
        observations = self._ask("v2/observations", limit="1").answer
        if observations is None:
            return _not_told("the API for reading does not answer")
        if observations.status == httpx.codes.NOT_FOUND:
            return Check(
                name="write mode",
                status="fail",
                found="there is no /api/public/v2/observations: nothing can be read back",
                remedy="upgrade the server to version 4",
            )
        if observations.status != httpx.codes.OK:
            return _passing("write mode", self._said(observations), observations)
        traces = self._ask("traces", limit="1").answer
        if traces is None or traces.status not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            return _not_told("the route that tells it does not answer as expected")
        if traces.status == httpx.codes.NOT_FOUND:
            return Check(name="write mode", status="ok", found="events_only, the default of version 4")
        metrics = self._ask("v2/metrics", query=METRICS_QUERY).answer
        if metrics is not None and metrics.status == httpx.codes.NOT_FOUND:
            return Check(
                name="write mode",
                status="fail",
                found="legacy: what is sent cannot be read back",
                remedy="set LANGFUSE_MIGRATION_V4_WRITE_MODE to events_only or dual, on the web and the worker",
            )
        if metrics is not None and metrics.status == httpx.codes.OK:
            return Check(name="write mode", status="ok", found="dual: what is sent can be read back")
        return _not_told("the route that tells it does not answer as expected")

    def _ask(self, route: str, *, with_keys: bool = True, **parameters: str) -> Exchange:
        # an `auth` of None would let httpx look for a password in the user's .netrc
        auth: dict[str, Any] = {"auth": self._keys} if with_keys else {"auth": _without_keys}
        url = f"{self._settings.base_url}{_API}{route}"
        return ask(self._client, url, self._redact, params=parameters, **auth)

    def _said(self, answer: Answer) -> str:
        return said(answer, self._redact)


def _without_keys(request: httpx.Request) -> httpx.Request:
    return request


def _skipped(*names: str) -> Iterator[Check]:
    for name in names:
        yield Check(name=name, status="skip", found="not looked at, because something before it failed")


def _not_told(words: str) -> Check:
    return Check(name="write mode", status="skip", found=f"it cannot be told: {words}")


def _passing(name: str, said: str, answer: Answer) -> Check:
    if answer.status == httpx.codes.TOO_MANY_REQUESTS:
        return Check(name=name, status="warn", found=f"the rate is limited ({said})", remedy="try again in a minute")
    return Check(name=name, status="fail", found=said, remedy="look at the server's log, and try again")


def _version_in(answer: Answer) -> str | None:
    version = _object_in(answer).get("version")
    return version if isinstance(version, str) else None


def _object_in(answer: Answer) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _major(version: str) -> int | None:
    found = re.match(r"v?(\d{1,6})\b", version)
    return int(found[1]) if found else None
