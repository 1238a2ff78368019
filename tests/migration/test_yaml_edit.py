"""One value changes, and not a byte more; what cannot be changed so is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.migration.yaml_edit import EditError, set_value, undo

PATH = ("agent_trace", "sinks", "jsonl", "enabled")

KEPT = """\
# who may change this: ops
agent_trace:   # all settings
  trace_dir: ./traces
  sinks:
    # the files
    jsonl: {spool_keep: 5,  enabled: true}  # for now
    langfuse:
      host: 'http://x'
other: &tag [1, 2]
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (KEPT, KEPT.replace("enabled: true", "enabled: false")),
        (
            KEPT.replace(",  enabled: true", ""),
            KEPT.replace("spool_keep: 5,  enabled: true", "enabled: false, spool_keep: 5"),
        ),
        ("agent_trace:\n  sinks:\n    jsonl: {}\n", "agent_trace:\n  sinks:\n    jsonl: {enabled: false}\n"),
        (
            "agent_trace:\n  sinks:\n    jsonl:\n        spool_keep: 5\n",
            "agent_trace:\n  sinks:\n    jsonl:\n        enabled: false\n        spool_keep: 5\n",
        ),
        (
            "agent_trace:\r\n  sinks:\r\n    otel: {}\r\n",
            "agent_trace:\r\n  sinks:\r\n    jsonl: {enabled: false}\r\n    otel: {}\r\n",
        ),
        (
            "agent_trace: {sinks: {otel: {}}}",
            "agent_trace: {sinks: {jsonl: {enabled: false}, otel: {}}}",
        ),
        (
            "agent_trace:\n  sinks:\n\n    # new\n    # and good\n    otel: {}\n",
            "agent_trace:\n  sinks:\n\n    jsonl: {enabled: false}\n    # new\n    # and good\n    otel: {}\n",
        ),
        ("agent_trace:\n  trace_dir: x", "agent_trace:\n  sinks: {jsonl: {enabled: false}}\n  trace_dir: x"),
        (
            '{"agent_trace": {"sinks": {"jsonl": {"enabled": true}}}}',
            '{"agent_trace": {"sinks": {"jsonl": {"enabled": false}}}}',
        ),
        (
            '{"agent_trace": {"sinks": {"otel": {}}}}',
            '{"agent_trace": {"sinks": {"jsonl": {"enabled": false}, "otel": {}}}}',
        ),
    ],
    ids=[
        *("value", "into braces", "into empty braces", "into lines", "a section, CRLF", "in one line"),
        *("above comments", "sinks"),
        *("JSON", "into JSON"),
    ],
)  # fmt: skip
def test_one_value_changes_and_comes_back(before: str, after: str) -> None:
    changed, change = set_value(before, PATH, False)
    assert changed == after
    assert undo(changed, change) == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("agent_trace: {sinks: {jsonl: {enabled: '${KEEP:-true}'}}}", "no plain `true`"),
        ("agent_trace: {sinks: {jsonl: {enabled: &keep true}, x: {enabled: *keep}}}", "an alias"),
        ("a: &off {enabled: true}\nagent_trace: {sinks: {jsonl: *off}}", "an alias"),
        ("a: &off {enabled: true}\nagent_trace:\n  sinks:\n    jsonl:\n      <<: *off\n", "a merge"),
        ("agent_trace: {sinks: {jsonl: &it {spool_keep: 5}}}", "an anchor or a tag"),
        ("agent_trace:\n  sinks:\n    jsonl:\n", "no mapping above `enabled`"),
        ("agent_trace:\n  sinks:\n    ? otel\n    : {}\n", "does not stand on a line of its own"),
        ("agent_trace: [", "not valid YAML"),
        ("", "no mapping"),
    ],
)
def test_what_one_piece_of_text_cannot_change_is_refused_with_what_to_do(text: str, why: str) -> None:
    with pytest.raises(EditError, match=r"agent_trace\.sinks\.jsonl\.enabled.*write `false` there by hand") as refused:
        set_value(text, PATH, False)
    assert why in str(refused.value)


def test_what_somebody_else_wrote_meanwhile_stays_when_a_change_is_taken_back() -> None:
    changed, change = set_value(KEPT, PATH, False)
    edited = changed.replace("./traces", "/elsewhere").replace("spool_keep: 5", "spool_keep: 77")
    assert undo(edited, change) == edited.replace("enabled: false", "enabled: true")

    added, addition = set_value("agent_trace:\n  sinks:\n    otel: {}\n", PATH, False)
    filled = added.replace("{enabled: false}", "{enabled: false, spool_keep: 9}")
    assert undo(filled, addition) == filled.replace("enabled: false", "enabled: true")


@pytest.mark.parametrize("edit", ["enabled: true", "enabled: '${KEEP}'", ""])
def test_a_value_that_somebody_else_changed_is_not_touched(edit: str) -> None:
    changed, change = set_value(KEPT, PATH, False)
    with pytest.raises(EditError, match="changed since by somebody else"):
        undo(changed.replace("enabled: false", edit), change)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("otel: {policy: {sample_rate: 0.01}}  # 1 %\n", "otel: {policy: {sample_rate: 0.25}}  # 1 %\n"),
        ("otel:\n  policy:\n    sample_rate: 1\n", "otel:\n  policy:\n    sample_rate: 0.25\n"),
        ("otel:\n  host: x\n", "otel:\n  policy: {sample_rate: 0.25}\n  host: x\n"),
    ],
)
def test_a_number_is_changed_in_the_same_way(before: str, after: str) -> None:
    assert set_value(before, ("otel", "policy", "sample_rate"), 0.25)[0] == after


@pytest.mark.parametrize("value", ["'0.1'", "${RATE}", "&a 0.1", "!!float 0.1", "1e-3", "null", "true"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(EditError, match=r"no plain number stands there; write `0\.25` there by hand"):
        set_value(f"otel:\n  rate: {value}\n", ("otel", "rate"), 0.25)


@given(st.floats(0.000001, 1))
def test_a_share_is_written_so_that_it_is_read_as_one(share: float) -> None:
    rounded = round(share, 9)
    changed, _ = set_value("a:\n  b: 1\n", ("a", "rate"), rounded)
    assert yaml.safe_load(changed) == {"a": {"rate": rounded, "b": 1}}


_words = st.text("abcxyz é😀#:", min_size=1, max_size=8)
_scalars = st.one_of(st.booleans(), st.integers(), _words)
_others = st.dictionaries(st.sampled_from(["host", "a b", "spool_keep", "é😀", "x"]), _scalars, max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    jsonl = draw(_others)
    if draw(st.booleans()):
        jsonl["enabled"] = draw(st.booleans())
    sinks = draw(st.dictionaries(st.sampled_from(["otel", "langfuse"]), _others, max_size=2))
    if draw(st.booleans()):
        sinks["jsonl"] = jsonl
    keys = draw(st.permutations([*draw(_others).items(), ("sinks", dict(draw(st.permutations(list(sinks.items())))))]))
    return {"before": draw(_scalars), "agent_trace": dict(keys), "after": draw(_others)}


@given(
    documents(), st.sampled_from([True, False, None]), st.integers(2, 6), st.booleans(), st.sampled_from(["\n", "\r\n"])
)
def test_law_what_is_read_afterwards_is_what_was_meant_and_the_rest_is_the_same_text(
    document: dict[str, Any], flow: bool | None, indent: int, value: bool, newline: str
) -> None:
    text = yaml.safe_dump(
        document, default_flow_style=flow, indent=indent, sort_keys=False, allow_unicode=True, line_break=newline
    )
    changed, change = set_value(text, PATH, value)

    document["agent_trace"]["sinks"].setdefault("jsonl", {})["enabled"] = value
    assert yaml.safe_load(changed) == document
    assert any(
        changed[:place] + change.old + changed[place + len(change.new) :] == text
        for place in range(len(changed))
        if changed.startswith(change.new, place)
    )
    assert undo(changed, change) == text
