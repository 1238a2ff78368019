"""Comparing the spans that a backend should hold with those that it shows. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final, Literal

import msgspec

from tracebridge.event import Json
from tracebridge.sink import Loss
from tracebridge.span import Span

FindingKind = Literal["missing", "pending", "extra", "foreign", "duplicate", "different"]
"""`missing`: expected and not there. `pending`: not there, and not delivered so far. `extra`: sent by tracebridge and
not expected. `foreign`: another service's span in one of our traces, which is no defect. `duplicate`: there more often
than expected. `different`: a field differs."""

DEFECTS: Final = ("missing", "extra", "duplicate", "different")
"""The kinds of finding that speak against a backend."""

COMPARED_FIELDS: Final = tuple(name for name in Span.__struct_fields__ if name != "fingerprint")
"""Every field of a span but the fingerprint, which names the rules that the expectation was computed under."""

COPIED: Final = "recorded-more-than-once"
"""Counted as a loss: a journal holds a copy of a span, as one that was appended to itself does, and the backend shows
it less often. Some backends merge spans with the same ids, and nothing that was recorded is lost by it."""

SEVERAL_FILES: Final = "recorded-in-several-files"
"""Counted as a loss: a journal holds one after the other what was sent from several files, as one that a spool has
deleted more than once and that came back. The events are the same and in the same order; only their places count on."""

SpanId = tuple[str, str]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One field in which a span differs."""

    field: str
    expected: Json
    observed: Json


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as expected."""

    kind: FindingKind
    session_id: str
    trace_id: str
    span_id: str
    span_kind: str
    name: str
    differences: tuple[Difference, ...] = ()
    journal: str = ""
    """Where the span was recorded, `path/to/events.jsonl:LINE` of its first event; empty where nothing expects it."""
    link: str = ""
    """The page of its trace at the backend; empty where the backend has none that is known."""
    command: str = ""
    """A command that may clear it; empty if there is none."""


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent under earlier rules, and would be sent otherwise now. The backend keeps it as it was sent."""

    spans: int = 0
    rules: tuple[str, ...] = ()
    """The fingerprints of those rules."""
    is_cut: bool = False
    """Whether content was cut for a limit that the backend had then."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What comparing came to."""

    expected: int
    """Spans that should be there."""
    observed: int
    """Spans that are there, every copy counted."""
    equal: int
    """Expected spans that are there and equal, up to declared losses."""
    losses: Mapping[str, int]
    """By the name of a declared loss, how many spans are equal only up to it."""
    findings: tuple[Finding, ...]
    earlier: Earlier = Earlier()
    """What of it equals its expectation only because it was sent under earlier rules."""

    @property
    def defects(self) -> tuple[Finding, ...]:
        """The findings that speak against the backend."""
        return tuple(finding for finding in self.findings if finding.kind in DEFECTS)


def compare(expected: Iterable[Span], observed: Iterable[Span], losses: Sequence[Loss]) -> Comparison:
    """Compare spans by their ids, field by field; the order in which they come does not matter."""
    wanted, found = _by_id(expected), _by_id(observed)
    expected_count, observed_count = sum(map(len, wanted.values())), sum(map(len, found.values()))
    findings: list[Finding] = []
    met: dict[str, int] = defaultdict(int)
    equal = 0
    for span_id in sorted(wanted.keys() | found.keys()):
        wanted_here, copies = wanted.get(span_id, []), found.get(span_id, [])
        for span, match in _matched(wanted_here, copies, losses):
            differences, names = _difference(span, match, losses)
            if differences:
                findings.append(_finding("different", span, differences))
                continue
            equal += 1
            for name in names:
                met[name] += 1
        findings += [_finding("missing", span) for span in wanted_here]
        findings += [_finding(_surplus_kind(copy, span_id in wanted), copy) for copy in copies]
    return Comparison(
        expected=expected_count,
        observed=observed_count,
        equal=equal,
        losses=dict(sorted(met.items())),
        findings=tuple(findings),
    )


def without_copies(comparison: Comparison, expected: Iterable[Span]) -> Comparison:
    """Count as equal what is missing only as often as the journal repeats what the backend shows."""
    lacking = Counter((found.trace_id, found.span_id) for found in comparison.findings if found.kind == "missing")
    if not lacking:
        return comparison
    wanted = _by_id(span for span in expected if (span.trace_id, span.span_id) in lacking)
    changed = {(found.trace_id, found.span_id) for found in comparison.findings if found.kind == "different"}
    copied = {
        span_id
        for span_id, count in lacking.items()
        if count < len(wanted[span_id]) and span_id not in changed and _alike(wanted[span_id])
    }
    findings = tuple(
        found
        for found in comparison.findings
        if found.kind != "missing" or (found.trace_id, found.span_id) not in copied
    )
    count = len(comparison.findings) - len(findings)
    if not count:
        return comparison
    return msgspec.structs.replace(
        comparison, findings=findings, equal=comparison.equal + count, losses={**comparison.losses, COPIED: count}
    )


def without_moves(
    comparison: Comparison, expected: Iterable[Span], observed: Iterable[Span], losses: Sequence[Loss]
) -> Comparison:
    """Count as equal what differs only in its place, where the run that it is of was sent from another file."""
    changed = {(found.trace_id, found.span_id) for found in comparison.findings if found.kind == "different"}
    if not changed:
        return comparison
    wanted, shown = _by_id(expected), _by_id(observed)
    pairs = {
        span_id: (spans[0], shown[span_id][0])
        for span_id, spans in wanted.items()
        if len(spans) == 1 and len(shown.get(span_id, ())) == 1
    }
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for span, match in pairs.values():
        for here, there in ((span.opened, match.opened), (span.closed, match.closed)):
            if here is not None and there is not None:
                places[span.run_id].append((here.ordinal, there.ordinal))
    moved_runs = {run_id for run_id, of_run in places.items() if _stand_in_files(of_run)}
    met = Counter(comparison.losses)
    moved: set[SpanId] = set()
    for span_id in changed & pairs.keys():
        span, match = pairs[span_id]
        differences, names = _difference(_placeless(span), _placeless(match), losses)
        if span.run_id in moved_runs and not differences:
            moved.add(span_id)
            met.update([*names, SEVERAL_FILES])
    findings = tuple(found for found in comparison.findings if (found.trace_id, found.span_id) not in moved)
    return msgspec.structs.replace(
        comparison, findings=findings, equal=comparison.equal + len(moved), losses=dict(sorted(met.items()))
    )


def _stand_in_files(places: Iterable[tuple[int, int]]) -> bool:
    """Whether events that stand here in one file stood there in the same order, in one file or several.

    Each of those begins here behind what was seen of the one before, and from there on both count alike.
    """
    begins, before = 0, -1
    for here, there in sorted(places):
        if here - there != begins:
            begins = here - there
            if begins <= before:
                return False
        before = here
    return True


def _alike(spans: Sequence[Span]) -> bool:
    """Whether spans say the same, wherever in the journal."""
    first = _placeless(spans[0])
    return not any(_differing(first, _placeless(span)) for span in spans[1:])


def _placeless(span: Span) -> Span:
    edges = {
        name: msgspec.structs.replace(edge, ordinal=0)
        for name, edge in (("opened", span.opened), ("closed", span.closed))
        if edge is not None
    }
    return msgspec.structs.replace(span, **edges)


def _by_id(spans: Iterable[Span]) -> dict[SpanId, list[Span]]:
    by_id: dict[SpanId, list[Span]] = defaultdict(list)
    for span in spans:
        by_id[span.trace_id, span.span_id].append(span)
    return by_id


def _matched(wanted: list[Span], copies: list[Span], losses: Sequence[Loss]) -> list[tuple[Span, Span]]:
    """Take pairs out of two lists of spans with the same ids, those that differ least first.

    Of pairs that differ as much, their content decides, so that neither the order of reading nor the side matters.
    """
    pairs: list[tuple[Span, Span]] = []
    while wanted and copies:
        pair = (wanted[0], copies[0])
        if len(wanted) > 1 or len(copies) > 1:
            pair = min(product(wanted, copies), key=lambda both: _distance(both[0], both[1], losses))
        _take_out(wanted, pair[0])
        _take_out(copies, pair[1])
        pairs.append(pair)
    return pairs


def _distance(left: Span, right: Span, losses: Sequence[Loss]) -> tuple[int, list[str]]:
    differences, _ = _difference(left, right, losses)
    return len(differences), sorted((repr(left), repr(right)))


def _take_out(spans: list[Span], span: Span) -> None:
    """Take one span out of a list, by identity: equal ones may differ in the type of a number."""
    del spans[next(place for place, other in enumerate(spans) if other is span)]


def _surplus_kind(span: Span, is_expected: bool) -> FindingKind:
    if is_expected:
        return "duplicate"
    return "extra" if span.fingerprint else "foreign"


def _difference(expected: Span, observed: Span, losses: Sequence[Loss]) -> tuple[tuple[Difference, ...], list[str]]:
    """The fields that differ beyond the declared losses, and the names of the losses that explain others."""
    differing = _differing(expected, observed)
    left, right, names = expected, observed, []
    for loss in losses:
        if not differing:
            break
        left, right = loss.apply(left), loss.apply(right)
        remaining = _differing(left, right)
        if len(remaining) < len(differing):
            names.append(loss.name)
        differing = remaining
    return (
        tuple(
            Difference(
                field=field, expected=_as_json(getattr(expected, field)), observed=_as_json(getattr(observed, field))
            )
            for field in differing
        ),
        names,
    )


def _differing(left: Span, right: Span) -> list[str]:
    return [field for field in COMPARED_FIELDS if not _is_same(getattr(left, field), getattr(right, field))]


def _is_same(left: Any, right: Any) -> bool:
    """Equality of JSON values and records, by which 1, 1.0 and true differ."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_is_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_is_same, left, right))
    if isinstance(left, msgspec.Struct):
        return all(_is_same(getattr(left, name), getattr(right, name)) for name in left.__struct_fields__)
    return bool(left == right)


def _as_json(value: Any) -> Json:
    return msgspec.to_builtins(value)


def _finding(kind: FindingKind, span: Span, differences: tuple[Difference, ...] = ()) -> Finding:
    return Finding(
        kind=kind,
        session_id=span.session_id,
        trace_id=span.trace_id,
        span_id=span.span_id,
        span_kind=span.kind,
        name=span.name,
        differences=differences,
    )
