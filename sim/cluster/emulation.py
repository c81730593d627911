"""What a network on one machine needs to gate every bond without TDX hardware: emulated machines.

One ``tdx emulate serve`` stands in for Intel and for the hosts; each kind of node pretends to run
an image of its own, with its own MRTD, and the descriptor demands exactly these. Nothing of it is
accepted outside this network: its root is named in this descriptor alone.
"""

from __future__ import annotations

import asyncio
import sys
from hashlib import sha384
from pathlib import Path

__all__ = ["Emulation"]

START_DEADLINE_S = 30.0
IMAGES = {"server": "committee", "aggregator": "aggregator", "publish": "client"}


def mrtd_of(image: str) -> str:
    """Return the MRTD an emulated machine shows that runs an image."""
    return sha384(f"demo image of a {image}".encode()).hexdigest()


class Emulation:
    """An emulator in a folder, and what the nodes there have to know of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tdx"
        # A Unix socket's path may have about a hundred characters: it is named from the folder the
        # nodes run in.
        self.socket = Path("tdx") / "qgs.sock"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the emulator, wait for its root and collateral, and write the policies."""
        self.folder.mkdir()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tdx.cli",
            "emulate",
            "serve",
            *("--socket", str(self.socket)),
            *("--out", str(self.folder)),
            cwd=self.folder.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr is not None
        async with asyncio.timeout(START_DEADLINE_S):
            line = await self.process.stderr.readline()
        if b"EMULATED" not in line:
            raise RuntimeError(f"the emulator did not start: {line.decode().strip()}")
        for image in IMAGES.values():
            policy = f'allow_emulated = true\n\n[require]\nmrtd = ["{mrtd_of(image)}"]\n'
            (self.folder / f"{image}.toml").write_text(policy, encoding="utf-8")

    def descriptor_arguments(self, lifetime: str = "10m") -> list[str]:
        """Return the options of ``zipnet descriptor create`` that gate everybody.

        Args:
            lifetime: Longest window of evidence.
        """
        arguments = ["--tdx", "emulated", "--tdx-root", str(self.folder / "root.der")]
        arguments += ["--tdx-lifetime", lifetime]
        for image in IMAGES.values():
            arguments += [f"--tdx-{image}", str(self.folder / f"{image}.toml")]
        return arguments

    def environment(self, verb: str, image: str | None = None) -> dict[str, str]:
        """Return what makes a process attest as an image, by default the one its verb should run.

        Args:
            verb: First argument of the ``zipnet`` command; readers attest nothing.
            image: Another image to run, for one that must be refused.
        """
        if verb not in IMAGES:
            return {}
        return {
            "ZIPNET_TDX_SOURCE": "emulator",
            "ZIPNET_TDX_COLLATERAL": str(self.folder / "collateral.json"),
            "ZIPNET_TDX_EMULATOR": str(self.socket),
            "ZIPNET_TDX_EMULATED_MRTD": mrtd_of(image or IMAGES[verb]),
        }

    async def stop(self) -> None:
        """Stop the emulator."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
