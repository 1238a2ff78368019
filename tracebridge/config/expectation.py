"""What a setting's type asks for, and what a file holds in its place, in words for its author."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from tracebridge.config.document import ListNode, MappingNode, Node, ScalarNode
from tracebridge.secret import Secret

_TYPE_WORDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Secret: "text",
    None: "null",
}


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types that a type annotation allows; None stands for null."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(alternative for member in get_args(kind) for alternative in alternatives(member))
    if kind is msgspec.UnsetType:
        return ()
    return (None if kind is type(None) else kind,)


def bare(kind: Any) -> Any:
    """A type without the constraints that annotate it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def is_record(kind: Any) -> bool:
    """Whether a type is a record of settings of its own."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def item_type(kind: Any, container: type) -> Any:
    """The type of a mapping's values or a list's items; None when the type is no such container."""
    origin = get_origin(kind) or kind
    if not (isinstance(origin, type) and issubclass(origin, container)) or origin in (str, bytes):
        return None
    arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
    return arguments[-1] if arguments else Any


def choices(kind: Any) -> tuple[str, ...]:
    """The values that a type lists, when it lists them."""
    for alternative in map(bare, alternatives(kind)):
        if get_origin(alternative) is Literal:
            return tuple(str(value) for value in get_args(alternative))
        if isinstance(alternative, type) and issubclass(alternative, Enum):
            return tuple(str(member.value) for member in alternative)
    return ()


def expected(kind: Any) -> str:
    """What a type asks for, e.g. `a number from 0 to 1`."""
    return " or ".join(dict.fromkeys(_words(alternative) for alternative in alternatives(kind)))


def found(node: Node, kind: Any) -> str:
    """What stands in the place of a `kind`; it names a value only where that can be no credential."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"`{node.written}`, which YAML reads as {str(node.value).lower()}"
    bares = [bare(alternative) for alternative in alternatives(kind)]
    if isinstance(node.value, int | float):
        return node.written if int in bares or float in bares else "a number"
    if isinstance(node.value, str):
        return f"`{node.written}`" if choices(kind) else "text"
    return f"a Python {type(node.value).__name__}"


def remedy(node: Node, kind: Any) -> str:
    """What to write instead."""
    listed = choices(kind)
    if listed:
        near = closest(node.written, listed) if isinstance(node, ScalarNode) else None
        return f"did you mean `{near}`?" if near else f"write {expected(kind)}"
    if isinstance(node, ScalarNode) and node.value is None:
        return "remove the key to get its default, or give it a value"
    bares = [bare(alternative) for alternative in alternatives(kind)]
    if (
        isinstance(node, ScalarNode)
        and isinstance(node.value, bool | int | float)
        and (str in bares or Secret in bares)
    ):
        return "put the value in quotes"
    if any(is_record(one) or item_type(one, Mapping) is not None for one in bares):
        return "write `key: value` lines under it"
    if any(item_type(one, Sequence) is not None for one in bares):
        return "write a list: [a, b]"
    return f"write {expected(kind)}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    # imported here: only mistakes need it
    import difflib

    lowered = {name.lower().replace("-", "_"): name for name in known}
    matches = difflib.get_close_matches(word.lower().replace("-", "_"), lowered, n=1)
    return lowered[matches[0]] if matches else None


def _words(kind: Any) -> str:
    plain = bare(kind)
    constraints = _constraints(kind)
    if constraints:
        return constraints
    listed = choices(plain)
    if listed:
        return listed[0] if len(listed) == 1 else f"one of {', '.join(listed)}"
    if is_record(plain) or item_type(plain, Mapping) is not None:
        return "a mapping"
    if item_type(plain, Sequence) is not None:
        return "a list"
    return _TYPE_WORDS.get(plain) or ("a value" if plain is Any else str(getattr(plain, "__name__", plain)))


def _constraints(kind: Any) -> str:
    if get_origin(kind) is not Annotated:
        return ""
    metas = [meta for meta in get_args(kind)[1:] if isinstance(meta, msgspec.Meta)]
    described = [meta.description for meta in metas if meta.description]
    if described:
        # the author of the record has better words than can be made of limits
        return described[0]
    limits = [limit for meta in metas for limit in _limits(meta)]
    return f"{_TYPE_WORDS.get(bare(kind), 'a value')} {' and '.join(limits)}" if limits else ""


def _limits(meta: msgspec.Meta) -> list[str]:
    if meta.ge is not None and meta.le is not None:
        return [f"from {meta.ge} to {meta.le}"]
    pairs = (("of at least", meta.ge), ("above", meta.gt), ("below", meta.lt), ("of at most", meta.le))
    words = [f"{word} {limit}" for word, limit in pairs if limit is not None]
    if meta.min_length is not None:
        words.append(f"of at least {meta.min_length} characters")
    if meta.pattern is not None:
        words.append(f"matching {meta.pattern}")
    return words
