"""The settings of a `langfuse` sink. Imports no vendor package."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from tracebridge.secret import Secret
from tracebridge_otlp.address import is_http_url
from tracebridge_otlp.durations import RequestSeconds, Seconds

Host = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^https?://[^/\s]+",
        description="the address of a LangFuse server, such as https://cloud.langfuse.com",
    ),
]
_SECRET_KEY: Final = "sk-lf-"
"""How the secret keys begin that LangFuse makes; whoever chooses their own may begin them otherwise."""


class LangfuseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a LangFuse project is and how to get in."""

    host: Host
    """Address of the server, without the API's path."""
    public_key: str
    secret_key: Secret
    timeout: RequestSeconds = 20.0
    """Seconds that one request may take."""
    visibility_lag: Seconds = 10.0
    """Seconds after which what was accepted can be read, as a rule; the server stores in the background."""
    ca_file: str = ""
    """A PEM file with the authority that signed the server's certificate, if it is not a public one."""

    def __post_init__(self) -> None:
        """Check what a type cannot say, and fix a relative path: another process may open it, from elsewhere."""
        if not is_http_url(self.host):
            raise ValueError("host: expected http://host:port or https://host:port, without spaces and line breaks")
        if "?" in self.host or "#" in self.host:
            # it is shown, and the API's path has to follow it
            raise ValueError("host: expected an address without parameters")
        if self.public_key.startswith(_SECRET_KEY):
            # public keys are shown, and name the project in the state
            raise ValueError(f"public_key: one that begins with {_SECRET_KEY} is a secret key; public ones are shown")
        if self.ca_file:
            msgspec.structs.force_setattr(self, "ca_file", os.path.abspath(self.ca_file))

    @property
    def base_url(self) -> str:
        """The address without a slash at its end."""
        return self.host.rstrip("/")


ENVIRONMENT: Final[Mapping[str, Sequence[str]]] = {
    "host": ("LANGFUSE_BASE_URL", "LANGFUSE_HOST"),
    "public_key": ("LANGFUSE_PUBLIC_KEY",),
    "secret_key": ("LANGFUSE_SECRET_KEY",),
    "timeout": ("LANGFUSE_TIMEOUT",),
}
"""The variables of LangFuse's own SDK, in its order of precedence."""
