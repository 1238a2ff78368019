"""The engine says of two sides what comparing their spans in memory says."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.validation.test_comparison import MILLISECONDS, OTHER_VALUES, recorded, span
from tracebridge.errors import ConfigurationError
from tracebridge.sides import Notes, Settings, Side, SidesVerdict, compare_sides
from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge.validation import Finding, compare
from tracebridge.validation.comparison import without_copies, without_moves

pytest.importorskip("ibis", reason="needs the extra `compare`")

NO_TAGS = Loss(name="no-tags", words="Tags are lost.", apply=lambda span: msgspec.structs.replace(span, tags=()))
NO_INPUT = Loss(
    name="short-input",
    words="Of inputs that are a text, the first letter is kept.",
    apply=lambda span: msgspec.structs.replace(span, input=span.input[:1]) if isinstance(span.input, str) else span,
)
PHASES = (Phase.explicit, Phase.generate)  # shrinking takes a comparison a step
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
LOSSES = (MILLISECONDS, NO_TAGS, NO_INPUT)


def side(spans: Iterable[Span], losses: tuple[Loss, ...] = (), name: str = "a", is_ours: bool = False) -> Side:
    kept = list(spans)

    def read(notes: Notes) -> Iterator[Span]:
        return iter(kept)

    return Side(name=name, read=read, losses=losses, is_ours=is_ours)


def compared(
    left: Iterable[Span], right: Iterable[Span], losses: tuple[Loss, ...] = (), **options: Any
) -> SidesVerdict:
    return compare_sides(side(left, losses), side(right, name="b"), shown=None)


def told(findings: Iterable[Finding]) -> Counter[bytes]:
    """Findings as JSON; of the two zeros, which are equal, either may be shown."""
    texts = (msgspec.json.encode(finding, order="sorted") for finding in findings)
    return Counter(re.sub(rb"(?<=[:,\[])-0\.0(?=[,\]}])", b"0.0", text) for text in texts)


def changed(draw: st.DrawFn, one: Span) -> Span:
    """A copy of a span as a backend may show it: the same, changed by a loss, or different."""
    names = draw(st.lists(st.sampled_from(["start_ns", "tags", "input", "turn", "output", "cost"]), max_size=3))
    values = {
        "start_ns": one.start_ns // 1_000_000 * 1_000_000 + draw(st.sampled_from([0, 1, 5_000_000])),
        "tags": draw(st.sampled_from([(), ("a",)])),
        "input": draw(st.sampled_from(["x", "xy", "y", None, {"k": 1}, {"k": 1.0}])),
        "turn": draw(st.integers(0, 1)),
        "output": draw(st.sampled_from([None, 0, 0.0, -0.0, False, "", [], {}, [None]])),
        "cost": draw(st.sampled_from([None, 1, 1.0, {"b": 1, "a": 2}, {"a": 2, "b": 1}])),
    }
    return msgspec.structs.replace(one, **{name: values[name] for name in names})


@st.composite
def two_sides(draw: st.DrawFn) -> tuple[list[Span], list[Span]]:
    # one of the strategy that knows all fields; more of them say no more, and take long to print
    first = draw(spans()) if draw(st.booleans()) else span()
    originals = [
        msgspec.structs.replace(one, trace_id=f"{number:032x}", span_id=f"{number % 3:016x}", fingerprint="0123")
        for number, one in enumerate([first, *map(span, range(draw(st.integers(2, 12))))])
    ]
    left = [changed(draw, one) for one in originals for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2])))]
    right = [changed(draw, one) for one in originals for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2])))]
    right = [msgspec.structs.replace(one, fingerprint=draw(st.sampled_from(["", "0123"]))) for one in right]
    return draw(st.permutations(left)), draw(st.permutations(right))


def has_a_tie(left: list[Span], right: list[Span]) -> bool:
    """Whether copies on one side alone are as far from the other side's span: then the engine takes any of them."""
    for ids in {(one.trace_id, one.span_id) for one in left}:
        here, there = ([one for one in side if (one.trace_id, one.span_id) == ids] for side in (left, right))
        if len(here) == 1 < len(there) or len(there) == 1 < len(here):
            apart = sorted(_left_over(one, other) for one in here for other in there)
            if apart[0] == apart[1]:
                return True
    return False


def _left_over(one: Span, other: Span) -> int:
    return sum(len(finding.differences) for finding in compare([one], [other], LOSSES).findings)


@settings(max_examples=examples(6), deadline=None, suppress_health_check=SLOW, phases=PHASES)
@given(two_sides().filter(lambda sides: not has_a_tie(*sides)))
def test_law_the_engine_says_what_comparing_in_memory_says(sides: tuple[list[Span], list[Span]]) -> None:
    verdict, wanted = compared(*sides, LOSSES), compare(*sides, LOSSES)
    assert told(verdict.findings) == told(wanted.findings)
    assert verdict.counts == Counter(finding.kind for finding in wanted.findings)
    assert verdict.fields == Counter(
        difference.field for finding in wanted.findings for difference in finding.differences
    )
    assert (verdict.expected, verdict.observed, verdict.equal, verdict.losses) == (
        wanted.expected,
        wanted.observed,
        wanted.equal,
        wanted.losses,
    )


@st.composite
def journal_and_backend(draw: st.DrawFn) -> tuple[list[Span], list[Span]]:
    """Runs of a journal, and what a backend shows that was sent them from other files, and perhaps merges copies."""
    journal, backend = [], []
    for run in range(draw(st.integers(1, 3))):
        sent_from = 0
        for number in range(draw(st.integers(1, 4))):
            place = 2 * number
            sent_from = draw(st.sampled_from([sent_from, sent_from, place, draw(st.integers(0, 8))]))
            one = recorded(place, number=10 * run + number, run_id=f"r{run}")
            copies = [one]
            if draw(st.integers(0, 3)) == 0:
                copies.append(recorded(place + 8, number=10 * run + number, run_id=f"r{run}"))
            if draw(st.integers(0, 9)) == 0:
                copies[0] = msgspec.structs.replace(copies[0], output="other")
            journal += copies
            changes: dict[str, Any] = draw(st.sampled_from([{}, {}, {}, {"tags": ("a",)}, {"turn": 1}]))
            there = recorded(place - sent_from, number=10 * run + number, run_id=f"r{run}", **changes)
            backend += [there] * draw(st.sampled_from([0, 1, 1, 1, 1, 2]))
    return draw(st.permutations(journal)), draw(st.permutations(backend))


@settings(max_examples=examples(3), deadline=None, suppress_health_check=SLOW, phases=PHASES)
@given(journal_and_backend().filter(lambda sides: not has_a_tie(*sides)))
def test_law_of_a_journal_and_a_backend_the_engine_says_what_validating_says(
    sides: tuple[list[Span], list[Span]],
) -> None:
    journal, backend = sides
    wanted = without_moves(compare(journal, backend, LOSSES), journal, backend, LOSSES)
    wanted = without_copies(wanted, journal)
    verdict = compare_sides(side(journal, is_ours=True), side(backend, LOSSES, name="b"), shown=None)
    assert told(verdict.findings) == told(wanted.findings)
    assert verdict.counts == Counter(finding.kind for finding in wanted.findings)
    assert (verdict.expected, verdict.observed, verdict.equal) == (wanted.expected, wanted.observed, wanted.equal)
    assert verdict.losses == wanted.losses
    back = compare_sides(side(backend, LOSSES), side(journal, name="b", is_ours=True), shown=None)
    assert (back.observed, back.expected, back.equal) == (verdict.expected, verdict.observed, verdict.equal)
    assert (back.losses, back.fields) == (verdict.losses, verdict.fields)


def test_what_a_journal_holds_twice_or_in_other_places_is_equal_whichever_side_it_is() -> None:
    journal = [recorded(2 * number, number=number, run_id="moved") for number in range(4)]
    backend = [recorded(2 * number % 4, number=number, run_id="moved") for number in range(4)]
    journal += [recorded(2 * number, number=number, run_id="other") for number in (10, 11)]
    backend += [recorded(2, number=10 + place, run_id="other") for place in range(2)]
    # merged, kept once more than recorded, and merged though the copies are not alike
    journal += [recorded(place, number=number) for number in (20, 21, 22) for place in (0, 8)]
    backend += [recorded(place, number=21) for place in (0, 8, 8)] + [recorded(0, number=20), recorded(0, number=22)]
    journal[-1] = msgspec.structs.replace(journal[-1], output="other")
    there = compare_sides(side(journal, is_ours=True), side(backend, LOSSES, name="b"), shown=None)
    back = compare_sides(side(backend, LOSSES), side(journal, name="b", is_ours=True), shown=None)
    assert there.losses == back.losses == {"recorded-in-several-files": 2, "recorded-more-than-once": 1}
    assert there.counts == {"different": 2, "duplicate": 1, "missing": 1}
    assert back.counts == {"different": 2, "missing": 1, "duplicate": 1}
    assert (there.equal, there.expected, there.observed) == (back.equal, back.observed, back.expected) == (9, 12, 11)
    assert there.declared.keys() >= there.losses.keys()


def test_between_two_journals_every_line_and_place_counts() -> None:
    one, other = ([recorded(place, number=n, run_id="r") for n, place in enumerate(places)] for places in ([0, 2], [0]))
    verdict = compare_sides(side([*one, *one], is_ours=True), side(other, name="b", is_ours=True))
    assert (verdict.counts, verdict.losses) == ({"missing": 3}, {})


def is_alone_on_one_side(left: list[Span], right: list[Span]) -> bool:
    """Whether no id is more than once on both sides."""
    of_left, of_right = (Counter((one.trace_id, one.span_id) for one in spans) for spans in (left, right))
    return not any(count > 1 and of_right[ids] > 1 for ids, count in of_left.items())


@pytest.mark.slow
@settings(max_examples=examples(6), deadline=None, suppress_health_check=SLOW, phases=PHASES)
@given(two_sides().filter(lambda sides: is_alone_on_one_side(*sides)))
def test_law_the_other_way_round_it_says_the_same(sides: tuple[list[Span], list[Span]]) -> None:
    """What is missing one way is extra or a duplicate the other way; what is different or foreign stays so."""
    there, back = compared(*sides, LOSSES), compared(sides[1], sides[0], LOSSES)
    assert (there.expected, there.observed, there.equal) == (back.observed, back.expected, back.equal)
    assert (there.losses, there.fields) == (back.losses, back.fields)
    assert [there.counts.get(kind, 0) for kind in ("different", "foreign")] == [
        back.counts.get(kind, 0) for kind in ("different", "foreign")
    ]
    for one, other in ((there, back), (back, there)):
        surplus = other.counts.get("extra", 0) + other.counts.get("duplicate", 0)
        assert one.counts.get("missing", 0) == surplus
    assert {
        (one.kind, one.trace_id, one.span_id, tuple(d.field for d in one.differences))
        for one in there.findings
        if one.kind == "different"
    } == {
        (one.kind, one.trace_id, one.span_id, tuple(d.field for d in one.differences))
        for one in back.findings
        if one.kind == "different"
    }


def test_a_difference_in_any_field_is_found_named_and_shown() -> None:
    originals = {field: span(number) for number, field in enumerate(sorted(OTHER_VALUES), 1)}
    others = [msgspec.structs.replace(one, **{field: OTHER_VALUES[field]}) for field, one in originals.items()]
    verdict = compared(originals.values(), others)
    assert told(verdict.findings) == told(compare(originals.values(), others, ()).findings)
    assert verdict.fields == dict.fromkeys(sorted(OTHER_VALUES), 1)
    assert verdict.exit_code == 1


def test_each_loss_is_counted_where_it_was_needed_and_nowhere_else() -> None:
    left = [span(number) for number in range(6)]
    changes: list[dict[str, Any]] = [
        {},
        {"start_ns": span().start_ns + 1},
        {"tags": ("a",)},
        {"tags": ("a",), "end_ns": span().end_ns + 1},
        {"turn": 1},
        {"turn": 1, "tags": ("a",), "start_ns": span().start_ns + 1},
    ]
    right = [msgspec.structs.replace(one, **change) for one, change in zip(left, changes, strict=True)]
    verdict = compared(left, right, LOSSES)
    assert verdict.losses == compare(left, right, LOSSES).losses == {"time-in-milliseconds": 2, "no-tags": 2}
    assert (verdict.equal, verdict.counts, verdict.fields) == (4, {"different": 2}, {"turn": 2})


def test_an_id_that_both_sides_have_more_than_once_is_compared_copy_by_copy() -> None:
    left = [span(1), span(1, turn=1), span(2)]
    right = [span(1, turn=1), span(1), span(1, turn=2), span(2)]
    verdict = compared(left, right)
    assert told(verdict.findings) == told(compare(left, right, ()).findings)
    assert (verdict.equal, verdict.counts) == (3, {"duplicate": 1})


def test_findings_beyond_those_that_are_shown_are_counted() -> None:
    left, right = [span(number) for number in range(30)], [span(number, turn=1) for number in range(20)]
    verdict = compare_sides(side(left), side(right, name="b"), shown=3)
    assert (verdict.counts, verdict.fields) == ({"different": 20, "missing": 10}, {"turn": 20})
    assert Counter(finding.kind for finding in verdict.findings) == {"different": 3, "missing": 3}
    assert [finding.trace_id for finding in verdict.findings] == [span(n).trace_id for n in (0, 1, 2, 20, 21, 22)]


def test_spans_without_a_mark_are_foreign_on_either_side_unless_all_of_the_side_is_ours() -> None:
    unmarked = [span(1, fingerprint="")]
    assert compare_sides(side(unmarked), side([span(2)])).counts == {"extra": 1, "foreign": 1}
    assert compare_sides(side([span(2)]), side(unmarked)).counts == {"foreign": 1, "missing": 1}
    assert compare_sides(side(unmarked, is_ours=True), side([])).counts == {"missing": 1}


@pytest.mark.parametrize("text", ["half a \ud800", "\x00", "\ud83d\ude00"])
def test_texts_that_are_no_unicode_are_compared_and_shown(text: str) -> None:
    odd = span(1, session_id=text, output=text, metadata={text: 1})
    assert compared([odd], [odd]).equal == 1
    verdict = compared([odd], [span(1)])
    assert verdict.fields == {"metadata": 1, "output": 1, "session_id": 1}


def test_a_temporary_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match=r"gone: the two sides cannot be written there .* \$TMPDIR"):
        compared([span()], [span()])


def test_an_engine_without_enough_memory_says_what_to_do() -> None:
    many = [span(number) for number in range(200)]
    with pytest.raises(ConfigurationError, match=r"duckdb gave up comparing .* --memory-mb"):
        compare_sides(side(many), side(many), Settings(memory_mb=1))
