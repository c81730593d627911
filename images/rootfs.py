"""Make the image's root filesystem: Debian packages, then wheels, then everything needless deleted.

Rules:

1. Package scripts never run: packages are extracted only, so there is nothing to clean up after.
2. Deleting goes by what is kept: of the program folders only the interpreter survives.
3. Mirrors and indexes are those of the machine; neither is named here or left in the result.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from statements import bill_of_materials

__all__ = ["PYTHON", "SITE", "SUITE", "BuildError", "make_rootfs"]

PYTHON: Final = "python3.11"
SITE: Final = Path("usr/lib/python3/dist-packages")
_PACKAGES: Final = (
    *("python3.11-minimal", "libpython3.11-stdlib"),
    # numpy's; the filter of system calls.
    *("libstdc++6", "libseccomp2"),
)
SUITE: Final = "bookworm"

# Of these folders only the named entries stay.
_KEPT_PROGRAMS: Final = {"usr/bin": {PYTHON}, "usr/sbin": set[str](), "usr/libexec": set[str]()}
_NEEDLESS: Final = (
    *(
        "boot",
        "dev",
        "home",
        "media",
        "mnt",
        "opt",
        "proc",
        "root",
        "run",
        "srv",
        "sys",
        "tmp",
        "var",
    ),
    *("bin", "sbin", "etc", "lib/systemd", "usr/games", "usr/include", "usr/local", "usr/src"),
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian"),
    *("usr/share/perl5", "usr/share/debconf", "usr/share/bash-completion", "usr/share/menu"),
    *("usr/share/dpkg", "usr/share/polkit-1", "usr/share/bug", "usr/share/binfmts"),
    *("usr/share/gcc", "usr/share/gdb", "usr/share/readline", "usr/lib/binfmt.d", "usr/lib/mime"),
    *("usr/lib/dpkg", "usr/lib/apt", "usr/lib/systemd", "usr/lib/tmpfiles.d", "usr/lib/sysusers.d"),
    *(
        "usr/lib/python3.11/ensurepip",
        "usr/lib/python3.11/idlelib",
        "usr/lib/python3.11/pydoc_data",
    ),
    *(
        "usr/lib/python3.11/lib2to3",
        "usr/lib/python3.11/distutils",
        "usr/lib/python3.11/turtledemo",
    ),
)
# Mount points a runtime expects; /tmp and the state folder are meant to be mounted over.
_FOLDERS: Final = {
    **dict.fromkeys(("dev", "proc", "sys", "run", "etc", "etc/zipnet"), 0o755),
    "tmp": 0o1777,
    "var": 0o755,
    "var/lib": 0o755,
}
_FILES: Final = {
    "etc/passwd": "root:x:0:0::/:/nonexistent\nzipnet:x:65532:65532::/nonexistent:/nonexistent\n",
    "etc/group": "root:x:0:\nzipnet:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class BuildError(Exception):
    """The image cannot be built on this machine; the message says why."""


def make_rootfs(checkout: Path, rootfs: Path, scratch: Path, *, epoch: int) -> None:
    """Build the root filesystem of the image.

    Args:
        checkout: The project's sources.
        rootfs: Folder to make; must not exist.
        scratch: Folder for wheels and copies; must exist and be empty.
        epoch: Seconds since 1970, given to tools that stamp their output.

    Raises:
        BuildError: A tool is missing or failed.
    """
    if sys.version_info[:2] != (3, 11):
        raise BuildError("the image holds Python 3.11: build it from a 3.11 environment")
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    _extract_packages(rootfs)
    packages = _packages(rootfs)
    _delete_needless(rootfs)
    inventory = {name: of[0] for name, of in packages.items() if _present(rootfs, of[1])}
    _install_wheels(checkout, rootfs, scratch)
    _write_programs(checkout, rootfs)
    _write_files(rootfs, inventory)
    _compile(rootfs)
    _normalise_modes(rootfs)


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    program = str(command[0])
    if shutil.which(program) is None:
        raise BuildError(f"{program} is not installed (make ops-tools installs it)")
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{program} failed: {_last_lines(done.stderr or done.stdout)}")
    return done.stdout


def _last_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:])


def _extract_packages(rootfs: Path) -> None:
    _run(
        *("mmdebstrap", "--quiet", "--variant=extract", "--format=directory"),
        *("--include", ",".join(_PACKAGES)),
        "--skip=cleanup/apt/cache",  # the archives are the only trace of what was extracted
        SUITE,
        rootfs,
        *_sources(),
    )


def _sources() -> list[str]:
    """Apt's own source files, as far as they speak of the suite."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]
    wanted = [str(f) for f in files if f.is_file() and SUITE in f.read_text("utf-8")]
    if not wanted:
        raise BuildError(f"this machine's apt has no source for Debian {SUITE}")
    return wanted


def _packages(rootfs: Path) -> dict[str, tuple[str, list[str]]]:
    """Name, version and files of each extracted package, read from the archives apt fetched."""
    archives = sorted((rootfs / "var/cache/apt/archives").glob("*.deb"))
    if not archives:
        raise BuildError("mmdebstrap left no package archives to take the inventory from")
    packages = {}
    for archive in archives:
        name, version = _run("dpkg-deb", "-W", archive).split()
        listed = _run("dpkg-deb", "-c", archive).splitlines()
        files = [line.split()[5].removeprefix("./") for line in listed if line[0] in "-l"]
        packages[name] = (version, files)
    return packages


def _present(rootfs: Path, files: list[str]) -> bool:
    """Whether anything of a package survived the pruning."""
    return any(os.path.lexists(rootfs / file) for file in files)


def _delete_needless(rootfs: Path) -> None:
    for name in _NEEDLESS:
        _remove(rootfs / name)
    for folder, kept in _KEPT_PROGRAMS.items():
        for entry in list((rootfs / folder).glob("*")):
            if entry.name not in kept:
                _remove(entry)
    for cache in list(rootfs.rglob("__pycache__")):
        _remove(cache)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _install_wheels(checkout: Path, rootfs: Path, scratch: Path) -> None:
    """Build or fetch the locked wheels and the project's own, then unpack them."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    wheels, sources = scratch / "wheels", scratch / "sources"
    _copy_sources(checkout, sources)
    wheel = (*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels)
    _run(*wheel, "--require-hashes", "-r", checkout / "requirements/node.txt")
    _run(*wheel, sources)
    site = rootfs / SITE
    site.mkdir(parents=True)
    install = (*pip, "install", "--no-deps", "--no-index", "--no-compile", "--target", site)
    _run(*install, *sorted(wheels.glob("*.whl")))
    _remove(site / "bin")
    _remove(site / "sim")  # the simulator drives nodes; no node needs it
    for pattern in ("*.dist-info/direct_url.json", "*.dist-info/REQUESTED", "*.dist-info/RECORD"):
        for file in site.glob(pattern):
            file.unlink()
    for tests in [path for path in site.glob("*/**/tests") if path.is_dir()]:
        _remove(tests)


def _copy_sources(checkout: Path, target: Path) -> None:
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, target / name)
    for package in ("zipnet", "tdx", "sim"):
        if (checkout / package).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(checkout / package, target / package, ignore=ignored)


def _write_programs(checkout: Path, rootfs: Path) -> None:
    """Write one small program for each console script; starting it takes no shell."""
    scripts = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        if module.partition(".")[0] == "sim":
            continue  # left out above
        program = rootfs / "usr/bin" / name
        program.write_text(
            f"#!/usr/bin/{PYTHON} -I\n"
            "import sys\n\n"
            f"from {module} import {function}\n\n"
            f"sys.exit({function}())\n",
            "utf-8",
        )
        program.chmod(0o755)


def _write_files(rootfs: Path, inventory: dict[str, str]) -> None:
    for name, mode in _FOLDERS.items():
        (rootfs / name).mkdir(exist_ok=True)
        (rootfs / name).chmod(mode)
    for name, text in _FILES.items():
        (rootfs / name).write_text(text, "utf-8")
    share = rootfs / "usr/share/zipnet"
    share.mkdir(parents=True)
    listing = json.dumps(inventory, indent=1, sort_keys=True) + "\n"
    (share / "debian-packages.json").write_text(listing, "utf-8")
    bill = bill_of_materials(rootfs, SITE, inventory, version=_version(rootfs))
    (share / "sbom.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", "utf-8")


def _version(rootfs: Path) -> str:
    (info,) = (rootfs / SITE).glob("zipnet-*.dist-info")
    return info.name.removeprefix("zipnet-").removesuffix(".dist-info")


def _compile(rootfs: Path) -> None:
    """Compile all modules: a read-only root cannot cache them. Hashes need no times."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = (sys.executable, "-m", "compileall", "-q", "-j", "1", "-s", rootfs, "-p", "/")
    subprocess.run(
        [*map(str, command), "--invalidation-mode", "unchecked-hash", str(rootfs / "usr/lib")],
        env=environment,
        check=False,  # a few files of the standard library hold bad syntax on purpose
        capture_output=True,
    )


def _normalise_modes(rootfs: Path) -> None:
    """Drop set-id bits and write access for group and others."""
    for path in rootfs.rglob("*"):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            kept = mode & 0o1777 if path.is_dir() and mode & stat.S_ISVTX else mode & 0o755
            path.chmod(kept)
