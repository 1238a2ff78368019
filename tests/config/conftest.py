"""Fixtures of the configuration's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from tests.config.sink_types import registry
from tracebridge.config import Settings, examine, load

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes `agent.yaml` into the current directory, which is a fresh one."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = Path("agent.yaml")
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def load_yaml(config_file: Callable[[str], Path]) -> Load:
    """Loads a YAML text with the given environment."""

    def load_text(text: str, environ: Mapping[str, str] = {}) -> Settings:  # never changed
        return load(config_file(text), environ, sink_types=registry())

    return load_text


@pytest.fixture
def mistakes(config_file: Callable[[str], Path]) -> Mistakes:
    """Tells all mistakes of a YAML text, as a user sees them."""

    def find(text: str, environ: Mapping[str, str] = {}) -> list[str]:  # never changed
        settings, mistakes = examine(config_file(text), environ, sink_types=registry())
        assert (settings is None) == bool(mistakes)
        return [str(mistake) for mistake in mistakes]

    return find
