"""The documents say what the code does: their YAML loads, and `docs/configuration.md` has every key."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest

from tracebridge.config import Settings, examine, load, show
from tracebridge.policy import MESSAGE_KEYS, THINKING_KEYS
from tracebridge.registry import Registry
from tracebridge.sink import ENTRY_POINT_GROUP

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][ENTRY_POINT_GROUP]

_BLOCK = re.compile(r"^```yaml\n(?P<yaml>(?:#[^\n]*\n)*agent_trace:.*?)^```$", re.MULTILINE | re.DOTALL)
_REQUIRED_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def yaml_blocks() -> list[tuple[str, str]]:
    return [
        (f"{document.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}", match["yaml"])
        for document in DOCUMENTS
        for text in [document.read_text(encoding="utf-8")]
        for match in _BLOCK.finditer(text)
    ]


BLOCKS = yaml_blocks()


@pytest.fixture(scope="module")
def sink_types() -> Registry:
    """The sink types that this distribution registers, also where it is not installed."""
    return Registry({name: EntryPoint(name, value, ENTRY_POINT_GROUP).load for name, value in ENTRY_POINTS.items()})


@pytest.fixture(scope="module")
def reference() -> str:
    return (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_there_are_examples_to_check() -> None:
    assert sum(place.startswith("docs/configuration.md") for place, _ in BLOCKS) >= 4


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[place for place, _ in BLOCKS])
def test_every_yaml_example_loads(block: str, tmp_path: Path, sink_types: Registry) -> None:
    environ = dict.fromkeys(_REQUIRED_VARIABLE.findall(block), "dummy") | {
        "LANGFUSE_HOST": "http://127.0.0.1:3000",
        "LANGFUSE_PUBLIC_KEY": "dummy",
        "LANGFUSE_SECRET_KEY": "dummy",
    }
    path = tmp_path / "example.yaml"
    path.write_text(block, encoding="utf-8")
    settings, mistakes = examine(path, environ, sink_types=sink_types)
    assert [str(mistake) for mistake in mistakes] == []
    assert isinstance(settings, Settings)


def test_every_core_key_is_documented_with_its_default(reference: str) -> None:
    shown = show(load(None, {}))
    keys = re.findall(r"^  (\w+):", shown, re.MULTILINE)
    assert "orphan_after" in keys
    for key in keys:
        assert f"\n| `{key}` |" in reference


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_key_and_variable_of_a_sink_is_documented(name: str, reference: str, sink_types: Registry) -> None:
    section = reference.partition(f"\n### `{name}`\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    sink_type = sink_types.find(name)
    for field in msgspec.structs.fields(sink_type.settings):
        assert f"\n| `{field.encode_name}` |" in section
    for key, variables in sink_type.environment.items():
        (row,) = re.findall(rf"^\| `{key}` \|.*$", section.partition("\n`reader`")[0], re.MULTILINE)
        assert re.findall(r"`((?:LANGFUSE|OTEL)_\w+)`", row) == list(variables)


def test_what_a_policy_leaves_out_is_documented(reference: str) -> None:
    for event_type, keys in MESSAGE_KEYS.items():
        assert f"\n| `{event_type}` | {', '.join(f'`{key}`' for key in keys)} |" in reference
    for event_type, keys in THINKING_KEYS.items():
        assert all(f"`data.{key}` of `{event_type}`" in reference for key in keys)
