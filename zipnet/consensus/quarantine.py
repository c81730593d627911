"""Keeps what is dangerous in the consensus library out of reach, and proves it before every start.

PySyncObj pickles: messages, log commands, its journal's side file, snapshots. Whoever can send one
runs code. The engine (:mod:`zipnet.consensus.raft`) replaces every path that would get there; this
module takes the pickle functions themselves away, and refuses to run when that did not work. It
also gives the library's one clock function back to its caller.

Rules:

1. :func:`quarantine` runs at import of the engine, before any object of the library exists.
2. :func:`self_test` runs at every start: the version is the examined one, every method the engine
   overrides still exists, no module of the library holds a live pickle function, and calling the
   paths that used to unpickle ends in :class:`~zipnet.errors.GuardError`.
3. The standard library's own ``pickle`` stays untouched for the rest of the process.
"""

from __future__ import annotations

import gzip
import io
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NoReturn

import pysyncobj.journal
import pysyncobj.monotonic
import pysyncobj.pickle
import pysyncobj.serializer
import pysyncobj.syncobj
import pysyncobj.tcp_connection
import pysyncobj.version

from zipnet.errors import GuardError

__all__ = ["EXAMINED_VERSION", "OVERRIDDEN", "quarantine", "self_test", "under_clock"]

EXAMINED_VERSION: Final = "0.3.17"

_NAMES: Final = ("load", "loads", "dump", "dumps")
_PICKLERS: Final = frozenset({"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill"})
_original_monotonic: Callable[[], float] = pysyncobj.monotonic.monotonic
_clock: ContextVar[Callable[[], float]] = ContextVar("zipnet_consensus_clock")

#: Methods of the library the member must replace; the start-up self-test compares.
OVERRIDDEN: Final = (
    "_applyCommand",
    "_SyncObj__doApplyCommand",
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
    "_SyncObj__connectedToAnyone",
    "_SyncObj__tryLogCompaction",
    "_SyncObj__loadDumpFile",
    "_SyncObj__doChangeCluster",
    "_SyncObj__parseChangeClusterRequest",
)


def _refuse(*_arguments: object, **_keywords: object) -> NoReturn:
    raise GuardError("a pickle was reached in the consensus engine; it was not opened")


def _monotonic() -> float:
    return _clock.get(_original_monotonic)()


@contextmanager
def under_clock(clock: Callable[[], float]) -> Iterator[None]:
    """Let the library read ``clock`` (seconds, monotonic) for the time of the context."""
    token = _clock.set(clock)
    try:
        yield
    finally:
        _clock.reset(token)


def quarantine() -> None:
    """Replace every pickle function the library holds, and its clock. Idempotent."""
    for name in _NAMES:
        setattr(pysyncobj.pickle, name, _refuse)
    # The library's module also holds the standard one, through which its functions would go.
    pysyncobj.pickle.pickle = types.SimpleNamespace(**dict.fromkeys(_NAMES, _refuse))
    pysyncobj.journal.loads = _refuse
    pysyncobj.journal.dumps = _refuse
    pysyncobj.syncobj.monotonicTime = _monotonic


def self_test(engine: type, overridden: Iterable[str]) -> None:
    """Refuse to go on unless no pickle can be reached.

    Args:
        engine: The engine's class, a child of the library's ``SyncObj``.
        overridden: Names of the library's methods that the engine must replace.

    Raises:
        GuardError: A check failed; the message names it.
    """
    if pysyncobj.version.VERSION != EXAMINED_VERSION:
        raise GuardError(
            f"pysyncobj {pysyncobj.version.VERSION} is installed, {EXAMINED_VERSION} was examined",
            hint="install the locked requirements",
        )
    base = pysyncobj.syncobj.SyncObj
    for name in overridden:
        if getattr(base, name, None) is None or getattr(engine, name) is getattr(base, name):
            raise GuardError(f"the consensus engine no longer replaces {name}")
    _check_modules()
    _check_behaviour()


def _check_modules() -> None:
    for name, module in list(sys.modules.items()):
        if name != "pysyncobj" and not name.startswith("pysyncobj."):
            continue
        for attribute, value in vars(module).items():
            source = value.__name__ if isinstance(value, types.ModuleType) else None
            source = source or getattr(value, "__module__", None)
            if source in _PICKLERS:
                raise GuardError(f"{name}.{attribute} is a live pickle function")
            if attribute in _NAMES and callable(value) and value is not _refuse:
                raise GuardError(f"{name}.{attribute} is not quarantined")


def _check_behaviour() -> None:
    harmless = b"\x80\x02N."  # the pickle of None
    serializer = pysyncobj.serializer.Serializer(None, 1, *[None] * 4)
    serializer.setTransmissionData((gzip.compress(harmless), True, False))
    serializer.setTransmissionData((b"", False, True))
    attempts: dict[str, Callable[[], object]] = {
        "syncobj": lambda: pysyncobj.syncobj.pickle.loads(harmless),
        "tcp_connection": lambda: pysyncobj.tcp_connection.pickle.loads(harmless),
        "journal": lambda: pysyncobj.journal.loads(harmless),
        "serializer": lambda: pysyncobj.serializer.pickle.load(io.BytesIO(harmless)),
        "snapshot": serializer.deserialize,
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except GuardError:
            continue
        raise GuardError(f"the consensus library can still unpickle through {name}")
