"""Without the extra, comparing two sides says what to install, and everything else works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.workplace import environment

WITHOUT = """
import sys
for name in ("duckdb", "ibis", "pyarrow", "pyspark"):
    sys.modules[name] = None
from tracebridge.cli import main
sys.exit(main(["validate", "--left", "folder:.", "--right", "folder:."]))
"""


def test_what_to_install_is_said(tmp_path: Path) -> None:
    (tmp_path / "session-s").mkdir()
    (tmp_path / "session-s" / "events.jsonl").write_text("")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("tracebridge: comparing two sides needs packages that are not installed")
    assert "pip install 'tracebridge[compare]'" in ran.stderr
