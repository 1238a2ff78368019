"""What is marked as changed is changed, what is not is the same, and size does not matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracebridge.report.marking import Piece, Pieces, common_start, marked, shortened

TEXTS = st.text(st.sampled_from("ab \n.é"), max_size=40)


def text_of(pieces: Pieces) -> str:
    return "".join(piece.text for piece in pieces)


def unchanged(pieces: Pieces) -> str:
    return "".join(piece.text for piece in pieces if not piece.is_changed)


@given(TEXTS, TEXTS)
def test_the_pieces_are_the_texts_and_what_is_not_marked_is_the_same_on_both_sides(left: str, right: str) -> None:
    marked_left, marked_right = marked(left, right)
    assert (text_of(marked_left), text_of(marked_right)) == (left, right)
    assert unchanged(marked_left) == unchanged(marked_right)


@given(TEXTS, TEXTS)
def test_something_is_marked_exactly_if_the_texts_differ(left: str, right: str) -> None:
    pieces = [piece for side in marked(left, right) for piece in side]
    assert any(piece.is_changed for piece in pieces) is (left != right)


@given(TEXTS, TEXTS)
def test_the_common_start_is_the_longest(left: str, right: str) -> None:
    length = common_start(left, right)
    assert left[:length] == right[:length]
    assert left[length : length + 1] != right[length : length + 1] or length == len(left) == len(right)


def test_only_the_words_that_changed_are_marked() -> None:
    left, right = marked("It was shipped this morning, by boat.", "It was sent this evening, by boat.")
    assert [piece.text for piece in left if piece.is_changed] == ["shipped", "morning"]
    assert [piece.text for piece in right if piece.is_changed] == ["sent", "evening"]


def test_one_character_deep_in_five_megabytes_is_found_alone() -> None:
    text = "All happy families are alike; " * 170_000
    # matching such a text word by word takes hours
    left, right = marked(text[:3_000_014] + "x" + text[3_000_015:], text)
    assert [len(piece.text) for piece in left if piece.is_changed] == [len("families")]
    assert [piece.text for piece in right if piece.is_changed] == ["families"]


def test_five_megabytes_that_have_nothing_in_common_are_marked_as_a_whole() -> None:
    left, right = marked("a b " * 1_250_000, "c d " * 1_250_000)
    assert any(piece.is_changed for piece in left)
    assert len(left) <= 2
    assert len(right) <= 2


def test_what_is_alike_is_shortened_to_its_edges_and_what_is_left_out_is_counted() -> None:
    pieces = (Piece("0123456789", False), Piece("X" * 9, True), Piece("abcdefghij", False))
    assert shortened(pieces, context=3, most=5) == (
        Piece("", False, 7),
        Piece("789", False),
        Piece("XXXXX", True, 4),
        Piece("abc", False, 7),
    )


@given(TEXTS, TEXTS, st.integers(0, 10), st.integers(1, 10))
def test_shortening_leaves_nothing_out_uncounted(left: str, right: str, context: int, most: int) -> None:
    for side, text in zip(marked(left, right), (left, right), strict=True):
        short = shortened(side, context, most)
        assert sum(len(piece.text) + piece.left_out for piece in short) == len(text)
