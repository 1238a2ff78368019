"""The adapters use nothing of other packages that these keep for themselves: it goes without notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ADAPTERS = Path(__file__).resolve().parents[2] / "adapters"
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public, but for a look that keeps them apart from the fields."""


def is_private(name: str) -> bool:
    is_special = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and not is_special and name not in OF_NAMED_TUPLES


def private_names(source: str) -> Iterator[str]:
    """Each private name that a module imports, or takes of an object that is not its own."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                parts = [*module.split("."), *(alias.name for alias in names)]
            case ast.Import(names=names):
                parts = [part for alias in names for part in alias.name.split(".")]
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=attribute):
                # of `self._of_thread.at` the first part is ours, of `self._client._transport` the second is not
                parts = [attribute]
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(attribute)), *_]):
                parts = [attribute]
            case _:
                continue
        yield from (f"line {node.lineno}: {part}" for part in parts if is_private(part))


@pytest.mark.parametrize("file", sorted(ADAPTERS.rglob("*.py")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_an_adapter_uses_no_private_name_of_a_package(file: Path) -> None:
    assert list(private_names(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY",
        "from langfuse._client.client import Langfuse",
        "import grpc._channel",
        "client._transport.close()",
        "self._client._transport.close()",
        "getattr(client, '_transport')",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert len(list(private_names(line))) == 1
