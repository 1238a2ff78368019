"""What cannot be seen is written out, and nothing else is changed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given

from tests.report.samples import TEXTS
from tracebridge.report.visible import in_one_line, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n\ttext, é 漢 🧑", "plain\n\ttext, é 漢 🧑"),
        ("a\x00b\x1b[31m", "a\\x00b\\x1b[31m"),
        ("a\u00a0b\u202ec", "a\\xa0b\\u202ec"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_only_what_cannot_be_seen_is_escaped(text: str, seen: str) -> None:
    assert visible(text) == seen


@given(TEXTS)
def test_what_comes_out_can_be_encoded_and_seen(text: str) -> None:
    for seen in (visible(text), in_one_line(text)):
        seen.encode("utf-8")
        assert not [one for one in seen if unicodedata.category(one)[0] == "C" and one not in "\n\t"]


def test_in_one_line_there_is_no_other() -> None:
    assert in_one_line("a\r\nb\tc") == "a\\x0d\\x0ab\\x09c"
