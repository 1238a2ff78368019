"""Changes one `true`, `false` or number in a YAML text, and not a byte more.

The place is found by the marks of PyYAML's nodes; the text around it is never written anew. So comments, order, quotes
and line ends stay as they are. What cannot be changed by one piece of text is refused, with what to do by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import yaml

from tracebridge.errors import TracebridgeError

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
_BOOL_TAG: Final = "tag:yaml.org,2002:bool"
_NUMBER_TAGS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_TRUE: Final = frozenset(("true", "yes", "on"))
_FALSE: Final = frozenset(("false", "no", "off"))


class EditError(TracebridgeError):
    """The text cannot be changed here: says where, why, and what to write by hand."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one value, enough to undo it."""

    path: tuple[str, ...]
    """The keys that lead to the value."""
    value: bool | float
    """What stands there since."""
    old: str
    """The text that stood there; empty if the key was added."""
    new: str
    """The text that was put there."""


def set_value(text: str, path: tuple[str, ...], value: bool | float) -> tuple[str, Change]:
    """Put a value at `path`, of the kind that stands there; returns the new text, and the change.

    Keys that are missing are added, with the indentation of their neighbours.

    Raises:
        EditError: the value comes from a variable, an alias or a merge, or stands where nothing can be added.
    """
    tree = _Tree(text, path, value)
    node, missing = tree.walk()
    if not missing:
        start, end = tree.plain(node)
        new = _word(value)
    else:
        assert isinstance(node, yaml.MappingNode), "keys are missing in mappings only"
        start = end = tree.behind_brace(node) if node.flow_style else tree.line_of_first_key(node)
        new = _added(node, missing, value, text)
    changed = text[:start] + new + text[end:]
    # what was written must be what is read; whoever finds a text for which it is not gets no half-right file
    if _Tree(changed, path, value).read() != value:
        raise tree.refusal("it cannot be changed safely")
    return changed, Change(path=path, value=value, old=text[start:end], new=new)


def holds(text: str, change: Change) -> bool:
    """Whether the value of a change stands in its place.

    Raises:
        EditError: the text is not valid YAML.
    """
    return _Tree(text, change.path, change.value).read() == change.value


def undo(text: str, change: Change) -> str:
    """Take a change to true or false back, and nothing that was written since.

    Raises:
        EditError: something else stands there now.
    """
    tree = _Tree(text, change.path, not change.value)
    if tree.read() != change.value:
        raise tree.refusal("it was changed since by somebody else")
    node, _ = tree.walk()
    start, end = tree.plain(node)
    if not change.old:
        for found in _occurrences(text, change.new):
            if found <= start and end <= found + len(change.new):
                return text[:found] + text[found + len(change.new) :]
    return text[:start] + (change.old or _word(not change.value)) + text[end:]


class _Tree:
    """A YAML text with the place in it that is to be changed."""

    def __init__(self, text: str, path: tuple[str, ...], value: bool | float) -> None:
        self._text = text
        self._path = path
        self._value = value
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            raise self.refusal("the file is not valid YAML") from None
        self._references = Counter(id(child) for child in _edges(self._root))

    def refusal(self, why: str, node: yaml.Node | None = None) -> EditError:
        """The error that tells what to do by hand."""
        line = "" if node is None else f", line {node.start_mark.line + 1}"
        return EditError(f"`{'.'.join(self._path)}`{line}: {why}; write `{_word(self._value)}` there by hand")

    def walk(self) -> tuple[yaml.Node, tuple[str, ...]]:
        """The value's node, or the innermost mapping that is there, and the keys that are missing below it."""
        if self._root is None:
            raise self.refusal("there is no mapping in the file")
        node = self._root
        for place, key in enumerate(self._path):
            if not isinstance(node, yaml.MappingNode):
                raise self.refusal(f"there is no mapping above `{key}`", node)
            found = [value for name, value in node.value if name.value == key and name.tag != _MERGE_TAG]
            if not found:
                if any(name.tag == _MERGE_TAG for name, _ in node.value):
                    raise self.refusal("a merge (`<<`) may bring it", node)
                return node, self._path[place:]
            node = found[-1]
            if self._references[id(node)] > 1:
                raise self.refusal("an alias (`*`) uses the same value elsewhere", node)
        return node, ()

    def read(self) -> bool | float | None:
        """The value, if one of the kind that is to be put there stands there."""
        node, missing = self.walk()
        if missing or not isinstance(node, yaml.ScalarNode):
            return None
        if isinstance(self._value, bool):
            return node.value.lower() in _TRUE if node.tag == _BOOL_TAG else None
        return float(yaml.safe_load(node.value)) if node.tag in _NUMBER_TAGS else None

    def plain(self, node: yaml.Node) -> tuple[int, int]:
        """Where the text of a plain value, of the kind that is to be put there, begins and ends."""
        start, end = node.start_mark.index, node.end_mark.index
        written = self._text[start:end]
        if isinstance(self._value, bool):
            if not isinstance(node, yaml.ScalarNode) or written.lower() not in _TRUE | _FALSE:
                raise self.refusal("no plain `true` or `false` stands there", node)
        elif not isinstance(node, yaml.ScalarNode) or node.tag not in _NUMBER_TAGS or written != node.value:
            raise self.refusal("no plain number stands there", node)
        return start, end

    def behind_brace(self, node: yaml.Node) -> int:
        """Where a key can be added to a mapping in braces."""
        start: int = node.start_mark.index
        if self._text[start] != "{":
            raise self.refusal("the mapping above it has an anchor or a tag", node)
        return start + 1

    def line_of_first_key(self, node: yaml.Node) -> int:
        """Where a line can be added to a mapping of lines: above its first key, and the comments that belong to it."""
        mark = node.value[0][0].start_mark
        start: int = mark.index - mark.column
        if self._text[start : mark.index].strip(" "):
            raise self.refusal("its first key does not stand on a line of its own", node)
        while (above := self._text.rfind("\n", 0, max(0, start - 1)) + 1) < start:
            if not self._text[above:start].lstrip(" ").startswith("#"):
                break
            start = above
        return start


def _edges(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Each node below the root, as often as something refers to it."""
    pending, seen = [root], {id(root)}
    for node in pending:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        for child in children:
            yield child
            if id(child) not in seen:
                seen.add(id(child))
                pending.append(child)


def _added(node: yaml.MappingNode, keys: tuple[str, ...], value: bool | float, text: str) -> str:
    if node.flow_style:
        # a file in braces may be read as JSON by others
        return _nested(keys, value, '"' if text.startswith("{") else "") + (", " if node.value else "")
    column: int = node.value[0][0].start_mark.column
    return " " * column + _nested(keys, value) + ("\r\n" if "\r\n" in text else "\n")


def _nested(keys: tuple[str, ...], value: bool | float, quote: str = "") -> str:
    first, *rest = keys
    below = f"{{{_nested(tuple(rest), value, quote)}}}" if rest else _word(value)
    return f"{quote}{first}{quote}: {below}"


def _word(value: bool | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # without an exponent, which YAML 1.1 takes for text
    whole, _, fraction = f"{value:.9f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def _occurrences(text: str, part: str) -> Iterator[int]:
    found = text.find(part)
    while found >= 0:
        yield found
        found = text.find(part, found + 1)
