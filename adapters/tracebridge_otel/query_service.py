"""`QueryService`: asks a backend's query API over HTTP, for the readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import httpx

from tracebridge.errors import BackendError
from tracebridge_otel.certificates import certificates_of
from tracebridge_otel.configuration import OtelSettings, ReaderSettings
from tracebridge_otlp.answer import shortened
from tracebridge_otlp.http_client import body_of, client_for
from tracebridge_otlp.http_transport import Certificates, tls_context
from tracebridge_otlp.secrecy import Redactor, header_fields, without_credentials
from tracebridge_otlp.untraced import untraced


class QueryService:
    """One backend's query API. What it says of trouble holds no credentials."""

    def __init__(self, backend: str, settings: ReaderSettings, certificates: Certificates) -> None:
        """Ask where the settings say, and call it `backend` in messages; no connection is made yet."""
        headers = {name: value.reveal() for name, value in settings.headers.items()}
        self._backend = backend
        self._base = settings.url.rstrip("/")
        self._redact = Redactor(headers.values(), settings.url)
        self._timeout_s = settings.timeout
        self._client = client_for(
            settings.url,
            verify=tls_context(certificates),
            timeout=settings.timeout,
            headers={"user-agent": "tracebridge", **header_fields(headers)},
        )

    @classmethod
    def open(cls, backend: str, settings: OtelSettings) -> Self:
        """Open the service that the settings' reader names."""
        assert settings.reader is not None, "only called where the capabilities say readable"
        return cls(backend, settings.reader, certificates_of(settings))

    def place(self, path: str) -> str:
        """Where a path is, fit to be shown."""
        return without_credentials(self._base + path)

    def get(self, path: str, parameters: Mapping[str, str], accept: str) -> httpx.Response:
        """Ask once, and return what is answered with 200 or 404.

        Raises:
            BackendError: nobody answers, or with another status.
        """
        try:
            with untraced():
                response = self._asked(path, parameters, accept)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.trouble(path, f"{type(error).__name__}: {error}") from None
        if response.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            raise self.refused(path, response)
        return response

    def _asked(self, path: str, parameters: Mapping[str, str], accept: str) -> httpx.Response:
        asked = self._client.stream("GET", self._base + path, params=parameters, headers={"accept": accept})
        with asked as response:
            body = body_of(response, timeout_s=self._timeout_s)
            kind = [header for header in response.headers.raw if header[0].lower() == b"content-type"]
            return httpx.Response(response.status_code, headers=kind, content=body)

    def refused(self, path: str, response: httpx.Response) -> BackendError:
        """The error for an answer whose status says that it is none."""
        return self.trouble(path, f"HTTP {response.status_code}: {response.text}")

    def trouble(self, path: str, words: str) -> BackendError:
        """The error for what went wrong when `path` was asked for."""
        # masked before it is cut, so that no half of a credential is left at the end
        said = shortened(self._redact(f"{self.place(path)}: {words}"))
        return BackendError(f"{self._backend} cannot be read: {said}")

    def close(self) -> None:
        """Release connections."""
        self._client.close()
