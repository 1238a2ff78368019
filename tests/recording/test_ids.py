from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tracebridge.event import is_span_id, is_trace_id
from tracebridge.recording.ids import IdSource


def test_ids_have_the_forms_of_the_trace_context() -> None:
    ids = IdSource()
    assert all(is_span_id(ids.span_id()) for _ in range(200))
    assert all(is_trace_id(ids.trace_id()) for _ in range(200))


def test_no_two_threads_get_one_id() -> None:
    ids = IdSource()
    with ThreadPoolExecutor(8) as pool:
        given = [id_ for part in pool.map(lambda _: [ids.span_id() for _ in range(2000)], range(8)) for id_ in part]
    assert len(set(given)) == 16_000


def test_a_random_source_that_gives_zeros_is_asked_again() -> None:
    answers = [bytes(512), b"\x01" * 512]
    assert IdSource(lambda _size: answers.pop(0)).span_id() == "01" * 8


def test_what_was_forgotten_is_not_given() -> None:
    answers = [b"\x01" * 512, b"\x02" * 512]
    ids = IdSource(lambda _size: answers.pop(0))
    ids.span_id()
    ids.forget()
    assert ids.span_id() == "02" * 8
