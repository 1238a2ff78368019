"""Reads the section `agent_trace` into `Settings`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from tracebridge.config.conversion import Conversion
from tracebridge.config.document import Entry, MappingNode, ScalarNode
from tracebridge.config.expectation import found
from tracebridge.config.settings import (
    DEFAULT_MAX_CONTENT_LENGTH,
    DEFAULT_SPOOL_KEEP_S,
    LONGEST_S,
    Delivery,
    Demands,
    Settings,
    SinkSettings,
    TraceScope,
)
from tracebridge.config.value import FAILED, Failed
from tracebridge.policy import CAPTURE_KEYS, Policy, narrow, wider_keys
from tracebridge.registry import JOURNAL_TYPE, DefectivePlugInError, Registry, SinkTypeError
from tracebridge.sink import SinkType

SECTION: Final = "agent_trace"
"""The top-level key of all settings. Others in the same file belong to other programs."""

SINK_KEYS: Final = ("enabled", "type", "content", "policy")
"""The keys that every sink has besides the settings of its type."""

_SINK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Length = Annotated[int, msgspec.Meta(ge=1)] | None


_WITHOUT_CONTENT: Final = Policy(include_messages=False, include_thinking=False)


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = True
    trace_dir: Annotated[str, msgspec.Meta(min_length=1, description="the path of a folder")] = "./traces"
    sample_rate: Rate = 1.0
    include_messages: bool = True
    include_thinking: bool = True
    max_content_length: Length = DEFAULT_MAX_CONTENT_LENGTH
    environment: str = ""
    release: str = ""
    delivery: Delivery = "thread"
    shutdown_timeout: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)] = 2.0
    orphan_after: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)] = 3600.0
    trace_scope: TraceScope = "turn"
    propagate: bool = False
    migration: Demands = Demands()


class _SinkSection(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = True
    content: bool = True
    type: str | msgspec.UnsetType = msgspec.UNSET


class _JournalSection(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = True
    type: Any = JOURNAL_TYPE
    spool_keep: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)] = DEFAULT_SPOOL_KEEP_S


class _PolicySection(msgspec.Struct, frozen=True, kw_only=True):
    sample_rate: Rate | msgspec.UnsetType = msgspec.UNSET
    include_messages: bool | msgspec.UnsetType = msgspec.UNSET
    include_thinking: bool | msgspec.UnsetType = msgspec.UNSET
    max_content_length: Length | msgspec.UnsetType = msgspec.UNSET
    include_unsampled: bool | msgspec.UnsetType = msgspec.UNSET


def read(section: Entry, conversion: Conversion, sink_types: Callable[[], Registry]) -> Settings | Failed:
    """Read the section; what is wrong with it is in `conversion.mistakes` afterwards.

    `sink_types` is called only if a sink is named that needs it.
    """
    node = conversion.mapping(section.value, SECTION, section.line)
    if node is None:
        return FAILED
    core = conversion.record(node, _Section, SECTION, line=section.line, other_keys=("sinks",))
    # with capture unknown, sinks are held to the widest: what is wrong with capture is reported already
    capture = Policy() if core is FAILED else _capture(core)
    enabled = core is FAILED or core.enabled
    reader = _Sinks(conversion, sink_types, capture, enabled)
    sinks_entry = next((entry for entry in node.entries if entry.key == "sinks"), None)
    if sinks_entry is not None:
        reader.read(sinks_entry)
    trace_dir = None if core is FAILED else _trace_dir(core.trace_dir, node, conversion)
    if conversion.mistakes or trace_dir is None:
        return FAILED
    return Settings(
        enabled=core.enabled,
        trace_dir=trace_dir,
        capture=capture,
        environment=core.environment,
        release=core.release,
        delivery=core.delivery,
        shutdown_timeout=core.shutdown_timeout,
        orphan_after=core.orphan_after,
        trace_scope=core.trace_scope,
        propagate=core.propagate,
        migration=core.migration,
        keep_journal=reader.keep_journal,
        spool_keep=reader.spool_keep,
        sinks=tuple(reader.sinks),
        source=conversion.source,
        origins=dict(conversion.origins),
    )


def _trace_dir(written: str, node: MappingNode, conversion: Conversion) -> Path | None:
    """The absolute path of the folder; None, with a mistake, if there is none."""
    path, line = f"{SECTION}.trace_dir", next((entry.line for entry in node.entries if entry.key == "trace_dir"), None)
    if "\0" in written:
        conversion.report(path, line, "no path can hold a NUL character", "remove it")
        return None
    try:
        return Path(written).expanduser().absolute()
    except RuntimeError:
        # a user without an entry and without $HOME, as in many containers, or `~name` with no such user
        conversion.report(
            path, line, "nobody knows the home directory that `~` stands for", "set $HOME, or write it out"
        )
    except OSError:
        conversion.report(
            path,
            line,
            "a relative path starts at the current directory, and that cannot be found",
            "write an absolute path, or start from a directory that is there",
        )
    return None


def _capture(core: _Section) -> Policy:
    return Policy(**{key: getattr(core, key) for key in CAPTURE_KEYS})


class _Sinks:
    """Reads the section `sinks`, entry by entry."""

    def __init__(
        self, conversion: Conversion, sink_types: Callable[[], Registry], capture: Policy, enabled: bool
    ) -> None:
        self.keep_journal = True
        self.spool_keep = DEFAULT_SPOOL_KEEP_S
        self.sinks: list[SinkSettings] = []
        self._conversion = conversion
        self._sink_types = sink_types
        self._registry: Registry | None = None
        self._capture = capture
        self._enabled = enabled

    def read(self, sinks: Entry) -> None:
        path = f"{SECTION}.sinks"
        node = self._conversion.mapping(sinks.value, path, sinks.line)
        if node is None:
            return
        for entry in node.entries:
            self._read_one(entry, f"{path}.{entry.key}")
        nobody = not self.keep_journal and not any(sink.enabled for sink in self.sinks)
        # a sink with a mistake in it is not in the list, and may well be meant to be on
        if self._enabled and nobody and not self._conversion.mistakes:
            self._conversion.report(
                path,
                sinks.line,
                "every sink is switched off, so what is recorded would reach nobody",
                f"switch a sink on, or set `{SECTION}.enabled: false`",
            )

    def _read_one(self, entry: Entry, path: str) -> None:
        if not _SINK_NAME.fullmatch(entry.key):
            self._conversion.report(
                path,
                entry.line,
                "a sink cannot be called that",
                "use letters, digits, `.`, `_` and `-`, at most 64",
            )
            return
        if not isinstance(entry.value, MappingNode):
            self._report_no_mapping(entry, path)
            return
        node = self._conversion.mapping(entry.value, path, entry.line)
        if node is None:
            return
        if entry.key == JOURNAL_TYPE:
            self._read_journal(node, path, entry.line)
        else:
            self._read_sink(entry.key, node, path, entry.line)

    def _report_no_mapping(self, entry: Entry, path: str) -> None:
        off = isinstance(entry.value, ScalarNode) and entry.value.value is False
        self._conversion.report(
            path,
            entry.line,
            f"expected a mapping, found {found(entry.value, dict)}",
            f"write `{entry.key}: {{enabled: {'false' if off else 'true'}}}`",
        )

    def _read_journal(self, node: MappingNode, path: str, line: int | None) -> None:
        for entry in node.entries:
            if entry.key == "policy":
                self._conversion.report(
                    f"{path}.policy",
                    entry.line,
                    "the journal holds what capture keeps, and has no policy of its own",
                    f"set the same keys in `{SECTION}` itself",
                )
        section = self._conversion.record(node, _JournalSection, path, line=line, other_keys=("policy",))
        if section is FAILED:
            return
        if section.type != JOURNAL_TYPE:
            self._conversion.report(
                f"{path}.type",
                line,
                f"the name {JOURNAL_TYPE} belongs to the journal",
                "give this sink another name",
            )
        self.keep_journal = section.enabled
        self.spool_keep = section.spool_keep

    def _read_sink(self, name: str, node: MappingNode, path: str, line: int | None) -> None:
        common = MappingNode(entries=tuple(e for e in node.entries if e.key in SINK_KEYS), line=node.line)
        own = MappingNode(entries=tuple(e for e in node.entries if e.key not in SINK_KEYS), line=node.line)
        section = self._conversion.record(common, _SinkSection, path, line=line, other_keys=("policy",))
        policy = self._policy(common, path)
        if section is FAILED:
            return
        if policy is not None and not section.content:
            policy = narrow(policy, _WITHOUT_CONTENT)
            for key in ("include_messages", "include_thinking"):
                self._conversion.origins[f"{path}.policy.{key}"] = "content: false"
        type_name = name if section.type is msgspec.UNSET else section.type
        named = next((entry for entry in common.entries if entry.key == "type"), None)
        # what is switched off need not be complete: its variables may be set on another machine only
        self._conversion.tolerant = not (self._enabled and section.enabled)
        sink_type, defect = self._sink_type(type_name, f"{path}.type" if named else path, named.line if named else line)
        settings = None if sink_type is None else self._settings(own, sink_type, path, line)
        self._conversion.tolerant = False
        if policy is None:
            return
        self.sinks.append(
            SinkSettings(
                name=name,
                type=type_name,
                enabled=section.enabled,
                policy=policy,
                settings=settings,
                sink_type=sink_type,
                defect=defect,
            )
        )

    def _sink_type(self, name: str, path: str, line: int | None) -> tuple[SinkType | None, str]:
        """The sink type called `name`, or none and what is wrong with its plug-in, if that is the reason."""
        if self._registry is None:
            self._registry = self._sink_types()
        try:
            return self._registry.find(name), ""
        except DefectivePlugInError as error:
            # the other sinks, and what is recorded, have nothing to do with it
            return None, str(error)
        except SinkTypeError as error:
            if not self._conversion.tolerant:
                self._conversion.report(path, line, error.problem, error.remedy)
            return None, ""

    def _settings(self, node: MappingNode, sink_type: SinkType, path: str, line: int | None) -> msgspec.Struct | None:
        settings = self._conversion.record(
            node, sink_type.settings, path, line=line, environment=sink_type.environment, other_keys=SINK_KEYS
        )
        return settings if isinstance(settings, msgspec.Struct) else None

    def _policy(self, common: MappingNode, path: str) -> Policy | None:
        entry = next((entry for entry in common.entries if entry.key == "policy"), None)
        if entry is None:
            return self._capture
        policy_path = f"{path}.policy"
        node = self._conversion.mapping(entry.value, policy_path, entry.line)
        if node is None:
            return None
        section = self._conversion.record(node, _PolicySection, policy_path, line=entry.line)
        if not isinstance(section, _PolicySection):
            return None
        changes = msgspec.structs.asdict(section)
        given = {key: value for key, value in changes.items() if value is not msgspec.UNSET}
        policy: Policy = msgspec.structs.replace(self._capture, **given)
        lines = {item.key: item.line for item in node.entries}
        for key in wider_keys(policy, self._capture):
            self._conversion.report(
                f"{policy_path}.{key}",
                lines[key],
                f"{_json(policy, key)} is wider than capture's {_json(self._capture, key)}, "
                "and a sink can only be sent what capture keeps",
                f"narrow it, or widen `{SECTION}.{key}`",
            )
        return policy


def _json(policy: Policy, key: str) -> str:
    return msgspec.json.encode(getattr(policy, key)).decode()
