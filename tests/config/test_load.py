from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.conftest import Load
from tests.config.sink_types import COLLECTOR, CollectorSettings, WebReader, registry
from tracebridge.config import load, locate
from tracebridge.errors import ConfigurationError
from tracebridge.policy import Policy
from tracebridge.secret import Secret

ORIGINAL = """
    # config.yaml
    database: !custom {url: postgres, url: twice}
    agent_trace:
      enabled: true
      trace_dir: "./traces"
      sample_rate: 1.0        # 1.0 = 100%, 0.1 = 10%
      include_messages: true   # Log full message content
      include_thinking: true   # Log thinking/reasoning
      max_content_length: 10000
    server:
      port: 8080
    """


def test_the_originals_file_works_unchanged_beside_other_programs_sections(load_yaml: Load) -> None:
    settings = load_yaml(ORIGINAL)
    assert settings.enabled
    assert settings.trace_dir == Path.cwd() / "traces"
    assert settings.capture == Policy(max_content_length=10_000)
    assert settings.keep_journal
    assert settings.sinks == ()


def test_no_file_means_the_journal_alone_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None, {})
    assert settings.trace_dir == tmp_path / "traces"
    assert settings.capture == Policy(max_content_length=10_000)
    assert (settings.keep_journal, settings.sinks, settings.source) == (True, (), "defaults")


def test_every_core_key_is_read(load_yaml: Load) -> None:
    settings = load_yaml(
        """
        agent_trace:
          enabled: false
          trace_dir: /var/traces
          sample_rate: 1e-1
          include_messages: false
          include_thinking: false
          max_content_length: null
          environment: production
          release: "1.4"
          delivery: external
          shutdown_timeout: 0.5
          orphan_after: 60
          trace_scope: session
        """
    )
    assert not settings.enabled
    assert settings.trace_dir == Path("/var/traces")
    assert settings.capture == Policy(
        sample_rate=0.1, include_messages=False, include_thinking=False, max_content_length=None
    )
    assert (settings.environment, settings.release) == ("production", "1.4")
    assert (settings.delivery, settings.trace_scope) == ("external", "session")
    assert (settings.shutdown_timeout, settings.orphan_after) == (0.5, 60.0)


def test_a_mapping_reads_like_a_file() -> None:
    section = {
        "trace_dir": "/t",
        "sinks": {"collector": {"key": Secret("k"), "batch": 7, "regions": ("eu",)}},
    }
    (sink,) = load({"agent_trace": section, "other": object()}, {}, sink_types=registry()).sinks
    assert sink.settings == CollectorSettings(key=Secret("k"), batch=7, regions=("eu",))


def test_a_sinks_name_is_its_type_unless_it_says_otherwise(load_yaml: Load) -> None:
    settings = load_yaml(
        """
        agent_trace:
          sinks:
            collector: {key: one}
            second: {type: collector, key: two, host: "http://two"}
        """
    )
    assert [(sink.name, sink.type, sink.enabled) for sink in settings.sinks] == [
        ("collector", "collector", True),
        ("second", "collector", True),
    ]
    second = settings.sink("second")
    assert second is not None
    assert second.settings == CollectorSettings(key=Secret("two"), host="http://two")
    assert second.sink_type is COLLECTOR
    assert settings.sink("third") is None


def test_the_journal_is_kept_unless_it_is_switched_off(load_yaml: Load) -> None:
    assert load_yaml("agent_trace: {sinks: {collector: {key: k}}}").keep_journal
    assert load_yaml("agent_trace: {sinks: {jsonl: {}}}").keep_journal
    assert not load_yaml("agent_trace: {sinks: {jsonl: {enabled: false}, collector: {key: k}}}").keep_journal


def test_a_sinks_policy_starts_from_captures(load_yaml: Load) -> None:
    (sink,) = load_yaml(
        """
        agent_trace:
          sample_rate: 0.5
          max_content_length: 100
          sinks:
            collector: {key: k, policy: {include_thinking: false, sample_rate: 0.1}}
        """
    ).sinks
    assert sink.policy == Policy(sample_rate=0.1, include_thinking=False, max_content_length=100)


def test_variables_are_expanded_and_take_the_settings_type(load_yaml: Load) -> None:
    settings = load_yaml(
        """
        agent_trace:
          enabled: ${ENABLED:-true}
          sample_rate: ${RATE}
          max_content_length: ${LENGTH:-null}
          release: "v${MAJOR}.${MINOR:-0}"
          environment: $${MAJOR}
          sinks:
            collector:
              key: ${KEY}
              batch: ${BATCH:-20}
              verify: ${VERIFY}
              protocol: ${PROTOCOL}
              headers: {authorization: "Bearer ${KEY}"}
              attributes: ${ATTRIBUTES}
              regions: ["${REGION}", us]
              reader: {type: "${READER}", url: "http://r", timeout: "${WAIT}"}
        """,
        {
            "RATE": "0.25",
            "MAJOR": "3",
            "MINOR": "",
            "KEY": "a: b # {c} ${RATE}",
            "VERIFY": "FALSE",
            "PROTOCOL": "http/protobuf",
            "ATTRIBUTES": "team=a%20b, tier=1",
            "REGION": "eu",
            "READER": "web",
            "WAIT": "1",
        },
    )
    assert settings.enabled
    assert settings.capture == Policy(sample_rate=0.25)
    assert settings.release == "v3.0"
    assert settings.environment == "${MAJOR}"
    (sink,) = settings.sinks
    # what a variable holds is text: neither YAML nor another reference
    assert sink.settings == CollectorSettings(
        key=Secret("a: b # {c} ${RATE}"),
        batch=20,
        verify=False,
        headers={"authorization": Secret("Bearer a: b # {c} ${RATE}")},
        attributes={"team": "a b", "tier": "1"},
        regions=("eu", "us"),
        reader=WebReader(url="http://r", timeout=1.0),
    )


def test_standard_variables_fill_what_the_file_leaves_out(load_yaml: Load) -> None:
    environ = {
        "COLLECTOR_HOST": "http://general",
        "COLLECTOR_TRACES_HOST": "",
        "COLLECTOR_KEY": "from-environment",
        "COLLECTOR_TIMEOUT": "2.5",
        "COLLECTOR_ATTRIBUTES": "team=a,tier=b",
        "COLLECTOR_HEADERS": "authorization=Basic%20abc==",
        "COLLECTOR_REGIONS": "eu,us",
    }
    (sink,) = load_yaml("agent_trace: {sinks: {collector: {timeout: 7}}}", environ).sinks
    assert sink.settings == CollectorSettings(
        host="http://general",
        key=Secret("from-environment"),
        timeout=7,
        attributes={"team": "a", "tier": "b"},
        headers={"authorization": Secret("Basic abc==")},
        regions=("eu", "us"),
    )
    (sink,) = load_yaml("agent_trace: {sinks: {collector: {}}}", environ | {"COLLECTOR_TRACES_HOST": "http://t"}).sinks
    assert isinstance(sink.settings, CollectorSettings)
    assert sink.settings.host == "http://t"


@pytest.mark.parametrize(
    "section",
    [
        "{sinks: {collector: {enabled: false, key: '${UNSET}'}}}",
        "{sinks: {collector: {enabled: '${UNSET:-false}'}}}",
        "{sinks: {collector: {enabled: false, key: k, batch: '${UNSET:-many}'}}}",
        "{enabled: false, sinks: {collector: {key: '${UNSET}'}}}",
        "{sinks: {elsewhere: {type: not-installed-here, enabled: false, any: key}}}",
    ],
)
def test_what_is_switched_off_need_not_be_complete(load_yaml: Load, section: str) -> None:
    settings = load_yaml(f"agent_trace: {section}")
    (sink,) = settings.sinks
    assert sink.settings is None
    assert settings.enabled_sinks == () or not settings.enabled


def test_anchors_and_merge_keys_of_the_users_file_work(load_yaml: Load) -> None:
    settings = load_yaml(
        """
        shared: &shared {sample_rate: 0.3, include_thinking: false}
        agent_trace:
          <<: *shared
          include_thinking: true
        """
    )
    assert settings.capture == Policy(sample_rate=0.3, max_content_length=10_000)


def test_the_home_directory_may_be_abbreviated(load_yaml: Load) -> None:
    assert load_yaml("agent_trace: {trace_dir: ~/traces}").trace_dir == Path.home() / "traces"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes("agent_trace: {release: ü}".encode("utf-8-sig"))
    assert load(path, {}).release == "ü"


def test_the_option_comes_before_the_variable_and_that_before_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"TRACEBRIDGE_CONFIG": "variable.yaml"}
    assert locate(None, {}) is None
    Path("tracebridge.yaml").touch()
    assert locate(None, {}) == Path("tracebridge.yaml")
    assert locate(None, environ) == Path("variable.yaml")
    assert locate("option.yaml", environ) == Path("option.yaml")


def test_importing_the_configuration_loads_neither_yaml_nor_importlib_metadata() -> None:
    program = "import sys, tracebridge.config; print({'yaml', 'importlib.metadata', 'difflib'} & set(sys.modules))"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], check=True, capture_output=True, text=True, env=environ
    )
    assert done.stdout.strip() == "set()"


def test_a_sink_without_content_is_sent_nothing_that_was_said_and_whatever_else_its_policy_says(
    load_yaml: Load,
) -> None:
    settings = load_yaml(
        """
        agent_trace:
          sinks:
            collector: {key: k, content: false, policy: {sample_rate: 0.1}}
            other: {type: collector, key: k, content: true}
        """
    )
    first, second = settings.sinks
    assert first.policy == Policy(
        sample_rate=0.1, include_messages=False, include_thinking=False, max_content_length=10_000
    )
    assert second.policy == settings.capture
    assert settings.origins["agent_trace.sinks.collector.policy.include_messages"] == "content: false"


@pytest.mark.parametrize("key", ["trace_dir", "sinks", "migration", "release"])
def test_aliases_of_aliases_of_aliases_are_a_mistake_like_any_other(load_yaml: Load, key: str) -> None:
    """Written out they would be more than any machine holds."""
    doubled = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(ConfigurationError, match=rf"agent_trace\.{key}: expected"):
        load_yaml(f"a0: &a0 [x]\n{doubled}agent_trace:\n  {key}: *a29\n")
