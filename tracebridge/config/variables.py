"""Environment variables in settings: `${VAR}`, `${VAR:-default}`, and `$${` for a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")


class Expansion(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a text."""

    text: str
    variables: tuple[str, ...] = ()
    """The names that the text refers to."""
    missing: tuple[str, ...] = ()
    """Those of them that are not set and have no default."""
    is_default: bool = False
    """Whether no variable has given anything, but the defaults that stand in the text itself."""
    malformed: bool = False
    """Whether a `${` starts no reference."""

    def __repr__(self) -> str:
        # the text may be a credential
        return f"Expansion(variables={self.variables})"


def expand(text: str, environ: Mapping[str, str]) -> Expansion:
    """Put the values of environment variables into a text, once: what they hold is not expanded again."""
    variables: list[str] = []
    missing: list[str] = []
    defaulted: list[str] = []
    malformed = False

    def replace(match: re.Match[str]) -> str:
        nonlocal malformed
        if match[0] == "$${":
            return "${"
        name, default = match["name"], match["default"]
        if name is None:
            malformed = True
            return match[0]
        variables.append(name)
        if default is not None:
            # a default ends at the first brace: that of a reference inside would be lost, and the other one stay
            malformed = malformed or "${" in default
            # as in a shell, `:-` also replaces a variable that is set to nothing
            if not environ.get(name):
                defaulted.append(name)
            return environ.get(name) or default
        if name not in environ:
            missing.append(name)
        return environ.get(name, "")

    expanded = _REFERENCE.sub(replace, text)
    return Expansion(
        text=expanded,
        variables=tuple(variables),
        missing=tuple(missing),
        is_default=defaulted == variables,
        malformed=malformed,
    )
