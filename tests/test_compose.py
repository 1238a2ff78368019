"""`docker-compose.langfuse.yml` is valid, open to this machine only, and holds no usable secret.

No container runs here: what can be told from the files is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tracebridge.config import load

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.langfuse.yml"

# ${NAME:?message} stops Compose when the variable is missing or empty
REQUIRED = re.compile(r"\$\{([A-Z0-9_]+):\?[^}]+\}")
DEFAULTED = re.compile(r"\$\{([A-Z0-9_]+):-([^}]*)\}")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|SALT|ENCRYPTION|AUTH$|ACCESS_KEY$|_KEY$")
# what is named like a secret and is none
NOT_SECRET = {"LANGFUSE_S3_EVENT_UPLOAD_ACCESS_KEY_ID", "LANGFUSE_S3_MEDIA_UPLOAD_ACCESS_KEY_ID"}


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def environments(stack: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (service, name, str(value))
        for service, definition in stack["services"].items()
        for name, value in definition.get("environment", {}).items()
    ]


def test_the_file_follows_the_compose_specification() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


STORES = {"postgres", "clickhouse", "redis", "minio"}
LANGFUSE = {"langfuse-web", "langfuse-worker", *STORES}
OTEL = {"otel-collector", "otel-collector-probe", "jaeger", "tempo", "grafana"}
OTEL_BACKENDS = {"jaeger", "tempo"}


def test_the_stack_has_every_part_of_langfuse_v4(stack: dict[str, Any]) -> None:
    images = {name: definition["image"] for name, definition in stack["services"].items()}

    assert set(images) == LANGFUSE | OTEL
    assert "/langfuse:4." in images["langfuse-web"]
    assert "/langfuse-worker:4." in images["langfuse-worker"]
    assert images["langfuse-web"].rpartition(":")[2] == images["langfuse-worker"].rpartition(":")[2]
    assert "/clickhouse-server:25.12" in images["clickhouse"]


def test_langfuse_starts_alone_and_the_rest_with_its_profile(stack: dict[str, Any]) -> None:
    profiles = {name: definition.get("profiles", []) for name, definition in stack["services"].items()}
    assert profiles == {**{key: [] for key in LANGFUSE}, **{key: ["otel"] for key in OTEL}}


def test_every_image_is_pinned_to_a_release(stack: dict[str, Any]) -> None:
    for service, definition in stack["services"].items():
        tag = definition["image"].rpartition(":")[2]
        assert re.fullmatch(r"\d+\.\d+(\.\d+)*|RELEASE\.[\dTZ-]+", tag), f"{service}: {definition['image']}"


def test_every_service_has_a_health_check_or_one_beside_it_that_asks_it(stack: dict[str, Any]) -> None:
    services = stack["services"]
    without = {name for name, definition in services.items() if "healthcheck" not in definition}
    assert without == {"otel-collector"}
    assert "http://otel-collector:13133/" in services["otel-collector-probe"]["healthcheck"]["test"]


def test_every_service_starts_after_those_that_it_needs_are_healthy(stack: dict[str, Any]) -> None:
    healthy = {"condition": "service_healthy"}
    waits_for = {name: definition.get("depends_on", {}) for name, definition in stack["services"].items()}
    assert waits_for == {
        **{key: {} for key in STORES | OTEL_BACKENDS},
        **dict.fromkeys(("langfuse-web", "langfuse-worker"), dict.fromkeys(STORES, healthy)),
        **dict.fromkeys(("otel-collector", "grafana"), dict.fromkeys(OTEL_BACKENDS, healthy)),
        "otel-collector-probe": {"otel-collector": {"condition": "service_started"}},
    }


def test_every_published_port_is_open_to_this_machine_only(stack: dict[str, Any]) -> None:
    published = {name: definition.get("ports", []) for name, definition in stack["services"].items()}

    assert {name for name, ports in published.items() if ports} == {
        "langfuse-web", "minio", "otel-collector", "jaeger", "tempo", "grafana"
    }  # fmt: skip
    for service, ports in published.items():
        for port in ports:
            assert str(port).startswith("127.0.0.1:"), f"{service} publishes {port}"
    assert all("network_mode" not in definition for definition in stack["services"].values())


def test_every_secret_comes_from_the_environment_and_has_no_default(stack: dict[str, Any]) -> None:
    secrets = [
        (service, name, value)
        for service, name, value in environments(stack)
        if SECRET_NAME.search(name) and name not in NOT_SECRET
    ]

    assert len({name for _, name, _ in secrets}) >= 10
    for service, name, value in secrets:
        assert REQUIRED.fullmatch(value), f"{service}: {name} must be ${{VAR:?message}}, found {value!r}"
    database_urls = {value for _, name, value in environments(stack) if name == "DATABASE_URL"}
    assert len(database_urls) == 1
    assert re.fullmatch(rf"postgresql://langfuse:{REQUIRED.pattern}@postgres:5432/langfuse", database_urls.pop())


def test_what_two_services_must_agree_on_is_the_same(stack: dict[str, Any]) -> None:
    services = stack["services"]
    web, worker = services["langfuse-web"]["environment"], services["langfuse-worker"]["environment"]

    # what clients are told must lead here from outside the stack
    theirs = "LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT"
    assert worker.items() - {(theirs, worker[theirs])} <= web.items()
    assert worker[theirs] == worker["LANGFUSE_S3_EVENT_UPLOAD_ENDPOINT"] == "http://minio:9000"
    assert resolved(web[theirs]).removeprefix("http://localhost:") == published_port(stack, "minio", 9000)
    assert web["CLICKHOUSE_PASSWORD"] == services["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"]
    assert web["CLICKHOUSE_USER"] == services["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    assert web["LANGFUSE_S3_EVENT_UPLOAD_ACCESS_KEY_ID"] == services["minio"]["environment"]["MINIO_ROOT_USER"]
    minio_password = services["minio"]["environment"]["MINIO_ROOT_PASSWORD"]
    assert web["LANGFUSE_S3_EVENT_UPLOAD_SECRET_ACCESS_KEY"] == minio_password
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] in web["DATABASE_URL"]
    assert web["REDIS_AUTH"] in services["redis"]["command"]
    assert services["redis"]["environment"]["REDISCLI_AUTH"] == web["REDIS_AUTH"]


def test_one_project_exists_from_the_first_start_with_the_keys_that_tracebridge_reads(
    stack: dict[str, Any],
) -> None:
    web = stack["services"]["langfuse-web"]["environment"]

    assert web["LANGFUSE_INIT_ORG_ID"]
    assert web["LANGFUSE_INIT_PROJECT_ID"]
    assert web["LANGFUSE_INIT_PROJECT_PUBLIC_KEY"].startswith("${LANGFUSE_PUBLIC_KEY:?")
    assert web["LANGFUSE_INIT_PROJECT_SECRET_KEY"].startswith("${LANGFUSE_SECRET_KEY:?")


def test_every_volume_that_a_service_mounts_is_declared_or_a_file_that_is_here(stack: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0]
        for definition in stack["services"].values()
        for volume in definition.get("volumes", [])
    }
    files = {name for name in mounted if name.startswith("./")}
    assert mounted - files == set(stack["volumes"])
    assert [name for name in files if not (ROOT / name).exists()] == []
    for definition in stack["services"].values():
        assert all(volume.endswith(":ro") for volume in definition.get("volumes", []) if volume.startswith("./"))


# --- the secrets ------------------------------------------------------------------------------------------------------


def write_secrets(folder: Path, target: str) -> dict[str, str]:
    written = folder / target
    written.unlink(missing_ok=True)
    # MAKEFLAGS of an outer `make test` must not reach this one
    subprocess.run(["make", target], cwd=folder, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    assert written.stat().st_mode & 0o077 == 0, "others must not read the secrets"
    return dict(line.split("=", 1) for line in written.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as making secrets needs."""
    for name in ("Makefile", COMPOSE.name):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "make-env.sh", tmp_path / "deploy")
    return tmp_path


@pytest.mark.parametrize("target", [".env", "langfuse.env"])
def test_make_writes_a_random_secret_for_every_variable_that_the_stack_requires(clone: Path, target: str) -> None:
    made = [write_secrets(clone, target), write_secrets(clone, target)]

    assert set(made[0]) == set(REQUIRED.findall(COMPOSE.read_text(encoding="utf-8")))
    assert all(len(value) >= 64 for value in made[0].values())
    assert len(set(made[0].values())) == len(made[0])
    assert not set(made[0].values()) & set(made[1].values())
    assert re.fullmatch(r"[0-9a-f]{64}", made[0]["LANGFUSE_ENCRYPTION_KEY"])
    assert made[0]["LANGFUSE_PUBLIC_KEY"].startswith("pk-lf-")
    assert made[0]["LANGFUSE_SECRET_KEY"].startswith("sk-lf-")


def test_secrets_that_are_there_are_never_overwritten(clone: Path) -> None:
    before = write_secrets(clone, ".env")
    for command in (["make", ".env"], ["deploy/make-env.sh"], ["deploy/make-env.sh", ".env"]):
        subprocess.run(command, cwd=clone, check=False, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    assert dict(line.split("=", 1) for line in (clone / ".env").read_text().splitlines()) == before


def test_every_other_variable_has_a_default_that_is_no_secret() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    every = set(re.findall(r"(?<!\$)\$\{?([A-Z0-9_]+)", re.sub(r"(?m)^\s*#.*$", "", text)))
    defaults = dict(DEFAULTED.findall(text))
    assert every == set(REQUIRED.findall(text)) | set(defaults)
    assert [name for name in defaults if SECRET_NAME.search(name)] == []


def test_git_ignores_the_secrets() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".env", "*.env"} <= set(ignored)


# --- what goes with the stack -----------------------------------------------------------------------------------------


def resolved(text: str) -> str:
    """A text of the compose file with the defaults of its variables put in."""
    return DEFAULTED.sub(lambda found: found[2], text)


def published_port(stack: dict[str, Any], service: str, inside: int) -> str:
    """The port of this machine that leads to a service's, when nothing is set."""
    ports = (resolved(port).rsplit(":", 2) for port in stack["services"][service]["ports"])
    return next(outside for _, outside, port in ports if port == str(inside))


def example(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings of an example's sink."""
    settings = load(ROOT / "examples" / f"{name}.yaml", environment)
    (sink,) = settings.enabled_sinks
    assert (sink.name, settings.keep_journal) == (name, True)
    assert sink.settings is not None
    return msgspec.structs.asdict(sink.settings)


def test_the_langfuse_example_has_the_stack_s_address_and_keys(stack: dict[str, Any], clone: Path) -> None:
    secrets = write_secrets(clone, ".env")
    found = example("langfuse", secrets)
    web = stack["services"]["langfuse-web"]["environment"]
    keys = {name: REQUIRED.fullmatch(web[f"LANGFUSE_INIT_PROJECT_{name}_KEY"]) for name in ("PUBLIC", "SECRET")}
    assert all(keys.values())

    assert found["host"] == f"http://127.0.0.1:{published_port(stack, 'langfuse-web', 3000)}"
    assert found["public_key"] == secrets[keys["PUBLIC"][1]]  # type: ignore[index]
    assert found["secret_key"].reveal() == secrets[keys["SECRET"][1]]  # type: ignore[index]
    assert example("langfuse", {**secrets, "LANGFUSE_PORT": "3999"})["host"] == "http://127.0.0.1:3999"
    assert "${LANGFUSE_PORT:-" in stack["services"]["langfuse-web"]["ports"][0]


def test_the_otel_example_sends_to_the_collector_and_reads_from_jaeger(stack: dict[str, Any]) -> None:
    found = example("otel", {})
    assert found["endpoint"] == f"http://127.0.0.1:{published_port(stack, 'otel-collector', 4318)}"
    assert found["reader"].type == "jaeger"
    assert found["reader"].url == f"http://127.0.0.1:{published_port(stack, 'jaeger', 16686)}"


def deployed(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_collector_passes_on_to_both_backends_and_answers_what_the_one_answers_that_is_read_back(
    stack: dict[str, Any],
) -> None:
    collector = deployed("otel-collector.yaml")
    assert collector["service"]["pipelines"] == {
        "traces": {"receivers": ["otlp"], "exporters": list(collector["exporters"])}
    }
    # what their images listen on, as published by them: OTLP over gRPC
    assert {exporter["endpoint"] for exporter in collector["exporters"].values()} == {
        f"{backend}:4317" for backend in OTEL_BACKENDS
    }
    jaeger, tempo = (collector["exporters"][f"otlp_grpc/{backend}"] for backend in ("jaeger", "tempo"))
    assert (jaeger["sending_queue"], jaeger["retry_on_failure"]) == ({"enabled": False}, {"enabled": False})
    assert (tempo["sending_queue"]["enabled"], tempo["retry_on_failure"]["max_elapsed_time"]) == (True, "0s")
    listens = {protocol["endpoint"] for protocol in collector["receivers"]["otlp"]["protocols"].values()}
    published = {port.rpartition(":")[2] for port in stack["services"]["otel-collector"]["ports"]}
    assert listens == {f"0.0.0.0:{port}" for port in published}
    assert collector["service"]["extensions"] == ["health_check"]
    assert collector["extensions"]["health_check"]["endpoint"] == "0.0.0.0:13133"
    assert_reads_what_is_mounted(stack, "otel-collector", "./deploy/otel-collector.yaml")


def test_tempo_listens_where_it_is_sent_to_and_asked_and_cuts_nothing(stack: dict[str, Any]) -> None:
    tempo = deployed("tempo.yaml")
    assert tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "0.0.0.0:4317"
    assert published_port(stack, "tempo", tempo["server"]["http_listen_port"]) == "3200"
    assert (tempo["distributor"]["max_attribute_bytes"], tempo["usage_report"]["reporting_enabled"]) == (0, False)
    assert tempo["overrides"]["defaults"]["global"]["max_bytes_per_trace"] == 0
    paths = [tempo["storage"]["trace"][part]["path"] for part in ("wal", "local")]
    assert all(path.startswith("/var/tempo/") for path in paths), "they lie on the volume"
    assert "tempo-data:/var/tempo" in stack["services"]["tempo"]["volumes"]
    assert_reads_what_is_mounted(stack, "tempo", "./deploy/tempo.yaml")


def test_grafana_finds_both_backends_by_their_names_in_the_stack(stack: dict[str, Any]) -> None:
    sources = deployed("grafana/datasources/traces.yaml")["datasources"]
    tempo_port = deployed("tempo.yaml")["server"]["http_listen_port"]
    jaeger_port = stack["services"]["jaeger"]["ports"][0].rpartition(":")[2]
    assert {(source["type"], source["url"]) for source in sources} == {
        ("tempo", f"http://tempo:{tempo_port}"),
        ("jaeger", f"http://jaeger:{jaeger_port}"),
    }
    assert sum(bool(source.get("isDefault")) for source in sources) == 1
    volumes = stack["services"]["grafana"]["volumes"]
    assert "./deploy/grafana/datasources:/etc/grafana/provisioning/datasources:ro" in volumes


def assert_reads_what_is_mounted(stack: dict[str, Any], service: str, file: str) -> None:
    definition = stack["services"][service]
    inside = next(volume.split(":")[1] for volume in definition["volumes"] if volume.startswith(f"{file}:"))
    assert any(argument.endswith(f"={inside}") for argument in definition["command"])
