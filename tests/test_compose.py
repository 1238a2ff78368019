"""`docker-compose.langfuse.yml` is valid, open to this machine only, and holds no usable secret."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.langfuse.yml"

# ${NAME:?message} stops Compose when the variable is missing or empty
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")
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


def test_the_stack_has_every_part_of_langfuse_v4(stack: dict[str, Any]) -> None:
    images = {name: definition["image"] for name, definition in stack["services"].items()}

    assert set(images) == {"langfuse-web", "langfuse-worker", "postgres", "clickhouse", "redis", "minio"}
    assert "/langfuse:4." in images["langfuse-web"]
    assert "/langfuse-worker:4." in images["langfuse-worker"]
    assert images["langfuse-web"].rpartition(":")[2] == images["langfuse-worker"].rpartition(":")[2]
    assert "/clickhouse-server:25.12" in images["clickhouse"]


def test_every_image_is_pinned_to_a_release(stack: dict[str, Any]) -> None:
    for service, definition in stack["services"].items():
        tag = definition["image"].rpartition(":")[2]
        assert re.fullmatch(r"\d+\.\d+(\.\d+)*|RELEASE\.[\dTZ-]+", tag), f"{service}: {definition['image']}"


def test_every_service_has_a_health_check_and_starts_after_healthy_ones(stack: dict[str, Any]) -> None:
    stores = {"postgres", "clickhouse", "redis", "minio"}
    for service, definition in stack["services"].items():
        assert "healthcheck" in definition, service
        waits_for = definition.get("depends_on", {})
        assert set(waits_for) == (set() if service in stores else stores), service
        assert all(condition == {"condition": "service_healthy"} for condition in waits_for.values()), service


def test_every_published_port_is_open_to_this_machine_only(stack: dict[str, Any]) -> None:
    published = {name: definition.get("ports", []) for name, definition in stack["services"].items()}

    assert published["langfuse-web"]
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

    assert worker.items() <= web.items()
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


def test_every_volume_that_a_service_mounts_is_declared(stack: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0]
        for definition in stack["services"].values()
        for volume in definition.get("volumes", [])
    }
    assert mounted == set(stack["volumes"])


def test_make_writes_a_random_secret_for_every_variable_that_the_stack_requires(tmp_path: Path) -> None:
    for name in ("Makefile", COMPOSE.name):
        shutil.copy(ROOT / name, tmp_path)
    made = [write_secrets(tmp_path), write_secrets(tmp_path)]

    assert set(made[0]) == set(REQUIRED.findall(COMPOSE.read_text(encoding="utf-8")))
    assert all(len(value) >= 64 for value in made[0].values())
    assert len(set(made[0].values())) == len(made[0])
    assert not set(made[0].values()) & set(made[1].values())
    assert re.fullmatch(r"[0-9a-f]{64}", made[0]["LANGFUSE_ENCRYPTION_KEY"])
    assert made[0]["LANGFUSE_PUBLIC_KEY"].startswith("pk-lf-")
    assert made[0]["LANGFUSE_SECRET_KEY"].startswith("sk-lf-")


def write_secrets(folder: Path) -> dict[str, str]:
    written = folder / "langfuse.env"
    written.unlink(missing_ok=True)
    # MAKEFLAGS of an outer `make test` must not reach this one
    subprocess.run(["make", "langfuse.env"], cwd=folder, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    assert written.stat().st_mode & 0o077 == 0, "others must not read the secrets"
    return dict(line.split("=", 1) for line in written.read_text(encoding="utf-8").splitlines())
