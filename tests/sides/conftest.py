"""The command line in an empty folder."""

from tests.cli.conftest import empty_folder, run

__all__ = ["empty_folder", "run"]
