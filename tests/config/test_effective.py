from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.conftest import Load
from tests.config.sink_types import registry
from tracebridge.config import load, reveal, show


def test_the_effective_configuration_tells_every_value_and_its_origin(
    load_yaml: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_yaml(
        """
        agent_trace:
          trace_dir: /var/traces
          sample_rate: ${RATE}
          sinks:
            collector:
              key: ${KEY}
              reader: {type: web, url: "http://r"}
              policy: {include_thinking: false}
        """,
        {"RATE": "0.5", "KEY": "k", "COLLECTOR_HOST": "http://h", "COLLECTOR_ATTRIBUTES": "team=a"},
    )
    assert show(settings) == dedent(
        """\
        # source: agent.yaml
        agent_trace:
          enabled: true  # default
          trace_dir: "/var/traces"  # line 3
          sample_rate: 0.5  # line 4, from $RATE
          include_messages: true  # default
          include_thinking: true  # default
          max_content_length: 10000  # default
          environment: ""  # default
          release: ""  # default
          delivery: thread  # default
          shutdown_timeout: 2.0  # default
          orphan_after: 3600.0  # default
          trace_scope: turn  # default
          propagate: false  # default
          migration:
            min_sessions: 100  # default
            min_days: 1.0  # default
            fresh_within: 86400.0  # default
            pending_within: 60.0  # default
          sinks:
            jsonl:
              enabled: true  # default
            collector:
              type: collector  # default
              enabled: true  # default
              host: "http://h"  # environment variable COLLECTOR_HOST
              key: "********"  # line 7, from $KEY
              protocol: "http/protobuf"  # default
              timeout: 10.0  # default
              batch: 100  # default
              verify: true  # default
              headers: {}  # default
              attributes:  # environment variable COLLECTOR_ATTRIBUTES
                team: a
              regions: []  # default
              reader:
                type: web  # line 8
                url: "http://r"  # line 8
                timeout: 5.0  # default
              policy:
                sample_rate: 0.5  # as capture
                include_messages: true  # as capture
                include_thinking: false  # line 9
                max_content_length: 10000  # as capture
                include_unsampled: true  # as capture
        """
    )


@pytest.mark.parametrize(
    ("environ", "origin"),
    [({}, "the default of $RATE"), ({"RATE": ""}, "the default of $RATE"), ({"RATE": "0.5"}, "from $RATE")],
)
def test_the_default_of_a_variable_is_told_apart_from_its_value(
    load_yaml: Load, environ: dict[str, str], origin: str
) -> None:
    shown = show(load_yaml("agent_trace:\n  sample_rate: ${RATE:-0.5}", environ))
    assert f"  sample_rate: 0.5  # line 2, {origin}\n" in shown


@given(
    release=st.text(st.characters(codec="utf-8")),
    regions=st.lists(st.text(st.characters(codec="utf-8"))),
    attributes=st.dictionaries(st.text(st.characters(codec="utf-8")), st.sampled_from(["on", "1", "${A}", "a: #b"])),
)
def test_what_is_shown_loads_as_the_same_settings(
    tmp_path: Path, release: str, regions: list[str], attributes: dict[str, str]
) -> None:
    sink: dict[str, object] = {"key": "********", "regions": [text.replace("${", "$${") for text in regions]}
    sink |= {"attributes": {key: text.replace("${", "$${") for key, text in attributes.items()}}
    section = {"release": release.replace("${", "$${"), "sinks": {"collector": sink}}
    settings = load({"agent_trace": section}, {}, sink_types=registry())
    path = tmp_path / "shown.yaml"
    path.write_text(show(settings), encoding="utf-8", newline="")
    again = load(path, {}, sink_types=registry())
    assert msgspec.structs.replace(again, source="", origins={}) == msgspec.structs.replace(
        settings, source="", origins={}
    )


@given(
    key=st.text(),
    regions=st.lists(st.text() | st.sampled_from(["${A}", "$${", "\U0001f600", "\x7f", "null", "1e3"])),
    attributes=st.dictionaries(st.text(), st.sampled_from(["on", "1", "${A}", "a: #b"])),
)
def test_what_is_revealed_loads_as_the_same_settings_with_the_secrets(
    key: str, regions: list[str], attributes: dict[str, str]
) -> None:
    written = {name: value.replace("${", "$${") for name, value in attributes.items()}
    sink: dict[str, object] = {
        "key": key.replace("${", "$${"),
        "regions": [text.replace("${", "$${") for text in regions],
    }
    sink |= {"attributes": written, "reader": {"type": "web", "url": "http://r"}, "policy": {"include_thinking": False}}
    section = {"sinks": {"collector": sink, "off": {"type": "nowhere", "enabled": False}}, "max_content_length": None}
    settings = load({"agent_trace": section}, {}, sink_types=registry())
    again = load(reveal(settings), {"COLLECTOR_HOST": "from the environment"}, sink_types=registry())
    assert again.source == "standard input"
    assert again.sinks == settings.enabled_sinks
    assert msgspec.structs.replace(again, source="", origins={}, sinks=()) == msgspec.structs.replace(
        settings, source="", origins={}, sinks=()
    )
