"""What an answer to an OTLP/HTTP export means, as a pure function: status, headers and body to `Receipt`.

The line that matters is between RETRY (certainly not stored, so the same bytes may be sent again) and UNKNOWN
(perhaps stored, so the backend is asked first). A status goes under RETRY only if its meaning rules out that
the server kept anything.
"""

from __future__ import annotations

import codecs
import email.utils
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from tracebridge.line import one_line
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.secrecy import CUT

MAX_BODY_BYTES: Final = 1024 * 1024
"""No more than this of an answer's body is looked at. A thousand spans, each answered for on its own, need less."""

_MAX_MESSAGE: Final = 300
_TOO_LARGE_WORDS: Final = re.compile(
    r"too\s+large|too\s+big|too\s+long|larger\s+than|body\s+(?:size\s+)?limit|size\s+limit|exceed\w*\b.{0,60}\b(?:size|limit|bytes)",
    re.IGNORECASE | re.DOTALL,
)
_KEY_TOO_LARGE: Final = re.compile(r"^Key with size \d+ exceeded \d+ limit")
"""How Jaeger, which makes a key of each attribute for Badger, refuses one that is too long: for ever, yet with 503."""
_WEB_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.{0,1000}?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_DEEPEST_WORDS: Final = 4

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
    # a proxy that never got through to the server: refused, no route, and two failures of TLS
    521: Outcome.RETRY,
    523: Outcome.RETRY,
    525: Outcome.RETRY,
    526: Outcome.RETRY,
}
"""Statuses whose meaning is their own; the others go by their class, see `outcome_of_status`."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer as far as its meaning depends on it."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes = b""
    """What there was of it up to `MAX_BODY_BYTES`; longer if there was more."""

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

    @property
    def is_web_page(self) -> bool:
        """Whether a browser was meant to show it, whatever it says that it is."""
        return "html" in self.media_type or _WEB_PAGE.match(self.body) is not None


SuccessReader = Callable[[Answer], Receipt]
"""Tells what a 2xx answer means; backends differ in what they put into its body."""


def receipt_of(answer: Answer, *, now_s: float, read_success: SuccessReader) -> Receipt:
    """Tell what an answer means for the request.

    Args:
        answer: The answer.
        now_s: Seconds since the epoch, for a `Retry-After` that is a date.
        read_success: What a 2xx answer means.
    """
    asked_s = retry_after_s(answer.headers, now_s=now_s)
    if 200 <= answer.status < 300:
        receipt = _success(answer, read_success)
        if receipt.outcome is Outcome.ACCEPTED:
            return receipt
        return msgspec.structs.replace(receipt, retry_after_s=asked_s)
    message = f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        message += f", redirected to {answer.headers.get('location', 'nowhere')}: check the endpoint"
    elif answer.status in (404, 405):
        message += ": nothing takes traces at this address, check the endpoint"
    said = message_in(answer)
    outcome = outcome_of_status(answer.status, said)
    if outcome is Outcome.REJECTED and answer.is_web_page:
        # a web server that does not take traces: the spans must not be thrown away for a wrong address
        outcome, said = Outcome.RETRY, "a web page: no trace endpoint, check the address"
    return Receipt(
        outcome=outcome,
        retry_after_s=asked_s,
        message=shortened(f"{message}: {said}" if said else message),
    )


def otlp_success(answer: Answer) -> Receipt:
    """Read a 2xx answer as OTLP has it: an `ExportTraceServiceResponse`, protobuf or JSON, perhaps empty."""
    if answer.is_json:
        return _json_success(answer)
    if answer.is_protobuf or not answer.body:
        return _protobuf_success(answer)
    return _not_otlp(answer)


def json_success(answer: Answer) -> Receipt:
    """Read a 2xx answer of a backend that answers in JSON of its own, whatever the request's form was."""
    return _json_success(answer) if answer.is_json else _not_otlp(answer)


def partial_success(rejected: int, message: str) -> Receipt:
    """Read OTLP's `partial_success`; one that rejects nothing may still hold a warning.

    A count below zero rejects nothing.
    """
    return Receipt(outcome=Outcome.ACCEPTED, rejected=max(rejected, 0), message=shortened(message))


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Read `Retry-After`, in seconds or as a date; None when there is none that can be read."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text):
        return float(text)
    moment = http_date(text)
    if moment is None:
        return None
    # the server's own clock is the one that its date goes by
    its_now = http_date(headers.get("date", ""))
    return max(moment.timestamp() - (now_s if its_now is None else its_now.timestamp()), 0.0)


def message_in(answer: Answer) -> str:
    """What the body of an answer says to people."""
    if answer.is_web_page:
        return ""
    if answer.is_protobuf:
        return _status_message(answer.body)
    text = answer.body.decode(errors="replace")
    if answer.is_json:
        try:
            return _words_in(_json(answer.body), _DEEPEST_WORDS) or text
        except ValueError:
            return text
    return text


def shortened(text: str) -> str:
    """Make a text fit for one line of a log."""
    line = one_line(text)
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + CUT


def outcome_of_status(status: int, said: str) -> Outcome:
    """Tell what an HTTP status means for the request, with what the answer says to people."""
    if status == 400 and says_too_large(said):
        return Outcome.TOO_LARGE
    if status == 503 and _KEY_TOO_LARGE.match(said):
        # other spans of the request may be stored; as over gRPC, where it is UNAVAILABLE
        return Outcome.UNKNOWN
    if status in _OUTCOMES:
        return _OUTCOMES[status]
    # Up to 4xx: not taken, but a wrong address or a gateway is to blame rather than the spans, which must not
    # be thrown away for it. 5xx: something broke after the request had come, perhaps after it was stored.
    return Outcome.RETRY if status < 500 else Outcome.UNKNOWN


def says_too_large(text: str) -> bool:
    """Whether a refusal is about the request's size."""
    return _TOO_LARGE_WORDS.search(text) is not None


def _success(answer: Answer, read_success: SuccessReader) -> Receipt:
    if answer.is_web_page:
        # a login page or a web server's front page: whoever wrote it does not take traces
        kind = answer.media_type or "no content type"
        return Receipt(
            outcome=Outcome.RETRY,
            message=shortened(f"HTTP {answer.status} with a web page ({kind}): no trace endpoint, check the address"),
        )
    if len(answer.body) > MAX_BODY_BYTES:
        return _unreadable(answer, f"more than {MAX_BODY_BYTES} bytes, which is no answer to an export")
    return read_success(answer)


def _json_success(answer: Answer) -> Receipt:
    if not answer.body.strip():
        return Receipt(outcome=Outcome.ACCEPTED)
    try:
        value = _json(answer.body)
    except ValueError as error:
        return _unreadable(answer, f"JSON that cannot be read ({error})")
    if not isinstance(value, dict):
        return Receipt(outcome=Outcome.ACCEPTED)
    errors = value.get("errors")
    if isinstance(errors, list) and errors:
        return _batch_with_errors(errors, value.get("successes"))
    partial = _either(value, "partialSuccess", "partial_success")
    if not isinstance(partial, dict):
        return Receipt(outcome=Outcome.ACCEPTED)
    try:
        rejected = int(_either(partial, "rejectedSpans", "rejected_spans") or 0)
    except (TypeError, ValueError, OverflowError):
        return _unreadable(answer, "a partial success without a count")
    return partial_success(rejected, str(_either(partial, "errorMessage", "error_message") or ""))


def _batch_with_errors(errors: list[Any], successes: Any) -> Receipt:
    """Read the answer of LangFuse's batches, which have a status for each item.

    If nothing succeeded for one and the same reason that lies with none of the items, that is the answer's reason.
    """
    first = errors[0]
    statuses = {error.get("status") if isinstance(error, dict) else None for error in errors}
    message = shortened(_words_in(first, _DEEPEST_WORDS))
    (status, *others) = statuses
    if not successes and not others and type(status) is int:
        outcome = outcome_of_status(status, message)
        if outcome not in (Outcome.REJECTED, Outcome.TOO_LARGE):
            return Receipt(outcome=outcome, message=shortened(f"all {len(errors)} items: HTTP {status}: {message}"))
    return Receipt(outcome=Outcome.ACCEPTED, rejected=len(errors), message=message)


def _either(value: dict[str, Any], name: str, other_name: str) -> Any:
    """What stands under a name, which some servers write the way of protobuf and others that of JSON."""
    return value.get(name, value.get(other_name))


def _json(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def error_words(error: Exception) -> str:
    """What an exception is, and what it says if it says anything."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def http_date(text: str) -> datetime | None:
    """The moment that an HTTP date names; None if it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _protobuf_success(answer: Answer) -> Receipt:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        response = ExportTraceServiceResponse.FromString(answer.body)
    except DecodeError:
        return _unreadable(answer, "protobuf that cannot be read")
    return partial_success(response.partial_success.rejected_spans, response.partial_success.error_message)


def _not_otlp(answer: Answer) -> Receipt:
    return _unreadable(answer, f"{answer.media_type or 'no content type'}, which is no OTLP answer")


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


def _words_in(value: Any, depth: int) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or depth == 0:
        return ""
    found = (_words_in(value.get(key), depth - 1) for key in ("message", "error", "detail"))
    return ": ".join(dict.fromkeys(words for words in found if words))
