"""LangFuse's public API, asked for JSON: waits where waiting helps, and explains what cannot be read."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import httpx
import msgspec

from tracebridge.errors import BackendError, BusyBackendError
from tracebridge.jitter import JITTER
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.rate import RequestRate
from tracebridge_otlp.answer import Answer, error_words, message_in, retry_after_s, shortened
from tracebridge_otlp.http_client import body_of, client_for
from tracebridge_otlp.http_transport import Certificates, tls_context
from tracebridge_otlp.secrecy import Redactor, without_credentials
from tracebridge_otlp.untraced import untraced

API: Final = "/api/public/"

_PATIENCE_S: Final = 150.0
"""How long one question may wait for the server, in all: LangFuse counts requests by the minute."""
_TRIES: Final = 4
"""How often a question is asked that a server in trouble does not answer."""
_FIRST_PAUSE_S: Final = 0.25
_UNSAID_LIMIT_S: Final = 5.0
"""How long to wait after a refusal for the rate that does not say how long."""
_LARGEST_BODY: Final = 64 * 1024 * 1024
"""A larger answer is not read to its end if less can be asked for."""

_TOO_MANY_REQUESTS: Final = 429
_TOO_MUCH: Final = frozenset({413, 422, 500, 502, 504})
"""500 is also what the server says of a page longer than the longest text of its runtime, half a gigabyte."""
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


class RefusedError(BackendError):
    """The server answered, and not what it was asked for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooMuchError(BackendError):
    """The answer is too large or takes too long: ask for less at once."""


class _BrokenOffError(Exception):
    """An answer that is not whole, or not what was sent."""


class _PassingError(Exception):
    """A question that may be answered if it is asked again."""

    def __init__(self, words: str, pause_s: float | None = None, *, is_limited: bool = False) -> None:
        super().__init__(words)
        self.pause_s = pause_s
        self.is_limited = is_limited


class PublicApi:
    """Asks one server, with one project's keys. For one thread at a time."""

    def __init__(
        self,
        settings: LangfuseSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to ask; no connection is made yet.

        Args:
            settings: Where the server is and how to get in.
            clock: Seconds of a clock that never goes back.
            sleep: Waits for so many seconds by `clock`.

        Raises:
            ConfigurationError: the certificate of the authority cannot be loaded.
        """
        self.place = without_credentials(settings.base_url)
        secret = settings.secret_key.reveal()
        self._base_url = settings.base_url
        basic = base64.b64encode(f"{settings.public_key}:{secret}".encode()).decode()
        self._redact = Redactor([secret, basic], settings.base_url)
        self._timeout_s = settings.timeout
        self._clock = clock
        self._sleep = sleep
        self.is_patient = True
        """Whether a rate limit is waited for."""
        self._rate = RequestRate()
        self._http = client_for(
            settings.host,
            verify=tls_context(Certificates(authority=settings.ca_file)),
            timeout=settings.timeout,
            headers={"accept": "application/json", "user-agent": "tracebridge"},
            auth=(settings.public_key, secret),
        )

    def get(
        self,
        route: str,
        decode: Callable[[bytes], T],
        parameters: Mapping[str, str] | None = None,
        *,
        can_be_less: bool = False,
    ) -> T:
        """Ask for what is at `route`, below `API`, and return the answer as `decode` reads it.

        A rate limit is waited for as long as the server says, a server in trouble is asked a few times; both end within
        three minutes.

        Args:
            route: The path below `API`.
            decode: Reads the answer's JSON; raises `msgspec.ValidationError` if it is JSON of another kind, and
                `msgspec.DecodeError` if it is none.
            parameters: The query.
            can_be_less: Whether less can be asked for at once, so that an answer that is too large, takes too long or
                breaks off is worth no second try.

        Raises:
            TooMuchError: less must be asked for, and can be.
            RefusedError: any other answer that is none.
            BackendError: no answer at all.
            BusyBackendError: the server limits the rate, and nobody wants to wait for it.
        """
        give_up_at = self._clock() + _PATIENCE_S
        failures = 0
        while True:
            self._wait_until_allowed(route)
            try:
                return self._asked(route, decode, parameters or {}, can_be_less=can_be_less)
            except _PassingError as error:
                failures += not error.is_limited
                pause_s = _pause_s(error, failures)
                if error.is_limited and not self.is_patient:
                    raise self._busy(route, str(error), pause_s) from None
                if failures >= _TRIES or self._clock() + pause_s > give_up_at:
                    advice = f"; the server limits the rate: try again in {pause_s:.0f} s" if error.is_limited else ""
                    raise self._trouble(route, f"{error}{advice}") from None
                self._sleep(pause_s)

    def refused(self, route: str, words: str, status: int = 200) -> RefusedError:
        """The error for an answer that cannot be used."""
        return RefusedError(self._words(route, words), status)

    def close(self) -> None:
        """Release connections."""
        self._http.close()

    def _wait_until_allowed(self, route: str) -> None:
        wait_s = self._rate.wait_s(self._clock())
        if wait_s <= 0:
            return
        if not self.is_patient:
            raise self._busy(route, "the server's limit of requests a minute is used up", wait_s)
        self._sleep(wait_s)

    def _asked(
        self, route: str, decode: Callable[[bytes], T], parameters: Mapping[str, str], *, can_be_less: bool
    ) -> T:
        self._rate.asked(self._clock())
        try:
            with untraced():
                answer = self._exchange(route, parameters, can_be_less=can_be_less)
            if not 200 <= answer.status < 300:
                raise self._failure(route, answer, can_be_less=can_be_less)
            return self._decoded(route, decode, answer)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise _PassingError(f"no connection ({error_words(error)}); {_CHECK_CONNECTION}") from None
        except (httpx.TransportError, _BrokenOffError) as error:
            # no answer in time, or one that broke off: a smaller one may get through
            if can_be_less:
                raise TooMuchError(self._words(route, error_words(error))) from None
            raise _PassingError(f"no whole answer ({error_words(error)}); {_CHECK_WAY}") from None
        except (httpx.DecodingError, httpx.InvalidURL) as error:
            raise self._trouble(route, f"{error_words(error)}; {_CHECK_HOST}") from None

    def _exchange(self, route: str, parameters: Mapping[str, str], *, can_be_less: bool) -> Answer:
        most_bytes = _LARGEST_BODY if can_be_less else None
        with self._http.stream("GET", f"{self._base_url}{API}{route}", params=dict(parameters)) as response:
            body = body_of(response, timeout_s=self._timeout_s, most_bytes=most_bytes)
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(status=response.status_code, headers=headers, body=body)

    def _failure(self, route: str, answer: Answer, *, can_be_less: bool) -> Exception:
        status = answer.status
        # masked before it is cut, so that no half of a credential is left at the end
        said = f"HTTP {status}{_colon(self._redact(message_in(answer)))}"
        if can_be_less and status in _TOO_MUCH:
            return TooMuchError(self._words(route, said))
        if status in _PASSING:
            is_limited = status == _TOO_MANY_REQUESTS
            if is_limited:
                self._rate.refused(self._clock(), _limit_in(answer.headers))
            return _PassingError(said, retry_after_s(answer.headers, now_s=time.time()), is_limited=is_limited)
        return self.refused(route, f"{said}{_ADVICE.get(status, '')}{_moved_to(answer)}", status)

    def _decoded(self, route: str, decode: Callable[[bytes], T], answer: Answer) -> T:
        body = answer.body.strip()
        if answer.is_web_page:
            raise self.refused(route, f"the answer is a web page; {_CHECK_HOST}")
        if body and not body.startswith((b"{", b"[")):
            raise self.refused(route, f"the answer is no JSON; {_CHECK_HOST}")
        try:
            return decode(body)
        except msgspec.ValidationError as error:
            raise self.refused(route, f"no LangFuse answer ({error}); {_CHECK_HOST}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise _BrokenOffError(f"JSON that breaks off or is damaged: {error}") from None

    def _trouble(self, route: str, words: str) -> BackendError:
        return BackendError(self._words(route, words))

    def _busy(self, route: str, words: str, wait_s: float) -> BusyBackendError:
        return BusyBackendError(self._words(route, f"{words}; it is asked again later"), wait_s)

    def _words(self, route: str, words: str) -> str:
        return self._redact(f"{self.place}{API}{route} cannot be read: {shortened(words)}")


_CHECK_HOST: Final = "check that `host` is the address of a LangFuse server, and of nothing in front of it"
_CHECK_CONNECTION: Final = "check `host`, that the server runs, and `ca_file` if its authority is your own"
_CHECK_WAY: Final = "check the server and what stands before it, or raise `timeout`"

_ADVICE: Final[Mapping[int, str]] = {
    401: "; check public_key and secret_key, and that they belong to this host",
    403: "; check public_key and secret_key, and what they allow",
}


def _pause_s(error: _PassingError, failures: int) -> float:
    least_s = _UNSAID_LIMIT_S if error.is_limited else _FIRST_PAUSE_S * 2.0 ** (failures - 1)
    asked_s = least_s if error.pause_s is None else max(error.pause_s, _FIRST_PAUSE_S)
    # those who were refused together should not come back together
    return asked_s * JITTER.uniform(1.0, 1.1)


def _colon(words: str) -> str:
    return f": {shortened(words)[:200]}" if words else ""


def _limit_in(headers: Mapping[str, str]) -> int | None:
    text = headers.get("x-ratelimit-limit", "").strip()
    return int(text) if re.fullmatch(r"[1-9]\d{0,8}", text) else None


def _moved_to(answer: Answer) -> str:
    place = answer.headers.get("location", "")
    if not 300 <= answer.status < 400 or not place:
        return ""
    return f"; it points to {without_credentials(place)}: set `host` to the address that answers itself"
