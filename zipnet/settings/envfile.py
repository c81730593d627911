"""A service's environment file, as systemd reads it for ``EnvironmentFile=``: ``NAME=value`` lines.

Only zipnet's own variables are taken. What systemd allows beyond one value in one line (quotes in
the middle, continued lines) is refused rather than guessed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError
from zipnet.settings.bounded import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["parse_env", "read_env_file"]

_MAX_BYTES: Final = 64 * 1024
_LINE: Final = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=(?:"([^"\\]*)"|'([^'\\]*)'|([^"'\\]*))""")
_PREFIX: Final = "ZIPNET_"


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file whose names begin with ``ZIPNET_``.

    Raises:
        ConfigError: When it cannot be read, or a line is none; the line's number is told, not what
            stands in it.
    """
    return parse_env(path, read_bounded(path, _MAX_BYTES, what="environment file"))


def parse_env(path: Path, data: bytes) -> dict[str, str]:
    """Parse an environment file's bytes; ``path`` is named in the errors, those of reading one."""
    found: dict[str, str] = {}
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"environment file {path}: line {number} is not NAME=value", hint="quote it once"
            )
        if match[1].startswith(_PREFIX):
            found[match[1]] = (match[2] or match[3] or match[4] or "").strip()
    return found
