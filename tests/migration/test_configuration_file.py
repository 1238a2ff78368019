"""A file is replaced whole, or stays as it was."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from tests.workplace import Workplace
from tracebridge.migration.configuration_file import ConfigurationFile
from tracebridge.migration.gate import alone
from tracebridge.migration.tiers import MigrationError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "here.yaml"
    path.write_bytes(codecs.BOM_UTF8 + "a: ü\r\n".encode())
    return path


def test_the_mark_at_the_beginning_and_the_mode_stay(path: Path) -> None:
    path.chmod(0o604)
    file = ConfigurationFile(path)
    assert file.text == "a: ü\r\n"
    file.write("a: ö\r\n", just_before=list)
    assert path.read_bytes() == codecs.BOM_UTF8 + "a: ö\r\n".encode()
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_file_that_was_changed_since_it_was_read_is_not_replaced(path: Path) -> None:
    file = ConfigurationFile(path)
    path.write_text("a: mine\n", "utf-8")
    with pytest.raises(MigrationError, match="somebody has changed it meanwhile, nothing was changed; try again"):
        file.write("a: yours\n", just_before=list)
    assert path.read_text("utf-8") == "a: mine\n"
    assert os.listdir(path.parent) == ["here.yaml"]


def test_a_step_that_cannot_be_written_down_changes_nothing(path: Path) -> None:
    before = path.read_bytes()

    def fail() -> None:
        raise MigrationError("the disk is full")

    with pytest.raises(MigrationError, match="the disk is full"):
        ConfigurationFile(path).write("a: new\n", just_before=fail)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["here.yaml"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        ConfigurationFile(tmp_path / "nowhere.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    with pytest.raises(MigrationError, match="not UTF-8"):
        ConfigurationFile(tmp_path / "bytes.yaml")


def test_one_at_a_time_makes_a_step(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path / "here", {})
    with alone(workplace.settings):
        ran = workplace.call("migrate", "advance")
        assert ran.returncode == 2
        assert f"process {os.getpid()} makes a step at this moment" in ran.stderr
