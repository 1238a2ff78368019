"""Comparing finds each kind of difference, and nothing else."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.sink import Loss
from tracebridge.span import Edge, Link, Prompt, Span, SpanError
from tracebridge.validation import compare
from tracebridge.validation.comparison import COMPARED_FIELDS, COPIED, SEVERAL_FILES, without_copies, without_moves

MILLISECONDS = Loss(
    name="time-in-milliseconds",
    words="Times are cut to milliseconds.",
    apply=lambda span: msgspec.structs.replace(
        span, start_ns=span.start_ns // 1_000_000 * 1_000_000, end_ns=span.end_ns // 1_000_000 * 1_000_000
    ),
)


def span(number: int = 1, **changes: Any) -> Span:
    whole = Span(
        kind="llm",
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        name="llm",
        start_ns=1_770_415_800_123_456_789,
        end_ns=1_770_415_801_123_456_789,
        session_id="s",
        fingerprint="0123456789ab",
        input=[{"role": "user", "content": "hello"}],
        usage={"prompt": 1},
    )
    return msgspec.structs.replace(whole, **changes)


OTHER_VALUES: dict[str, Any] = {
    "kind": "tool",
    "parent_id": "f" * 16,
    "remote_parent": True,
    "name": "other",
    "start_ns": 1,
    "end_ns": 2,
    "extent": "late",
    "session_id": "t",
    "run_id": "r",
    "turn": 1,
    "user_id": "u",
    "agent_name": "a",
    "environment": "e",
    "release": "r",
    "tags": ("t",),
    "metadata": {"k": 1},
    "input": [{"role": "user", "content": "hellp"}],
    "output": "o",
    "model": "m",
    "response_model": "m",
    "provider": "p",
    "model_parameters": {"temperature": 1.0},
    "prompt": Prompt(name="p", version=1),
    "tool_definitions": [{"name": "t"}],
    "tool_calls": [{"id": "1"}],
    "thinking": "t",
    "finish_reason": "stop",
    "response_id": "i",
    "time_to_first_token_ms": 1.5,
    "usage": {"prompt": 2},
    "cost": 0.5,
    "tool_call_id": "c",
    "status": "error",
    "error": SpanError(message="m"),
    "links": (Link(trace_id="1" * 32, span_id="1" * 16),),
    "opened": Edge(ordinal=1, timestamp="t"),
    "closed": Edge(ordinal=2, timestamp="t"),
}


def kinds_of(expected: list[Span], observed: list[Span]) -> list[str]:
    return [finding.kind for finding in compare(expected, observed, ()).findings]


def test_every_field_of_a_span_is_compared() -> None:
    assert set(OTHER_VALUES) | {"trace_id", "span_id"} == set(COMPARED_FIELDS)
    assert set(COMPARED_FIELDS) | {"fingerprint"} == set(Span.__struct_fields__)


def recorded(place: int, **changes: Any) -> Span:
    return span(opened=Edge(ordinal=place, timestamp="t"), closed=Edge(ordinal=place + 1, timestamp="t"), **changes)


@pytest.mark.parametrize(
    ("copy", "observed", "kinds", "equal"),
    [
        (recorded(8), [recorded(8)], [], 2),
        (recorded(8), [recorded(0), recorded(8)], [], 2),
        (recorded(8), [], ["missing", "missing"], 0),
        (recorded(8, output="other"), [recorded(0)], ["missing"], 1),
        (recorded(8), [recorded(0, output="other")], ["different", "missing"], 0),
    ],
    ids=["merged", "both", "neither", "no copy but another span", "changed"],
)
def test_a_copy_that_the_journal_holds_is_missing_only_if_nothing_that_says_the_same_is_there(
    copy: Span, observed: list[Span], kinds: list[str], equal: int
) -> None:
    expected = [recorded(0), copy]
    comparison = without_copies(compare(expected, observed, ()), expected)
    assert ([finding.kind for finding in comparison.findings], comparison.equal) == (kinds, equal)
    assert comparison.losses == ({COPIED: 1} if (equal, len(observed)) == (2, 1) else {})


@pytest.mark.parametrize(
    ("sent_from", "kinds"),
    [
        ([0, 2, 4, 6], []),
        ([0, 2, 0, 2], []),
        ([0, 0, 2, 0], []),
        ([2, 0, 4, 6], ["different", "different"]),
        ([1, 3, 5, 7], ["different"] * 4),
        ([0, 2, 1, 3], ["different", "different"]),
    ],
    ids=["one file", "two files", "three files", "another order", "behind what is not here", "no beginning of a file"],
)
def test_a_run_that_was_sent_from_other_files_is_the_same_as_long_as_its_order_is(
    sent_from: list[int], kinds: list[str]
) -> None:
    expected = [recorded(2 * number, number=number) for number in range(4)]
    observed = [
        recorded(place, number=number, start_ns=1_770_415_800_123_000_000) for number, place in enumerate(sent_from)
    ]
    compared = without_moves(compare(expected, observed, [MILLISECONDS]), expected, observed, [MILLISECONDS])
    assert [finding.kind for finding in compared.findings] == kinds
    assert compared.equal == compared.losses.get("time-in-milliseconds", 0) == 4 - len(kinds)
    elsewhere = sum(2 * number != place for number, place in enumerate(sent_from))
    assert compared.losses.get(SEVERAL_FILES, 0) == (0 if kinds else elsewhere)


def test_what_was_changed_in_a_run_that_was_sent_from_another_file_is_found() -> None:
    expected = [recorded(2 * number, number=number) for number in range(4)]
    observed = [recorded(2 * number % 4, number=number) for number in range(3)] + [
        recorded(2, number=3, output="forged")
    ]
    (finding,) = without_moves(compare(expected, observed, ()), expected, observed, ()).findings
    assert (finding.kind, finding.span_id) == ("different", expected[3].span_id)


@pytest.mark.parametrize("field", sorted(OTHER_VALUES))
def test_a_difference_in_one_field_is_found_and_named(field: str) -> None:
    changed = msgspec.structs.replace(span(), **{field: OTHER_VALUES[field]})
    (finding,) = compare([span()], [changed], ()).findings
    assert finding.kind == "different"
    assert [difference.field for difference in finding.differences] == [field]


def test_equal_spans_give_no_finding_in_whatever_order_they_come() -> None:
    comparison = compare([span(1), span(2)], [span(2), span(1)], ())
    assert (comparison.equal, comparison.findings) == (2, ())


def test_missing_extra_foreign_and_duplicate_spans_are_told_apart() -> None:
    assert kinds_of([span(1)], []) == ["missing"]
    assert kinds_of([], [span(1)]) == ["extra"]
    assert kinds_of([], [span(1, fingerprint="")]) == ["foreign"]
    assert kinds_of([span(1)], [span(1), span(1)]) == ["duplicate"]


def test_a_foreign_span_is_no_defect() -> None:
    comparison = compare([span(1)], [span(1), span(2, fingerprint="")], ())
    assert comparison.defects == ()
    assert len(comparison.findings) == 1


def test_the_rules_it_was_sent_with_are_no_difference() -> None:
    assert kinds_of([span(1)], [span(1, fingerprint="ffffffffffff")]) == []


def test_a_difference_within_a_declared_loss_is_counted_under_its_name_and_is_no_finding() -> None:
    cut = MILLISECONDS.apply(span())
    comparison = compare([span()], [cut], (MILLISECONDS,))
    assert (comparison.equal, dict(comparison.losses), comparison.findings) == (1, {"time-in-milliseconds": 1}, ())


def test_a_difference_beyond_a_declared_loss_is_still_found() -> None:
    shifted = span(start_ns=span().start_ns + 2_000_000)
    (finding,) = compare([span()], [shifted], (MILLISECONDS,)).findings
    assert [difference.field for difference in finding.differences] == ["start_ns"]


@pytest.mark.parametrize(("recorded", "shown"), [(1, 1.0), (1, True), ("1", 1), ("", None), ([], None), (0, False)])
def test_values_of_different_json_types_differ(recorded: Any, shown: Any) -> None:
    assert kinds_of([span(output={"v": [recorded]})], [span(output={"v": [shown]})]) == ["different"]


@given(st.lists(st.integers(1, 6)), st.lists(st.integers(1, 6)))
def test_what_is_missing_on_one_side_is_surplus_on_the_other(left: list[int], right: list[int]) -> None:
    expected, observed = [span(number) for number in left], [span(number) for number in right]
    there, back = compare(expected, observed, ()), compare(observed, expected, ())
    missing = [finding for finding in there.findings if finding.kind == "missing"]
    surplus = [finding for finding in back.findings if finding.kind in ("extra", "duplicate")]
    assert len(missing) == len(surplus)
    assert there.equal == back.equal
    assert there.expected == len(left)
    assert there.observed == len(right)


SEVERAL = st.lists(
    st.builds(
        lambda number, name, output, shift: span(number, name=name, output=output, start_ns=span().start_ns + shift),
        st.integers(1, 3),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, 1, 1.0]),
        st.sampled_from([0, 1, 1_000_000]),
    ),
    max_size=6,
)


@given(SEVERAL, SEVERAL, st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(left: list[Span], right: list[Span], random: Random) -> None:
    before = compare(left, right, (MILLISECONDS,))
    random.shuffle(left)
    random.shuffle(right)
    after = compare(left, right, (MILLISECONDS,))
    assert sorted(map(repr, after.findings)) == sorted(map(repr, before.findings))
    assert (after.equal, after.losses) == (before.equal, before.losses)


@given(SEVERAL, SEVERAL)
def test_right_to_left_mirrors_left_to_right(left: list[Span], right: list[Span]) -> None:
    there, back = compare(left, right, (MILLISECONDS,)), compare(right, left, (MILLISECONDS,))
    assert (there.equal, there.losses) == (back.equal, back.losses)
    changed = [[finding.differences for finding in side.findings if finding.differences] for side in (there, back)]
    assert [
        {(one.field, repr(one.expected), repr(one.observed)) for one in differences} for differences in changed[0]
    ] == [{(one.field, repr(one.observed), repr(one.expected)) for one in differences} for differences in changed[1]]
    for one, other in ((there, back), (back, there)):
        lacking = [finding.span_id for finding in one.findings if finding.kind == "missing"]
        surplus = [finding.span_id for finding in other.findings if finding.kind in ("extra", "duplicate")]
        assert lacking == surplus


def test_a_copy_that_is_equal_up_to_a_loss_is_taken_for_the_span_before_one_with_fewer_differences() -> None:
    cut = MILLISECONDS.apply(span())
    comparison = compare([span()], [span(name="other"), cut], (MILLISECONDS,))
    assert (comparison.equal, [finding.kind for finding in comparison.findings]) == (1, ["duplicate"])
