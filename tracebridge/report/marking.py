"""Where two texts differ: both in pieces, of which the changed ones are marked. Pure, and quick for any size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final, NamedTuple

MOST_MATCHED: Final = 500
"""Words on a side, between what is alike at both ends, up to which they are matched; more are marked as a whole.

Matching takes up to the square of it.
"""

LONGEST_WORD: Final = 40

_WORD: Final = re.compile(r"\w+|\s+|[^\w\s]")
_WORD_AT_START: Final = re.compile(r"\w+")
_WORD_AT_END: Final = re.compile(r"\w+\Z")


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    is_changed: bool
    left_out: int = 0
    """Characters that follow and are not shown."""


Pieces = tuple[Piece, ...]


def marked(left: str, right: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces: those that are not changed are the same on both sides, in the same order."""
    start = common_start(left, right)
    end = _common_end(left, right, start)
    # a word is marked as a whole: half of one reads badly
    start -= _length(_WORD_AT_END.search(left, max(0, start - LONGEST_WORD), start))
    end -= _length(_WORD_AT_START.match(left, len(left) - end, min(len(left), len(left) - end + LONGEST_WORD)))
    inner_left, inner_right = left[start : len(left) - end], right[start : len(right) - end]
    before = [Piece(left[:start], False)]
    after = [Piece(left[len(left) - end :], False)]
    marked_left, marked_right = _matched(inner_left, inner_right)
    return _joined([*before, *marked_left, *after]), _joined([*before, *marked_right, *after])


def shortened(pieces: Pieces, context: int, most: int) -> Pieces:
    """The pieces with `most` characters of each change, and `context` characters of what is alike beside it.

    What is left out is counted.
    """
    short: list[Piece] = []
    for number, piece in enumerate(pieces):
        if piece.is_changed:
            short.append(_cut(piece, most))
            continue
        head = context if number else 0
        tail = context if number < len(pieces) - 1 else 0
        if len(piece.text) <= head + tail or (len(pieces) == 1 and len(piece.text) <= most):
            short.append(piece)
        elif len(pieces) == 1:
            short.append(_cut(piece, most))
        else:
            ending = piece.text[len(piece.text) - tail :]
            short += [Piece(piece.text[:head], False, len(piece.text) - head - tail), Piece(ending, False)]
    return tuple(piece for piece in short if piece.text or piece.left_out)


def common_start(left: str, right: str) -> int:
    """How many characters at the start are the same."""
    same, different = 0, min(len(left), len(right)) + 1
    # slices are compared at the speed of memory, characters one by one are not
    while different - same > 1:
        middle = (same + different) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            different = middle
    return same


def _common_end(left: str, right: str, start: int) -> int:
    """How many characters at the end are the same, apart from the first `start`."""
    same, different = 0, min(len(left), len(right)) - start + 1
    while different - same > 1:
        middle = (same + different) // 2
        if left[len(left) - middle : len(left) - same] == right[len(right) - middle : len(right) - same]:
            same = middle
        else:
            different = middle
    return same


def _length(found: re.Match[str] | None) -> int:
    return len(found[0]) if found else 0


def _matched(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    left_words, right_words = _words(left), _words(right)
    if left_words is None or right_words is None:
        return [Piece(left, True)], [Piece(right, True)]
    marked_left: list[Piece] = []
    marked_right: list[Piece] = []
    matcher = SequenceMatcher(None, left_words, right_words, autojunk=False)
    for tag, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        marked_left.append(Piece("".join(left_words[left_from:left_to]), tag != "equal"))
        marked_right.append(Piece("".join(right_words[right_from:right_to]), tag != "equal"))
    return marked_left, marked_right


def _words(text: str) -> list[str] | None:
    """The words of a text; None if there are too many."""
    words: list[str] = []
    for found in _WORD.finditer(text):
        words.append(found[0])
        if len(words) > MOST_MATCHED:
            return None
    return words


def _joined(pieces: Sequence[Piece]) -> Pieces:
    """The pieces without empty ones, neighbours of a kind in one."""
    joined: list[Piece] = []
    for piece in pieces:
        if not piece.text:
            continue
        if joined and joined[-1].is_changed == piece.is_changed:
            joined[-1] = Piece(joined[-1].text + piece.text, piece.is_changed)
        else:
            joined.append(piece)
    return tuple(joined)


def _cut(piece: Piece, most: int) -> Piece:
    return piece._replace(text=piece.text[:most], left_out=max(0, len(piece.text) - most))
