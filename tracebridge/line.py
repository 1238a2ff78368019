"""What makes a text that comes from outside fit for one line: of a log, of a terminal, of a page."""

from __future__ import annotations

import re
from typing import Final

_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
"""What ends a line, commands a terminal, or hides or turns what stands beside it."""


def one_line(text: str) -> str:
    """Put spaces in the place of what does not belong into a line."""
    return _UNSEEN.sub(" ", text).strip()
