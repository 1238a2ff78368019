"""`Secret`: a text that is never shown by accident."""

from __future__ import annotations

from typing import Final, NoReturn

MASK: Final = "********"
"""What stands for a secret wherever one would be shown."""


class Secret:
    """Wraps a credential. Every way of showing it gives the mask; only `reveal` gives the text.

    It cannot be pickled, and encoders that do not know it refuse it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Call it where the credential is used, and keep it nowhere."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the name of its environment variable instead")
