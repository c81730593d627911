"""A PKCS#11 token in software, made for one test session in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PIN = "canary-pin-7"
LABEL = "operators"
_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
)


def missing() -> str:
    """Say why there is no token here, empty where there is one."""
    if shutil.which("softhsm2-util") is None or library() is None:
        return "softhsm2 is not installed: make token-tools"
    try:
        import pkcs11  # noqa: F401
    except ModuleNotFoundError:
        return "python-pkcs11 is not installed"
    return ""


def library() -> Path | None:
    """Return the token's library."""
    return next((Path(path) for path in _LIBRARIES if Path(path).exists()), None)


@dataclass(frozen=True)
class SoftToken:
    """A token, and the environment its library wants."""

    module: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the token."""
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @property
    def pin_file(self) -> Path:
        """File of the PIN, mode 0600."""
        return self.folder / "pin"


@contextmanager
def soft_token() -> Iterator[SoftToken]:
    """Make a token; this process's library finds it too, if it was not loaded before."""
    module = library()
    assert module is not None
    with tempfile.TemporaryDirectory(prefix="zipnet-token-") as name:
        token = SoftToken(module, Path(name))
        (token.folder / "tokens").mkdir()
        (token.folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {token.folder}/tokens\nobjectstore.backend = file\n"
        )
        token.pin_file.touch(mode=0o600)
        token.pin_file.write_text(PIN + "\n")
        before = os.environ.get("SOFTHSM2_CONF")
        os.environ |= token.environment
        try:
            subprocess.run(
                ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN,
                 "--so-pin", "so-" + PIN],
                check=True, capture_output=True,
            )  # fmt: skip
            yield token
        finally:
            os.environ.pop("SOFTHSM2_CONF")
            if before is not None:
                os.environ["SOFTHSM2_CONF"] = before
