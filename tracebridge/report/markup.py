"""HTML and XML as values: every text in them is escaped when it is written, because nothing else can be put in.

A template engine escapes what it is not told to leave alone; here there is no way to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from tracebridge.report.visible import visible

Child: TypeAlias = "str | Element | Sequence[Child] | None"
"""What an element may hold; None is nothing."""

_VOID: Final = frozenset({"meta", "hr"})
"""HTML's elements that hold nothing, as far as they are used."""


class Element:
    """One element. Its name and the names of its attributes come from our code, all else may be anybody's."""

    def __init__(self, name: str, attributes: Mapping[str, str], children: Sequence[Child]) -> None:
        self._name, self._attributes, self._children = name, attributes, children

    def parts(self) -> Iterator[str]:
        """The text of the element, piece by piece."""
        attributes = "".join(f' {name}="{escape(visible(value))}"' for name, value in self._attributes.items())
        yield f"<{self._name}{attributes}>"
        if self._name not in _VOID:
            yield from _parts(self._children)
            yield f"</{self._name}>"

    def __str__(self) -> str:
        return "".join(self.parts())


def element(name: str, /, *children: Child, **attributes: str) -> Element:
    """An element. Attributes that Python has a word for are written with `_` at the end, `-` as `_`."""
    return Element(
        name, {key.removesuffix("_").replace("_", "-"): value for key, value in attributes.items()}, children
    )


def link(url: str, text: str) -> Element | str:
    """A link to a page of the web. Any other address, as one that would run a program, is text."""
    try:
        is_page = urlsplit(url).scheme in {"http", "https"}
    except ValueError:
        is_page = False
    return element("a", text, href=url, rel="noreferrer") if is_page else url


def _parts(children: Sequence[Child]) -> Iterator[str]:
    for child in children:
        if isinstance(child, str):
            yield escape(visible(child), quote=False)
        elif isinstance(child, Element):
            yield from child.parts()
        elif child is not None:
            yield from _parts(child)
