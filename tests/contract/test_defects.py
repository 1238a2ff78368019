"""The contract finds what is wrong with a sink: an honest one passes a case, and with one defect it does not."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.contract.honest import Archive, ArchiveSettings, HonestReader, HonestSink, HonestType
from tracebridge.secret import Secret
from tracebridge.sink import Capabilities, Loss, Outcome, Query, Receipt
from tracebridge.span import Span
from tracebridge.testing.contract import BackendUnderTest, SinkContract
from tracebridge.testing.server import FaultyServer

KEY = "key-of-the-test"
numbers = itertools.count()


class EncodesTheTime(HonestSink):
    def encode(self, span: Span) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(span, run_id=str(next(numbers))))


class ReadsAFile(HonestSink):
    def join(self, parts: Sequence[bytes]) -> bytes:
        Path(__file__).read_bytes()
        return super().join(parts)


class ConnectsWhenOpened(HonestSink):
    def __init__(self, settings: ArchiveSettings) -> None:
        super().__init__(settings)
        httpx.get(settings.url)


class RefusesSomeSpans(HonestSink):
    def encode(self, span: Span) -> bytes:
        if span.kind == "thinking":
            raise ValueError("no such kind")
        return super().encode(span)


class Retries(HonestSink):
    def deliver(self, request: bytes) -> Receipt:
        super().deliver(request)
        return super().deliver(request)


class TakesAllForRetry(HonestSink):
    def deliver(self, request: bytes) -> Receipt:
        receipt = super().deliver(request)
        wrong = receipt.outcome is Outcome.UNKNOWN
        return msgspec.structs.replace(receipt, outcome=Outcome.RETRY) if wrong else receipt


class TakesAllForAccepted(HonestSink):
    def outcome_of(self, status: int) -> Outcome:
        return Outcome.ACCEPTED


class TakesAllForRefused(HonestSink):
    def outcome_of(self, status: int) -> Outcome:
        return super().outcome_of(status) if status == 200 else Outcome.REJECTED


class KnowsNoTimeOut(HonestSink):
    def __init__(self, settings: ArchiveSettings) -> None:
        super().__init__(msgspec.structs.replace(settings, timeout=3.5))


class QuotesTheKey(HonestSink):
    def words(self, text: str) -> str:
        return text


class SaysNothing(HonestSink):
    def words(self, text: str) -> str:
        return ""


class CannotBeUsedTwice(HonestSink):
    def deliver(self, request: bytes) -> Receipt:
        receipt = super().deliver(request)
        if receipt.outcome is not Outcome.ACCEPTED:
            self.client.close()
        return receipt


class ClosesOnce(HonestSink):
    def close(self) -> None:
        assert not self.client.is_closed
        super().close()


class ForgetsRetryAfter(HonestSink):
    def deliver(self, request: bytes) -> Receipt:
        return msgspec.structs.replace(super().deliver(request), retry_after_s=None)


class LosesTheInput(HonestReader):
    def everything(self) -> list[Span]:
        return [msgspec.structs.replace(span, metadata={}) for span in super().everything()]


class ReadsOneCopy(HonestReader):
    def everything(self) -> list[Span]:
        return list({(span.trace_id, span.span_id): span for span in super().everything()}.values())


class IncludesTheEnd(HonestReader):
    def is_asked_for(self, span: Span, query: Query) -> bool:
        end_ns = None if query.end_ns is None else query.end_ns + 1
        return super().is_asked_for(span, msgspec.structs.replace(query, end_ns=end_ns))


class IgnoresTheSession(HonestReader):
    def is_asked_for(self, span: Span, query: Query) -> bool:
        return super().is_asked_for(span, msgspec.structs.replace(query, session_id=None))


class ShowsNothingWhenAway(HonestReader):
    def everything(self) -> list[Span]:
        try:
            return super().everything()
        except Exception:
            return []


class GivesTooFew(HonestReader):
    def read(self, query: Query) -> Iterator[Span]:
        return itertools.islice(super().read(query), 4) if query.ids_only else super().read(query)


class ForgetsTheMark(HonestReader):
    def everything(self) -> list[Span]:
        return [msgspec.structs.replace(span, fingerprint="") for span in super().everything()]


class TellsTheKey(HonestType):
    def endpoint(self, settings: Any) -> str:
        return f"{settings.url}?key={settings.key.reveal()}"


class TellsAnotherEndpoint(HonestType):
    def endpoint(self, settings: Any) -> str:
        return f"{settings.url}/{next(numbers)}"


class DeclaresWhatItIsNot(HonestType):
    def capabilities(self, settings: Any) -> Capabilities:
        return msgspec.structs.replace(super().capabilities(settings), idempotent=True)


class TakesNothing(HonestType):
    def capabilities(self, settings: Any) -> Capabilities:
        return msgspec.structs.replace(super().capabilities(settings), max_request_bytes=0)


class LosesMoreEachTime(HonestType):
    def capabilities(self, settings: Any) -> Capabilities:
        def later(span: Span) -> Span:
            return msgspec.structs.replace(span, end_ns=span.end_ns + 1)

        loss = Loss(name="later", words="The end is later.", apply=later)
        return msgspec.structs.replace(super().capabilities(settings), losses=(loss,))


DEFECTS = [
    (EncodesTheTime, "test_encoding_gives_the_same_bytes_every_time"),
    (RefusesSomeSpans, "test_encoding_gives_the_same_bytes_every_time"),
    (ReadsAFile, "test_encoding_does_no_io"),
    (ConnectsWhenOpened, "test_declaring_and_opening_make_no_connection"),
    (Retries, "test_what_the_backend_takes_is_accepted"),
    (Retries, "test_several_threads_may_deliver_at_once"),
    (Retries, "test_everything_arrives_exactly_once"),
    (TakesAllForRetry, "test_a_connection_that_breaks_is_told_as_unknown"),
    (TakesAllForRetry, "test_a_request_without_an_answer_is_stored_once_or_counted"),
    (TakesAllForRetry, "test_a_backend_that_hung_and_stores_after_all_is_not_sent_its_spans_twice"),
    (TakesAllForAccepted, "test_a_backend_that_is_busy_now_and_then_gets_everything_exactly_once"),
    (TakesAllForAccepted, "test_requests_that_are_too_large_are_split_until_they_fit"),
    (TakesAllForAccepted, "test_refused_spans_and_no_others_become_dead_letters_with_the_reason"),
    (TakesAllForAccepted, "test_what_the_backend_refuses_is_told_as_rejected_with_its_words"),
    (TakesAllForRefused, "test_a_busy_backend_is_told_as_retry"),
    (TakesAllForRefused, "test_what_is_too_large_is_told_as_too_large"),
    (TakesAllForRefused, "test_refused_credentials_are_told_as_unauthorized"),
    (KnowsNoTimeOut, "test_a_backend_that_hangs_is_given_up_after_the_time_out"),
    (QuotesTheKey, "test_a_refusal_that_quotes_the_credentials_is_told_without_them"),
    (SaysNothing, "test_what_the_backend_refuses_is_told_as_rejected_with_its_words"),
    (CannotBeUsedTwice, "test_after_trouble_the_same_sink_delivers_again"),
    (ClosesOnce, "test_closing_twice_does_no_harm"),
    (ForgetsRetryAfter, "test_how_long_to_wait_is_passed_on"),
    (LosesTheInput, "test_what_is_read_back_is_what_was_sent"),
    (LosesTheInput, "test_a_session_that_is_read_back_gives_its_events_back"),
    (ForgetsTheMark, "test_what_is_read_back_is_what_was_sent"),
    (ReadsOneCopy, "test_a_span_that_is_stored_twice_is_read_twice"),
    (IncludesTheEnd, "test_a_query_gives_what_it_asks_for_and_nothing_else"),
    (IgnoresTheSession, "test_a_query_gives_what_it_asks_for_and_nothing_else"),
    (ShowsNothingWhenAway, "test_a_backend_that_cannot_be_read_is_told_as_such"),
    (GivesTooFew, "test_ids_only_and_enough_leave_out_no_more_than_they_say"),
    (TellsTheKey, "test_its_endpoint_is_told_without_credentials"),
    (TellsAnotherEndpoint, "test_it_declares_the_same_every_time"),
    (DeclaresWhatItIsNot, "test_a_span_that_is_stored_twice_is_read_twice"),
    (TakesNothing, "test_what_it_declares_is_possible"),
    (LosesMoreEachTime, "test_a_loss_applied_twice_is_the_same_as_once"),
]


class Quick(SinkContract):
    examples = 10
    reading_examples = 3


def with_defect(defect: type) -> HonestType:
    if issubclass(defect, HonestType):
        return defect()
    sink_type = HonestType()
    if issubclass(defect, HonestSink):
        sink_type.sink = defect
    if issubclass(defect, HonestReader):
        sink_type.reader = defect
    return sink_type


@contextmanager
def backend_of(sink_type: HonestType) -> Iterator[BackendUnderTest]:
    archive = Archive()
    with FaultyServer(archive.app) as server:
        yield BackendUnderTest(
            sink_type=sink_type,
            settings=ArchiveSettings(url=server.url, key=Secret(KEY)),
            faults=server.faults,
            stored=archive.stored,
            timeout_s=1.0,
        )


def run(case: str, sink_type: HonestType, folder: Path) -> None:
    method = getattr(Quick(), case)
    values = {"tmp_path": folder, "moment": "after", "effect": {"reset": "after"}}
    with backend_of(sink_type) as backend:
        values["backend"] = backend
        method(**{name: values[name] for name in inspect.signature(method).parameters})


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("defect", "case"), DEFECTS, ids=[f"{defect.__name__}-{case[5:35]}" for defect, case in DEFECTS]
)
def test_an_honest_sink_passes_a_case_that_one_with_a_defect_does_not(defect: type, case: str, tmp_path: Path) -> None:
    run(case, HonestType(), tmp_path / "honest")
    with pytest.raises((Exception, pytest.fail.Exception)):  # any way to fail is one
        run(case, with_defect(defect), tmp_path / "defect")
