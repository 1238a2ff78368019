"""What an answer to an OTLP/HTTP export means, as a pure function: status, headers and body to `Receipt`.

The line that matters is between RETRY (certainly not stored, so the same bytes may be sent again) and UNKNOWN
(perhaps stored, so the backend is asked first). A status goes under RETRY only if its meaning rules out that
the server kept anything.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from tracebridge.sink import Outcome, Receipt

MAX_BODY_BYTES: Final = 64 * 1024
"""No more than this of an answer's body is looked at."""

_MAX_MESSAGE: Final = 300
_TOO_LARGE_WORDS: Final = re.compile(
    r"too\s+large|too\s+big|too\s+long|larger\s+than|body\s+(?:size\s+)?limit|size\s+limit|exceed\w*\b.{0,60}\b(?:size|limit|bytes)",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")

_OUTCOMES: Final[Mapping[int, Outcome]] = {
    400: Outcome.REJECTED,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.UNAUTHORIZED,
    407: Outcome.UNAUTHORIZED,
    408: Outcome.RETRY,  # the server gave up waiting for the request
    413: Outcome.TOO_LARGE,
    422: Outcome.REJECTED,
    429: Outcome.RETRY,
    501: Outcome.RETRY,  # no such service here
    503: Outcome.RETRY,  # OTLP: the server could not process the request, send it again
    505: Outcome.RETRY,  # the request's form was refused before its content was seen
    511: Outcome.RETRY,  # a captive portal stands in between
}
"""Statuses whose meaning is their own; the others go by their class, see `_outcome_of`."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer as far as its meaning depends on it."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes = b""
    """At most `MAX_BODY_BYTES`."""

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        """Whether the answer says that its body is JSON."""
        return self.media_type == "application/json" or self.media_type.endswith("+json")

    @property
    def is_protobuf(self) -> bool:
        """Whether the answer says that its body is protobuf."""
        return self.media_type in {"application/x-protobuf", "application/protobuf"}


SuccessReader = Callable[[Answer], Receipt]
"""Tells what a 2xx answer means; backends differ in what they put into its body."""


def receipt_of(answer: Answer, *, now_s: float, read_success: SuccessReader) -> Receipt:
    """Tell what an answer means for the request.

    Args:
        answer: The answer.
        now_s: Seconds since the epoch, for a `Retry-After` that is a date.
        read_success: What a 2xx answer means.
    """
    if 200 <= answer.status < 300:
        return read_success(answer)
    message = f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        message += f", redirected to {answer.headers.get('location', 'nowhere')}: check the endpoint"
    elif answer.status in (404, 405):
        message += ": nothing takes traces at this address, check the endpoint"
    said = message_in(answer)
    return Receipt(
        outcome=_outcome_of(answer.status, said),
        retry_after_s=retry_after_s(answer.headers, now_s=now_s),
        message=shortened(f"{message}: {said}" if said else message),
    )


def otlp_success(answer: Answer) -> Receipt:
    """Read a 2xx answer as OTLP has it: an `ExportTraceServiceResponse`, protobuf or JSON, perhaps empty."""
    if answer.is_json:
        return _json_success(answer)
    if answer.is_protobuf or (not answer.body and "html" not in answer.media_type):
        return _protobuf_success(answer)
    return _not_otlp(answer)


def json_success(answer: Answer) -> Receipt:
    """Read a 2xx answer of a backend that answers in JSON of its own, whatever the request's form was."""
    return _json_success(answer) if answer.is_json else _not_otlp(answer)


def partial_success(rejected: int, message: str) -> Receipt:
    """Read OTLP's `partial_success`; one that rejects nothing may still hold a warning."""
    return Receipt(outcome=Outcome.ACCEPTED, rejected=max(rejected, 0), message=shortened(message))


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Read `Retry-After`, in seconds or as a date; None when there is none that can be read."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # the server's own clock is the one that its date goes by
    with contextlib.suppress(ValueError):
        now_s = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    return max(moment.timestamp() - now_s, 0.0)


def message_in(answer: Answer) -> str:
    """What the body of an answer says to people."""
    if answer.is_protobuf:
        return _status_message(answer.body)
    text = answer.body.decode(errors="replace")
    if answer.is_json:
        try:
            value = msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            return text
        return _words_in(value) or text
    return "" if "html" in answer.media_type else text


def shortened(text: str) -> str:
    """Make a text fit for one line of a log."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"


def says_too_large(text: str) -> bool:
    """Whether a refusal is about the request's size."""
    return _TOO_LARGE_WORDS.search(text) is not None


def _outcome_of(status: int, said: str) -> Outcome:
    if status == 400 and says_too_large(said):
        return Outcome.TOO_LARGE
    if status in _OUTCOMES:
        return _OUTCOMES[status]
    # Up to 4xx: not taken, but a wrong address or a gateway is to blame rather than the spans, which must not
    # be thrown away for it. 5xx: something broke after the request had come, perhaps after it was stored.
    return Outcome.RETRY if status < 500 else Outcome.UNKNOWN


def _json_success(answer: Answer) -> Receipt:
    if not answer.body.strip():
        return Receipt(outcome=Outcome.ACCEPTED)
    try:
        value = msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        return _unreadable(answer, f"JSON that cannot be read ({error})")
    partial = value.get("partialSuccess") if isinstance(value, dict) else None
    if not isinstance(partial, dict):
        return Receipt(outcome=Outcome.ACCEPTED)
    try:
        rejected = int(partial.get("rejectedSpans") or 0)
    except (TypeError, ValueError):
        return _unreadable(answer, "a partial success without a count")
    return partial_success(rejected, str(partial.get("errorMessage") or ""))


def _protobuf_success(answer: Answer) -> Receipt:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        response = ExportTraceServiceResponse.FromString(answer.body)
    except DecodeError:
        return _unreadable(answer, "protobuf that cannot be read")
    return partial_success(response.partial_success.rejected_spans, response.partial_success.error_message)


def _not_otlp(answer: Answer) -> Receipt:
    kind = answer.media_type or "no content type"
    if "html" in kind:
        # a login page or a web server's front page: whoever wrote it does not take traces
        return Receipt(
            outcome=Outcome.RETRY,
            message=f"HTTP {answer.status} with a web page ({kind}): no trace endpoint, check the address",
        )
    return _unreadable(answer, f"{kind}, which is no OTLP answer")


def _unreadable(answer: Answer, found: str) -> Receipt:
    return Receipt(outcome=Outcome.UNKNOWN, message=shortened(f"HTTP {answer.status} with {found}"))


def _status_message(body: bytes) -> str:
    """The message of a `google.rpc.Status`, which OTLP/HTTP puts into the body of an error."""
    from google.protobuf.message import DecodeError
    from google.rpc.status_pb2 import Status

    try:
        return str(Status.FromString(body).message)
    except DecodeError:
        return ""


def _words_in(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    found = (_words_in(value.get(key)) for key in ("message", "error", "detail"))
    return ": ".join(dict.fromkeys(words for words in found if words))
