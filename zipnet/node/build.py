"""What this build is: its version, and the commit it was made from where the builder said so."""

from __future__ import annotations

import os
import re
from importlib import metadata

__all__ = ["build_commit", "build_version"]

_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def build_version() -> str:
    """Return the installed distribution's version, ``unknown`` when there is none."""
    try:
        return metadata.version("zipnet")
    except metadata.PackageNotFoundError:
        return "unknown"


def build_commit() -> str:
    """Return the commit an image was built from (``ZIPNET_BUILD_COMMIT``), else ``unknown``."""
    commit = os.environ.get("ZIPNET_BUILD_COMMIT", "")
    return commit if _COMMIT.fullmatch(commit) else "unknown"
