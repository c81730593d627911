"""Where a secret is kept: the port, and its adapters for files, the environment and programs.

Rules:

1. Whatever the source, what comes out is 32 random bytes in the form `zipnet keygen` writes, or an
   error that quotes nothing. The buffer it passed through is wiped.
2. A source says what is unsafe about it; the caller decides whether that is refused.
3. A program is run without a shell, without this process's environment, for ten seconds and 4 KiB
   at most; what it leaves behind is killed. It can be run only while settings are loaded: a
   running node starts no programs (``zipnet.node.sandbox``).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from zipnet.errors import ConfigError
from zipnet.protocol.secret import parse_secret_text

if TYPE_CHECKING:
    from zipnet.protocol.secret import Secret

__all__ = [
    "EnvironmentSource",
    "FileSource",
    "ProgramSource",
    "ReadSecret",
    "SecretSource",
    "Unsafe",
    "read_secret_file",
]

MAX_SECRET_BYTES: Final = 4096
PROGRAM_DEADLINE_S: Final = 10.0
_GROUP_READS: Final = 0o440


@dataclass(frozen=True, slots=True)
class Unsafe:
    """Something unsafe about how a secret is kept, and what to do about it."""

    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class ReadSecret:
    """A secret, how to speak of it (``file, 0600``), and what is unsafe about its keeping."""

    secret: Secret
    shown: str
    unsafe: tuple[Unsafe, ...] = ()


class SecretSource(Protocol):
    """A place a secret is kept in.

    Duties: ``read`` gives the secret anew each time, bounded in size and time; it raises
    :class:`~zipnet.errors.ConfigError` for anything else, in a line that names ``what`` and quotes
    neither secret nor output.
    """

    def read(self, what: str) -> ReadSecret:
        """Return the secret; ``what`` is the setting's name, for the error."""
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of its own.

    Attributes:
        path: The file.
        credential: Whether the service manager handed it to this service alone.
    """

    path: Path
    credential: bool = False

    def read(self, what: str) -> ReadSecret:
        """Read the file and judge how it is kept."""
        secret, status = read_secret_file(self.path, what=what)
        kind = "credential" if self.credential else "file"
        mode = stat.S_IMODE(status.st_mode)
        return ReadSecret(secret, f"{kind}, {mode:04o}", tuple(self._judge(status, mode)))

    def _judge(self, status: os.stat_result, mode: int) -> list[Unsafe]:
        path, found = self.path, list[Unsafe]()
        # systemd shows the ACL it grants the service as group bits; its folder is closed to others.
        forbidden = 0o007 if self.credential or _is_mounted_for_us(status, mode) else 0o077
        if mode & forbidden:
            found.append(
                Unsafe(f"file {path} is open to others (mode {mode:04o})", f"run: chmod 600 {path}")
            )
        if status.st_uid not in (0, os.geteuid()):
            found.append(
                Unsafe(f"file {path} belongs to another user", f"run: chown {os.geteuid()} {path}")
            )
        folder = path.resolve().parent
        if not self.credential and _others_may_replace(folder):
            found.append(
                Unsafe(f"file {path} can be replaced by others", f"run: chmod go-w {folder}")
            )
        if any((above / ".git").exists() for above in path.resolve().parents):
            found.append(
                Unsafe(f"file {path} is inside a git checkout", "move it out of the checkout")
            )
        return found


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """The environment itself: for development, since other processes and reports show it.

    Attributes:
        variable: The variable's name.
        text: What it holds.
    """

    variable: str
    text: str = field(repr=False)

    def read(self, what: str) -> ReadSecret:
        """Parse the variable."""
        secret = parse_secret_text(self.text, what=f"{what} (environment {self.variable})")
        unsafe = Unsafe("is in the environment itself", f"name a file in {self.variable}_FILE")
        return ReadSecret(secret, "environment", (unsafe,))


@dataclass(frozen=True, slots=True)
class ProgramSource:
    """A program that prints the secret, such as one that asks a vault.

    Attributes:
        words: The program's full path, and its arguments.
        deadline_s: Time it has.
    """

    words: tuple[str, ...]
    deadline_s: float = PROGRAM_DEADLINE_S

    def read(self, what: str) -> ReadSecret:
        """Run the program, within the bounds of rule 3."""
        program = Path(self.words[0])
        unsafe = tuple(self._judge(program, what))
        buffer = bytearray()
        try:
            self._run(buffer, what)
            text = buffer.decode("ascii")
        except UnicodeDecodeError:
            raise ConfigError(f"{what}: program {program} does not print text") from None
        finally:
            buffer[:] = bytes(len(buffer))
        return ReadSecret(
            parse_secret_text(text, what=f"{what}: output of program {program}"), "program", unsafe
        )

    def _judge(self, program: Path, what: str) -> list[Unsafe]:
        try:
            status = program.stat()
        except OSError as error:
            raise ConfigError(
                f"{what}: program {program} cannot be run: {error.strerror}",
                hint="write its full path",
            ) from None
        if not program.is_absolute():
            raise ConfigError(f"{what}: {program} is not a full path", hint="write its full path")
        if status.st_uid in (0, os.geteuid()) and not (
            status.st_mode & 0o022 or _others_may_replace(program.resolve().parent)
        ):
            return []
        return [
            Unsafe(f"program {program} can be replaced by others", f"run: chmod go-w {program}")
        ]

    def _run(self, buffer: bytearray, what: str) -> None:
        environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        if "CREDENTIALS_DIRECTORY" in os.environ:
            environ["CREDENTIALS_DIRECTORY"] = os.environ["CREDENTIALS_DIRECTORY"]
        program = self.words[0]
        try:
            process = subprocess.Popen(  # noqa: S603 - its words are the operator's, without a shell
                self.words,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise ConfigError(
                f"{what}: program {program} cannot be run: {error.strerror}"
            ) from None
        with process:
            try:
                ended = self._listen(process, buffer)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if not ended:
                raise ConfigError(f"{what}: program {program} does not end, or prints too much")
            if process.wait() != 0:
                raise ConfigError(
                    f"{what}: program {program} failed with status {process.returncode}",
                    hint="run it by hand as the node's user, with an empty environment",
                )

    def _listen(self, process: subprocess.Popen[bytes], buffer: bytearray) -> bool:
        """Collect the output; returns whether the program ended within its bounds."""
        pipe, until = process.stdout, time.monotonic() + self.deadline_s
        if pipe is None:
            return False
        while len(buffer) <= MAX_SECRET_BYTES:
            left_s = until - time.monotonic()
            if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
                return False
            part = os.read(pipe.fileno(), MAX_SECRET_BYTES + 1)
            if not part:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
                return process.returncode is not None
            buffer += part
        return False


def _is_mounted_for_us(status: os.stat_result, mode: int) -> bool:
    """Whether it is as an orchestrator mounts it: root's, read-only, for our own group to read."""
    return status.st_uid == 0 and status.st_gid == os.getegid() and not mode & ~_GROUP_READS


def _others_may_replace(folder: Path) -> bool:
    """Whether somebody else could put another file in a file's place."""
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        return True
    sticky = bool(status.st_mode & stat.S_ISVTX)
    return bool(status.st_mode & 0o022) and not sticky


def read_secret_file(path: Path, *, what: str) -> tuple[Secret, os.stat_result]:
    """Read the one secret a file holds; the buffer it passed through is wiped.

    Raises:
        ConfigError: When the file is missing, no regular file, too large, or holds no secret.
    """
    hint = "write one with `zipnet keygen`"
    buffer = bytearray(MAX_SECRET_BYTES + 1)
    try:
        # O_NONBLOCK: opening a pipe by mistake must end in an error, not in waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{what}: {path} is not a regular file", hint=hint)
            size = os.readv(descriptor, [buffer])
        finally:
            os.close(descriptor)
        if size > MAX_SECRET_BYTES:
            raise ConfigError(f"{what}: file {path} is too large for a secret", hint=hint)
        text = buffer[:size].decode("ascii")
        return parse_secret_text(text, what=f"{what}: file {path}"), status
    except OSError as error:
        raise ConfigError(
            f"{what}: file {path} cannot be read: {error.strerror}", hint=hint
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: file {path} does not hold text", hint=hint) from None
    finally:
        buffer[:] = bytes(len(buffer))
