from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.sink_types import COLLECTOR, Collector
from tracebridge.errors import ConfigurationError
from tracebridge.registry import Registry, installed


def install(folder: Path, distribution: str, entries: dict[str, str], modules: dict[str, str]) -> None:
    """Put a distribution with sink types where `importlib.metadata` finds it."""
    metadata = folder / f"{distribution}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[tracebridge.sinks]", *lines]))
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_plug_in_of_another_distribution_is_found(site: Path) -> None:
    install(
        site,
        "kafka-sink",
        {"kafka": "kafka_plug_in:KAFKA"},
        {"kafka_plug_in": "from tests.config.sink_types import COLLECTOR as KAFKA"},
    )
    registry = installed()
    assert "kafka" in registry.names
    assert registry.find("kafka") is COLLECTOR


def test_the_journal_is_known_and_is_no_sink_type() -> None:
    registry = Registry({"collector": lambda: COLLECTOR})
    assert registry.names == ("jsonl", "collector")
    with pytest.raises(ConfigurationError, match="journal itself"):
        registry.find("jsonl")


def test_a_plug_in_is_imported_once_and_only_when_asked_for() -> None:
    imports: list[str] = []

    def load() -> object:
        imports.append("collector")
        return COLLECTOR

    registry = Registry({"collector": load})
    assert imports == []
    assert registry.find("collector") is registry.find("collector")
    assert imports == ["collector"]


def test_an_unknown_type_names_those_known() -> None:
    with pytest.raises(ConfigurationError, match=r"no sink type 'colector' is installed \(known: jsonl, collector\)"):
        Registry({"collector": lambda: COLLECTOR}).find("colector")


@pytest.mark.parametrize("name", ["langfuse", "otel"])
def test_our_own_types_name_the_extra_that_brings_them(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"pip install 'tracebridge\[{name}\]'"):
        Registry({}).find(name)


def test_a_plug_in_that_does_not_import_says_why(site: Path) -> None:
    install(
        site,
        "broken-sink",
        {"broken": "broken_plug_in:SINK"},
        {"broken_plug_in": "import surely_not_installed"},
    )
    with pytest.raises(ConfigurationError, match=r"'broken' does not import .*No module named 'surely_not_installed'"):
        installed().find("broken")


def test_a_type_that_two_distributions_offer_is_refused_by_their_names(site: Path) -> None:
    for number in (1, 2):
        install(site, f"rival{number}", {"rival": f"rival_{number}:SINK"}, {f"rival_{number}": "SINK = None"})
    with pytest.raises(ConfigurationError, match="offered by rival1 and rival2"):
        installed().find("rival")


def test_an_entry_point_that_names_something_else_says_what_it_lacks() -> None:
    with pytest.raises(ConfigurationError, match="offers no SinkType: it has no settings, environment"):
        Registry({"number": lambda: 1}).find("number")


def test_settings_that_are_no_record_are_refused() -> None:
    class Loose(Collector):
        settings = dict  # type: ignore[assignment]  # the mistake that is tested

    with pytest.raises(ConfigurationError, match=r"no msgspec\.Struct"):
        Registry({"loose": Loose}).find("loose")
