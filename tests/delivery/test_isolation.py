"""What a sink does wrong is its own trouble: every other sink gets everything, and no call of the agent's notices."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, FileReader, FileSettings, FileSink, settings_for, stored
from tests.delivery.rig import Rig, write_session
from tests.open_files import open_files_below
from tests.test_registry import install
from tests.waiting import grace_s, until
from tracebridge.cli import main
from tracebridge.config import Settings, load
from tracebridge.config.effective import reveal
from tracebridge.delivery.removal import Removal
from tracebridge.policy import Policy
from tracebridge.recording.tracer import Tracer
from tracebridge.sink import Capabilities, Outcome, Query, Receipt
from tracebridge.span import Span
from tracebridge.validation.validator import Validator

SPANS = 4
"""What `record` makes."""

for_ever = threading.Event()
"""Never set while a test runs; set at its end, so that no thread stays behind."""


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    for_ever.clear()
    yield
    for_ever.set()


def hang(*_: object) -> Any:
    for_ever.wait()


def fail(*_: object) -> Any:
    raise RuntimeError("a defect of the sink")


def leave(*_: object) -> Any:
    raise SystemExit(3)


def give(value: object) -> Callable[..., Any]:
    return lambda *_: value


class Defective(FileBackend):
    """A sink type of which one thing is wrong, by the name of what it is asked for."""

    def __init__(self, **defects: Callable[..., Any]) -> None:
        super().__init__(readable=any(name.startswith("reader") for name in defects))
        self.defects = defects

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        return self._do("capabilities", super().capabilities, settings)

    def endpoint(self, settings: msgspec.Struct) -> str:
        return self._do("endpoint", super().endpoint, settings)

    def open_sink(self, settings: msgspec.Struct) -> FileSink:
        assert isinstance(settings, FileSettings)
        return self._do("open", lambda settings: DefectiveSink(settings.path, self), settings)

    def open_reader(self, settings: msgspec.Struct) -> FileReader:
        assert isinstance(settings, FileSettings)
        return self._do("reader_open", lambda settings: DefectiveReader(settings.path, self), settings)

    def _do(self, what: str, rightly: Callable[..., Any], *arguments: Any) -> Any:
        return self.defects.get(what, rightly)(*arguments)


class DefectiveSink(FileSink):
    def __init__(self, path: Path, backend: Defective) -> None:
        super().__init__(path, backend.answers)
        self._backend = backend

    def encode(self, span: Span) -> bytes:
        return self._backend._do("encode", super().encode, span)

    def join(self, parts: Sequence[bytes]) -> bytes:
        return self._backend._do("join", super().join, parts)

    def deliver(self, request: bytes) -> Receipt:
        return self._backend._do("deliver", super().deliver, request)

    def close(self) -> None:
        return self._backend._do("close", super().close)


class DefectiveReader(FileReader):
    def __init__(self, path: Path, backend: Defective) -> None:
        super().__init__(path, backend.answers)
        self._backend = backend

    def read(self, query: Query) -> Iterator[Span]:
        return self._backend._do("reader", super().read, query)

    def close(self) -> None:
        return self._backend._do("reader_close", super().close)


DEFECTS: dict[str, dict[str, Callable[..., Any]]] = {
    "raises in open": {"open": fail},
    "raises in encode": {"encode": fail},
    "raises in join": {"join": fail},
    "raises in deliver": {"deliver": fail},
    "raises in close": {"close": fail, "deliver": give(Receipt(outcome=Outcome.RETRY))},
    "raises in capabilities": {"capabilities": fail},
    "raises in endpoint": {"endpoint": fail},
    "leaves in open": {"open": leave},
    "leaves in encode": {"encode": leave},
    "leaves in deliver": {"deliver": leave},
    "hangs in open": {"open": hang},
    "hangs in encode": {"encode": hang},
    "hangs in join": {"join": hang},
    "hangs in deliver": {"deliver": hang},
    "hangs in close": {"close": hang, "deliver": give(Receipt(outcome=Outcome.RETRY))},
    "opens nothing": {"open": give(None)},
    "encodes to nothing": {"encode": give(None)},
    "encodes to text": {"encode": give("text")},
    "joins to nothing": {"join": give(None)},
    "answers nothing": {"deliver": give(None)},
    "answers a number": {"deliver": give(200)},
    "answers with no outcome": {"deliver": give(Receipt(outcome="fine"))},  # type: ignore[arg-type]
    "answers with garbage in it": {
        "deliver": give(Receipt(outcome=Outcome.RETRY, retry_after_s="soon", message=b"\xff"))  # type: ignore[arg-type]
    },
    "refuses with no words": {"deliver": give(Receipt(outcome=Outcome.REJECTED, message=None))},  # type: ignore[arg-type]
    "declares nothing": {"capabilities": give(None)},
    "reads garbage": {"reader": give([None, 1, "span"]), "deliver": fail},
    "reads nothing at all": {"reader": give(None), "deliver": fail},
    "raises in reading": {"reader": fail, "deliver": fail},
    "opens no reader": {"reader_open": fail, "deliver": fail},
}


def with_a_good_one(tmp_path: Path, bad: FileBackend) -> Settings:
    """A bad sink before a good one, each with a file of its name."""
    trace_dir = tmp_path / "traces"
    sinks = tuple(
        msgspec.structs.replace(settings_for(trace_dir, backend, tmp_path / name).sinks[0], name=name)
        for name, backend in (("bad", bad), ("good", FileBackend()))
    )
    return Settings(trace_dir=trace_dir, sinks=sinks, capture=Policy(), shutdown_timeout=0.3)


def record(tracer: Tracer, session_id: str) -> None:
    with tracer.trace_session(session_id) as session, tracer.trace_turn(session, "question") as turn:
        with session.llm_call("gpt-4o", []) as call:
            call.finish("answer")
        with session.tool_call("look_up", {"order": 17}) as call:
            call.finish("found")
        turn.output = "answer"


@pytest.mark.parametrize("defects", DEFECTS.values(), ids=DEFECTS)
def test_a_sink_with_any_defect_holds_up_no_other_and_no_caller(
    tmp_path: Path, defects: dict[str, Callable[..., Any]]
) -> None:
    errors: list[BaseException] = []
    tracer = Tracer(with_a_good_one(tmp_path, Defective(**defects)), on_error=errors.append)
    good = tmp_path / "good"
    record(tracer, "first")
    until(lambda: len(stored(good)) == SPANS, "the good sink gets the first session")
    record(tracer, "second")
    until(lambda: len(stored(good)) == 2 * SPANS, "and the second")
    began = time.monotonic()
    assert tracer.flush(0.2) >= 0
    tracer.shutdown()
    assert time.monotonic() - began < 0.5 + grace_s(), "neither flush nor the end waits for a sink that cannot work"
    assert errors == [], "no call of the agent's has met an error"
    assert {span.session_id for span in stored(good)} == {"first", "second"}
    assert len(stored(good)) == 2 * SPANS


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is open")
def test_a_sink_that_raises_as_it_is_closed_keeps_nothing_else_open(tmp_path: Path) -> None:
    backend = Defective(reader=give(iter(())))
    rig = Rig(tmp_path, backend)
    write_session(rig.trace_dir, "s")
    backend.defects = {"close": fail, "reader_close": fail}
    with pytest.raises(RuntimeError, match="a defect of the sink"):
        rig.ship()
    removal = Removal(rig.settings)
    assert removal.remove_older_than(0.0, dry_run=True).sessions == ["s"], "its reader was opened"
    validator = Validator(rig.settings.sinks[0], rig.trace_dir)
    for user in (removal, validator):
        with pytest.raises(RuntimeError, match="a defect of the sink"):
            user.close()
    assert open_files_below(rig.trace_dir) == []


def test_a_defect_is_told_in_the_log_once_and_by_status(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "file-sink", {"broken": "file_plug_in:SINK"}, {"file_plug_in": OPENS_NOTHING})
    configuration = yaml_in(tmp_path, type="broken", path=str(tmp_path / "bad"))
    tracer = Tracer(configuration)
    record(tracer, "first")
    until(lambda: "sink bad is not shipped to: RuntimeError: a defect" in caplog.text, "it is told")
    tracer.flush(5)
    tracer.shutdown()
    assert caplog.text.count("sink bad is not shipped to: RuntimeError") == 1
    assert main(["--config", str(configuration), "status"]) == 0
    assert "failing (RuntimeError: a defect of the plug-in)" in capsys.readouterr().out


DOES_NOT_IMPORT = "import surely_not_installed"
LEAVES = "import sys; sys.exit(3)"
NO_SINK_TYPE = "SINK = 17"
RAISES_WHEN_ASKED = """
class Type:
    @property
    def settings(self):
        raise RuntimeError("a defect of the plug-in")
SINK = Type()
"""
GOOD = """
from pathlib import Path
import msgspec
from tests.delivery.file_backend import FileBackend, FileSettings

class Settings(msgspec.Struct):
    path: str

class Type(FileBackend):
    settings = Settings

    def endpoint(self, settings):
        return settings.path

    def open_sink(self, settings):
        return super().open_sink(FileSettings(Path(settings.path)))

    def open_reader(self, settings):
        return super().open_reader(FileSettings(Path(settings.path)))

SINK = Type()
"""
OPENS_NOTHING = (
    GOOD
    + """
def fail(settings):
    raise RuntimeError("a defect of the plug-in")
SINK.open_sink = fail
"""
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which plug-ins can be installed. None is left among the imported modules."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    install(folder, "good-sink", {"good": "good_plug_in:SINK"}, {"good_plug_in": GOOD})
    yield folder
    for name in ("file_plug_in", "good_plug_in"):
        sys.modules.pop(name, None)


def yaml_in(tmp_path: Path, *, keep: bool = True, **bad: str) -> Path:
    """A configuration with a bad sink and a good one."""
    file = tmp_path / "tracebridge.yaml"
    settings = {
        "trace_dir": str(tmp_path / "traces"),
        "shutdown_timeout": 0.3,
        "sinks": {
            "jsonl": {"enabled": True} if keep else {"enabled": False, "spool_keep": 0},
            "bad": bad,
            "good": {"type": "good", "path": str(tmp_path / "good")},
        },
    }
    file.write_text(json.dumps({"agent_trace": settings}), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (DOES_NOT_IMPORT, "does not import (ModuleNotFoundError: No module named 'surely_not_installed')"),
        (LEAVES, "does not import (SystemExit: 3)"),
        (NO_SINK_TYPE, "offers no SinkType"),
        (RAISES_WHEN_ASKED, "fails when asked what it offers (RuntimeError: a defect of the plug-in)"),
    ],
    ids=["does not import", "leaves", "is no sink type", "raises"],
)
def test_a_plug_in_that_cannot_be_loaded_is_named_and_costs_the_others_nothing(
    tmp_path: Path,
    site: Path,
    source: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(site, "file-sink", {"broken": "file_plug_in:SINK"}, {"file_plug_in": source})
    configuration = yaml_in(tmp_path, type="broken", url="http://x")
    tracer = Tracer(configuration)
    assert words in caplog.text
    record(tracer, "first")
    assert tracer.flush(50) == 0
    tracer.shutdown()
    assert len(stored(tmp_path / "good")) == SPANS
    for command in (["config", "check"], ["status"], ["ship"]):
        code = main(["--config", str(configuration), *command])
        told = capsys.readouterr()
        assert code == (0 if command == ["status"] else 1), command
        assert words in told.out + told.err + (caplog.text if command == ["ship"] else ""), command
    assert main(["--config", str(configuration), "ship", "--sink", "good"]) == 0
    capsys.readouterr()
    assert main(["--config", str(configuration), "validate", "--junit", str(tmp_path / "report.xml")]) == 2
    reported = capsys.readouterr().out
    assert "good: CLEAN" in reported
    assert "bad: NOT EVERYTHING COULD BE COMPARED\n" in reported
    assert 'name="tracebridge.bad"' in (tmp_path / "report.xml").read_text("utf-8")
    assert main(["--config", str(configuration), "validate", "--sink", "good"]) == 0
    old = str(tmp_path / "traces")
    assert main(["--config", str(configuration), "backfill", old]) == 1
    assert main(["--config", str(configuration), "backfill", old, "--sink", "good"]) == 0


def test_a_spool_deletes_nothing_that_a_defective_plug_in_may_be_owed(tmp_path: Path, site: Path) -> None:
    install(site, "file-sink", {"broken": "file_plug_in:SINK"}, {"file_plug_in": DOES_NOT_IMPORT})
    tracer = Tracer(yaml_in(tmp_path, keep=False, type="broken"))
    record(tracer, "first")
    assert tracer.flush(50) == 0
    tracer.shutdown()
    removal = Removal(tracer.settings)
    removed = removal.remove_older_than(0.0)
    removal.close()
    assert removed.sessions == []
    assert [refusal.reason for refusal in removed.refused] == [
        "the plug-in of bad cannot be used, so nobody knows what it has got"
    ]


def test_a_process_that_ships_for_the_agent_meets_the_same_defect_and_delivers_to_the_others(
    tmp_path: Path, site: Path
) -> None:
    install(site, "file-sink", {"broken": "file_plug_in:SINK"}, {"file_plug_in": DOES_NOT_IMPORT})
    settings = load(yaml_in(tmp_path, keep=False, type="broken"))
    again = load(reveal(settings))
    assert [sink.name for sink in again.defective_sinks] == ["bad"]
    assert [sink.name for sink in again.enabled_sinks] == ["good"]
