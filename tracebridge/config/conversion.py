"""Turns nodes into typed records, and says of everything that does not fit where it stands.

Nothing is raised on the way: what does not fit becomes a `Mistake` and its value `FAILED`. So one reading
tells all mistakes, and no exception carries a credential in its chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from tracebridge.config.document import Entry, ListNode, MappingNode, Node, ScalarNode
from tracebridge.config.expectation import (
    alternatives,
    bare,
    closest,
    expected,
    found,
    is_record,
    item_type,
    remedy,
)
from tracebridge.config.mistake import Mistake
from tracebridge.config.value import FAILED, Failed, collect, convert, holds_credentials, split
from tracebridge.config.variables import expand

Environment = Mapping[str, Sequence[str]]
"""By key, the environment variables that fill a setting which the file leaves out, in order of precedence."""

_SHORTEST_CREDENTIAL: Final = 8
"""Shorter texts are not looked for in messages: `true` or `grpc` would be found where they mean no value."""

_NOTHING: Final[Environment] = MappingProxyType({})


class Conversion:
    """One reading of one configuration: collects what is wrong and where each value came from."""

    def __init__(self, source: str, environ: Mapping[str, str]) -> None:
        self.source = source
        self.environ = environ
        self.mistakes: list[Mistake] = []
        self.origins: dict[str, str] = {}
        self._from_variables: set[str] = set()
        self.tolerant = False
        """Whether what the environment lacks, or has wrong, fails without being noted.

        So it is for sinks that are switched off: their variables may be right on another machine only.
        """

    def report(self, path: str, line: int | None, problem: str, remedy: str) -> Failed:
        """Note a mistake."""
        self.mistakes.append(Mistake(source=self.source, line=line, path=path, problem=problem, remedy=remedy))
        return FAILED

    def mapping(self, node: Node, path: str, line: int | None) -> MappingNode | None:
        """The node as a mapping whose keys are unique; None, with a mistake, if it is something else."""
        if not isinstance(node, MappingNode):
            self._misfit(node, dict[str, Any], path, line)
            return None
        first: dict[str, Entry] = {}
        for entry in node.entries:
            if entry.key in first:
                before = first[entry.key].line
                where = "" if before is None else f" (first in line {before})"
                self.report(f"{path}.{entry.key}", entry.line, f"the key appears twice{where}", "keep one of them")
            first.setdefault(entry.key, entry)
        return MappingNode(entries=tuple(first.values()), line=node.line)

    def record(
        self,
        node: MappingNode,
        kind: type[msgspec.Struct],
        path: str,
        *,
        line: int | None,
        environment: Environment = _NOTHING,
        other_keys: Iterable[str] = (),
    ) -> Any:
        """Read the record `kind`. `other_keys` are keys that belong there too and are read elsewhere."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        tag = kind.__struct_config__.tag_field
        known = {*fields, *other_keys, *([tag] if tag else [])}
        entries = {entry.key: entry for entry in node.entries}
        for entry in node.entries:
            if entry.key not in known:
                self._unknown_key(entry, path, known)
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in entries:
                entry = entries[key]
                values[field.name] = self.value(entry.value, field.type, f"{path}.{key}", entry.line)
                continue
            variable = self._first_set(environment.get(key, ()))
            if variable is not None:
                values[field.name] = self._from_variable(variable, field.type, f"{path}.{key}")
            elif field.required:
                values[field.name] = self._absent(f"{path}.{key}", line, environment.get(key, ()))
        if FAILED in values.values():
            return FAILED
        try:
            return kind(**values)
        except (TypeError, ValueError, OSError) as error:
            # a record that checks itself raises these with words of its own, or asks for what the system does not have
            return self.report(path, line, self._redacted(str(error)), "correct the settings that this names")

    def value(self, node: Node, kind: Any, path: str, line: int | None) -> Any:
        """Read one value of the type `kind`; `line` is that of its key."""
        if not isinstance(node, ScalarNode):
            return self._container(node, kind, path, line)
        origin = "configuration" if line is None else f"line {line}"
        if isinstance(node.value, str):
            expansion = expand(node.value, self.environ)
            if expansion.malformed:
                return self.report(
                    path,
                    line,
                    "`${` starts no variable",
                    "write ${NAME} or ${NAME:-default}, in which no other one stands, or $${ for a plain ${",
                )
            if expansion.missing:
                name = expansion.missing[0]
                return self._unless_tolerant(
                    path,
                    line,
                    f"the environment variable {name} is not set",
                    f"set it, or write ${{{name}:-default}}",
                )
            if expansion.variables:
                names = ", ".join(dict.fromkeys(expansion.variables))
                if expansion.is_default:
                    self.origins[path] = f"{origin}, the default of ${names}"
                    return self._from_text(expansion.text, kind, path, line, f"the default of ${names}", "correct it")
                self.origins[path] = f"{origin}, from ${names}"
                return self._from_text(expansion.text, kind, path, line, f"the value of ${names}")
            node = ScalarNode(value=expansion.text, written=node.written, line=node.line)
        self.origins[path] = origin
        value = convert(node.value, kind, strict=True)
        if value is FAILED:
            return self._misfit(node, kind, path, line)
        return self._without_credentials(value, path, line)

    def _container(self, node: ListNode | MappingNode, kind: Any, path: str, line: int | None) -> Any:
        options = [bare(alternative) for alternative in alternatives(kind)]
        if isinstance(node, MappingNode):
            records = [option for option in options if is_record(option)]
            if records:
                return self._one_record(node, records, path, line)
            items = [item for option in options if (item := item_type(option, Mapping)) is not None]
            if items or Any in options:
                unique = self.mapping(node, path, line)
                values = {
                    entry.key: self.value(entry.value, items[0] if items else Any, f"{path}.{entry.key}", entry.line)
                    for entry in (unique.entries if unique else ())
                }
                return FAILED if FAILED in values.values() else values
            return self._misfit(node, kind, path, line)
        lists = [(option, item) for option in options if (item := item_type(option, Sequence)) is not None]
        if lists or Any in options:
            container, item = lists[0] if lists else (list, Any)
            parts = [self.value(part, item, f"{path}[{number}]", part.line) for number, part in enumerate(node.items)]
            return FAILED if FAILED in parts else collect(parts, container)
        return self._misfit(node, kind, path, line)

    def _one_record(self, node: MappingNode, records: list[Any], path: str, line: int | None) -> Any:
        unique = self.mapping(node, path, line)
        if unique is None:
            return FAILED
        tag_field = records[0].__struct_config__.tag_field
        entry = next((entry for entry in unique.entries if entry.key == tag_field), None)
        if entry is None and len(records) == 1:
            return self.record(unique, records[0], path, line=line)
        by_tag = {record.__struct_config__.tag: record for record in records}
        if entry is None:
            return self.report(path, line, f"`{tag_field}` is missing", f"write one of {', '.join(by_tag)}")
        tags: Any = Literal[tuple(by_tag)]  # made from what the records say
        tag = self.value(entry.value, tags, f"{path}.{tag_field}", entry.line)
        return FAILED if tag is FAILED else self.record(unique, by_tag[tag], path, line=line)

    def _first_set(self, variables: Iterable[str]) -> str | None:
        # OpenTelemetry's rule: a variable that is set to nothing counts as not set
        return next((name for name in variables if self.environ.get(name)), None)

    def _from_variable(self, variable: str, kind: Any, path: str) -> Any:
        self.origins[path] = f"environment variable {variable}"
        return self._from_text(
            self.environ[variable], kind, path, None, f"the value of the environment variable {variable}"
        )

    def _from_text(
        self, text: str, kind: Any, path: str, line: int | None, whose: str, remedy: str = "correct the variable"
    ) -> Any:
        self._from_variables.add(text)
        value = convert(text, kind, strict=False)
        if value is FAILED:
            value = split(text, kind)
        if value is FAILED:
            return self._unless_tolerant(path, line, f"{whose} is not {expected(kind)}", remedy)
        return self._without_credentials(value, path, line)

    def _without_credentials(self, value: Any, path: str, line: int | None) -> Any:
        # what is plain text may be shown, in logs, in `status` and in `config show`
        if isinstance(value, str) and holds_credentials(value):
            return self.report(path, line, "the URL holds credentials", "give them as settings or headers")
        return value

    def _redacted(self, message: str) -> str:
        # a credential may have come to the wrong setting, whose record then quotes it
        for text in self._from_variables:
            if len(text) >= _SHORTEST_CREDENTIAL:
                message = message.replace(text, "…")
        return message

    def _absent(self, path: str, line: int | None, variables: Sequence[str]) -> Failed:
        otherwise = f", or the environment variable {' or '.join(variables)}" if variables else ""
        return self._unless_tolerant(path, line, "the setting is missing", f"set it{otherwise}")

    def _unless_tolerant(self, path: str, line: int | None, problem: str, remedy: str) -> Failed:
        return FAILED if self.tolerant else self.report(path, line, problem, remedy)

    def _misfit(self, node: Node, kind: Any, path: str, line: int | None) -> Failed:
        return self.report(path, line, f"expected {expected(kind)}, found {found(node, kind)}", remedy(node, kind))

    def _unknown_key(self, entry: Entry, path: str, known: Iterable[str]) -> None:
        near = closest(entry.key, known)
        advice = f"did you mean `{near}`?" if near else f"known keys: {', '.join(sorted(known))}"
        self.report(f"{path}.{entry.key}", entry.line, "there is no such key", advice)
