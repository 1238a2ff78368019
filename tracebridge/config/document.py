"""A configuration as a tree of nodes that remember where they stand.

YAML is read as nodes, not as values: nodes know their lines, duplicate keys can still be seen, and tags in
the sections that belong to other programs need not be understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import yaml

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
_VALUE_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_TEXT_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "value"))
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class MalformedError(Exception):
    """A text that cannot be read as settings: says what is wrong, what to do, and the line if it is known."""

    def __init__(self, problem: str, remedy: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.line = line


class ScalarNode(msgspec.Struct, frozen=True, kw_only=True):
    """A single value."""

    value: Any
    """None, bool, int, float or str; a program's own mapping may hold anything else."""
    written: str
    """The value as written: `off` where `value` is False."""
    line: int | None

    def __repr__(self) -> str:
        # the value may be a credential
        return f"ScalarNode(<{type(self.value).__name__}>, line={self.line})"


class ListNode(msgspec.Struct, frozen=True, kw_only=True):
    """A list of nodes."""

    items: tuple[Node, ...]
    line: int | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a mapping, and its value."""

    key: str
    line: int | None
    value: Node


class MappingNode(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and their values, in the order of the file and with its duplicates."""

    entries: tuple[Entry, ...]
    line: int | None


Node = ScalarNode | ListNode | MappingNode

_Known = dict[int, Node | None]
"""By the identity of a node of the YAML library, what it was converted to; None as long as it is being converted."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration says at its top level about one section, and which other sections it has."""

    sections: tuple[Entry, ...]
    """The section that was asked for: none, one, or, if the key is repeated, more."""
    others: tuple[str, ...]
    """The keys of the other sections. They belong to other programs and were not read."""


def decode(content: bytes) -> str:
    """Decode a file's bytes.

    Raises:
        MalformedError: they are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedError("the file is not UTF-8 text", "save it in the encoding UTF-8", line) from None


def from_yaml(text: str, section: str) -> Document:
    """Read one top-level section of a YAML text.

    Raises:
        MalformedError: the text is not YAML, or not a mapping.
    """
    # imported here: an agent that is configured by a mapping, or not at all, need not pay for it at import
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text) from None
    except RecursionError:
        raise MalformedError("the YAML is nested too deeply", "flatten it") from None
    if root is None:
        raise MalformedError("the file is empty", f"add a section `{section}:`, or remove the file")
    if not isinstance(root, yaml.MappingNode):
        raise MalformedError("the file is not a mapping", f"start it with `{section}:`", _line(root))
    return Document(
        sections=tuple(_entry(key, value, {}) for key, value in root.value if key.value == section),
        others=tuple(str(key.value) for key, _ in root.value if key.value != section),
    )


def from_mapping(mapping: Mapping[str, Any], section: str) -> Document:
    """Read one top-level section of a mapping that a program made."""
    return Document(
        sections=tuple(
            Entry(key=section, line=None, value=_node(value)) for key, value in mapping.items() if key == section
        ),
        others=tuple(str(key) for key in mapping if key != section),
    )


def _node(value: Any) -> Node:
    if isinstance(value, Mapping):
        entries = tuple(Entry(key=str(key), line=None, value=_node(item)) for key, item in value.items())
        return MappingNode(entries=entries, line=None)
    if isinstance(value, list | tuple):
        return ListNode(items=tuple(_node(item) for item in value), line=None)
    return ScalarNode(value=value, written=str(value), line=None)


def _convert(node: yaml.Node, known: _Known) -> Node:
    # once for all aliases of it: those of aliases of aliases would be too many
    if id(node) not in known:
        known[id(node)] = None
        known[id(node)] = _converted(node, known)
    found = known[id(node)]
    if found is None:
        raise MalformedError("an alias refers to what it is part of", "write the value out", _line(node))
    return found


def _converted(node: yaml.Node, known: _Known) -> Node:
    import yaml

    if isinstance(node, yaml.MappingNode):
        return MappingNode(entries=_entries(node, known), line=_line(node))
    if isinstance(node, yaml.SequenceNode):
        return ListNode(items=tuple(_convert(item, known) for item in node.value), line=_line(node))
    assert isinstance(node, yaml.ScalarNode), "YAML has three kinds of nodes"
    return _scalar(node)


def _entries(node: yaml.MappingNode, known: _Known) -> tuple[Entry, ...]:
    own = [_entry(key, value, known) for key, value in node.value if key.tag != _MERGE_TAG]
    seen = {entry.key for entry in own}
    merged: list[Entry] = []
    for key, value in node.value:
        for entry in _merged(value, known) if key.tag == _MERGE_TAG else ():
            if entry.key not in seen:
                seen.add(entry.key)
                merged.append(entry)
    return (*own, *merged)


def _merged(node: yaml.Node, known: _Known) -> Iterable[Entry]:
    converted = _convert(node, known)
    for part in converted.items if isinstance(converted, ListNode) else (converted,):
        if not isinstance(part, MappingNode):
            raise MalformedError("`<<` merges something that is no mapping", "merge mappings only", _line(node))
        yield from part.entries


def _entry(key: yaml.Node, value: yaml.Node, known: _Known) -> Entry:
    if not isinstance(key.value, str):
        raise MalformedError("a key is a list or a mapping", "write a plain name", _line(key))
    return Entry(key=key.value, line=_line(key), value=_convert(value, known))


def _scalar(node: yaml.ScalarNode) -> ScalarNode:
    import yaml

    value: Any
    if node.tag in _VALUE_TAGS:
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
        except ValueError:
            raise MalformedError("a number cannot be read", "put it in quotes if it is text", _line(node)) from None
    elif node.tag in _TEXT_TAGS:
        # PyYAML follows YAML 1.1, where 1e-3 is text; nobody who writes it means that
        is_number = node.style is None and _EXPONENT.fullmatch(node.value) is not None
        value = float(node.value) if is_number else node.value
    else:
        # the tag is not named: it may be a credential that starts with an exclamation mark
        raise MalformedError("a value has a YAML tag", "put a value that starts with `!` in quotes", _line(node))
    return ScalarNode(value=value, written=node.value, line=_line(node))


def _syntax_error(error: yaml.YAMLError, text: str) -> MalformedError:
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return MalformedError("the file holds a character that YAML does not allow", "remove it", line)
    if not isinstance(error, yaml.MarkedYAMLError):
        return MalformedError("the file is not valid YAML", "correct its syntax")
    mark = error.problem_mark or error.context_mark
    # what YAML quotes from the file may be a credential that starts with `*`, `&`, `!` or `%`
    words = " ".join(filter(None, (error.context, error.problem)))
    problem = _QUOTED.sub(lambda quote: quote[0] if len(quote[0]) <= len("'x'") else "…", words)
    lines = text.splitlines()
    places = {place.line for place in (mark, error.context_mark) if place is not None and place.line < len(lines)}
    if any("${" in lines[place] for place in places):
        remedy = "inside { } and [ ] put ${VAR} in quotes"
    elif any("\t" in lines[place] for place in places):
        remedy = "indent with spaces, not with tabs"
    else:
        remedy = "put values that start with one of *&!%@` or hold `: ` or ` #` in quotes"
    return MalformedError(f"the file is not valid YAML: {problem}", remedy, None if mark is None else mark.line + 1)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
