"""Who may import what, where the rule is a list of what is allowed; the other rules are import-linter's."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MODEL = {
    "tracebridge.diagnosis",
    "tracebridge.errors",
    "tracebridge.event",
    "tracebridge.jsonvalue",
    "tracebridge.line",
    "tracebridge.page",
    "tracebridge.secret",
    "tracebridge.sink",
    "tracebridge.span",
    "tracebridge.tracecontext",
    "tracebridge.usage",
}

# what each part may import of this distribution, besides itself
ALLOWED_OF_OURS = {
    "adapters/tracebridge_langfuse": MODEL | {"tracebridge_otlp", "tracebridge.jitter"},
    "adapters/tracebridge_otel": MODEL | {"tracebridge_otlp", "tracebridge.version"},
    "adapters/tracebridge_otlp": MODEL | {"tracebridge.threads"},
    "tracebridge/devserver": {
        "tracebridge.errors",
        "tracebridge.testing.faults",
        "tracebridge.testing.faulty",
        "tracebridge.threads",
    },
}

# what each part may import of the packages that carry a protocol
ALLOWED_OF_VENDORS = {
    "tracebridge/devserver": {"google.protobuf", "opentelemetry.proto"},
    # of `opentelemetry.instrumentation` the part that keeps our requests out of the host's traces
    "adapters/tracebridge_otlp": {
        "google.protobuf",
        "google.rpc",
        "opentelemetry.proto",
        "opentelemetry.instrumentation.utils",
    },
}

VENDORS = ("google", "grpc", "httpcore", "httpx", "langfuse", "opentelemetry", "starlette", "uvicorn")


def imports_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the full module name of every import below a folder."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            place = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            match node:
                case ast.Import(names=names):
                    yield from ((place, alias.name) for alias in names)
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    yield from ((place, full_name(module, alias.name)) for alias in names)
                case ast.ImportFrom():
                    pytest.fail(f"{place}: a relative import; name the package")


def full_name(module: str, name: str) -> str:
    """Return `module.name` where that is a module of ours, and `module` where `name` is something in it."""
    below = Path(*module.split("."), name)
    is_module = any(
        (ROOT / root / below).with_suffix(".py").exists() or (ROOT / root / below).is_dir() for root in ("", "adapters")
    )
    return f"{module}.{name}" if is_module else module


def within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("part", ALLOWED_OF_OURS)
def test_a_part_imports_of_ours_only_what_it_may_know(part: str) -> None:
    itself = part.removeprefix("adapters/").replace("/", ".")
    found = list(imports_of(ROOT / part))
    wrong = [
        f"{place} imports {module}"
        for place, module in found
        if module.partition(".")[0].startswith("tracebridge") and not within(module, ALLOWED_OF_OURS[part] | {itself})
    ]

    assert found, f"{part} holds no code"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", ALLOWED_OF_VENDORS)
def test_a_part_uses_the_wire_format_and_no_vendor_s_client(part: str) -> None:
    wrong = [
        f"{place} imports {module}"
        for place, module in imports_of(ROOT / part)
        if module.partition(".")[0] in {"google", "langfuse", "opentelemetry"}
        and not within(module, ALLOWED_OF_VENDORS[part])
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_that_ships_imports_the_tests_or_the_benchmarks() -> None:
    wrong = [
        f"{place} imports {module}"
        for folder in ("tracebridge", "adapters")
        for place, module in imports_of(ROOT / folder)
        if within(module, {"tests", "benchmarks"})
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module", ["tracebridge", "tracebridge.cli", "tracebridge_langfuse.factory", "tracebridge_otel.factory"]
)
def test_importing_it_loads_no_vendor_s_package(module: str) -> None:
    if importlib.util.find_spec("langfuse") is None:
        pytest.skip("needs the extras: without them there is nothing to load")
    program = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}"},
    )

    assert loaded.returncode == 0, loaded.stderr
    assert "msgspec" in loaded.stdout.split()
    assert not set(loaded.stdout.split()) & set(VENDORS)
