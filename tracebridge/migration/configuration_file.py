"""`ConfigurationFile`: the YAML file that a step changes, read whole and replaced whole."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tracebridge.config import Settings, examine
from tracebridge.config.document import MalformedError, decode
from tracebridge.migration.tiers import JOURNAL, MigrationError, Switch, after


class ConfigurationFile:
    """A configuration as it was when it was read. A symbolic link stays one: what it leads to is changed."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            MigrationError: it cannot be read.
        """
        self.path = path
        self._target = Path(os.path.realpath(path))
        try:
            self._content = self._target.read_bytes()
            self.text = decode(self._content)
        except OSError as error:
            raise MigrationError(f"{path}: cannot be read ({error.strerror})") from error
        except MalformedError as error:
            raise MigrationError(f"{path}: {error.problem}; {error.remedy}") from None

    def check(self, text: str, settings: Settings, switch: Switch, environ: Mapping[str, str] = os.environ) -> None:
        """See to it that a new text is a configuration that differs from `settings` by the switch and by nothing else.

        Raises:
            MigrationError: it is not, or the file as it was read does not say what `settings` does.
        """
        before, _ = examine(self._content, environ)
        if before is None or _bare(before) != _bare(settings):
            raise self._changed_meanwhile()
        found, mistakes = examine(self._encoded(text), environ)
        if found is None:
            words = "\n".join(f"  {mistake.path}: {mistake.problem}; {mistake.remedy}" for mistake in mistakes)
            raise MigrationError(f"{self.path}: cannot {switch}, nothing was changed:\n{words}")
        wanted = after(settings, switch)
        if switch.on and switch.sink != JOURNAL and switch.share is None:
            # what was switched off need not have been complete
            switched = found.sink(switch.sink)
            sinks = tuple(
                switched if switched and switched.enabled and sink.name == switch.sink else sink
                for sink in wanted.sinks
            )
            wanted = msgspec.structs.replace(wanted, sinks=sinks)
        if _bare(found) != _bare(wanted):
            raise MigrationError(f"{self.path}: the changed file would say something else, nothing was changed")

    def write(self, text: str, just_before: Callable[[], object]) -> None:
        """Put a new text in its place in one step; owner and mode stay.

        `just_before` is called when all is prepared and nothing but that step is left; if it raises, the file stays.

        Raises:
            MigrationError: it was changed since it was read, or cannot be written. It is as it was.
        """
        temporary = ""
        try:
            status = self._target.stat()
            descriptor, temporary = tempfile.mkstemp(dir=self._target.parent, prefix=f".{self._target.name}.")
            with open(descriptor, "wb") as file:
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                file.write(self._encoded(text))
                file.flush()
                os.fsync(file.fileno())
            if self._target.read_bytes() != self._content:
                raise self._changed_meanwhile()
            just_before()
            os.replace(temporary, self._target)
            temporary = ""
        except OSError as error:
            raise MigrationError(f"{self.path}: cannot be written ({error.strerror}), nothing was changed") from error
        finally:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def _changed_meanwhile(self) -> MigrationError:
        return MigrationError(f"{self.path}: somebody has changed it meanwhile, nothing was changed; try again")

    def _encoded(self, text: str) -> bytes:
        mark = codecs.BOM_UTF8 if self._content.startswith(codecs.BOM_UTF8) else b""
        return mark + text.encode("utf-8")


def _bare(settings: Settings) -> Settings:
    """The settings without where they came from."""
    return msgspec.structs.replace(settings, source="", origins={})
