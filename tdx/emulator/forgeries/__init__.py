"""Every named forgery, by group: ``forgeries(emulator)["ChainMutations.impostor_root"]()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tdx.emulator.forgeries.base import Forgery, Mutations
from tdx.emulator.forgeries.chain import (
    AuthorityMutations,
    ChainMutations,
    RevocationListMutations,
    RevocationMutations,
    SignerMutations,
)
from tdx.emulator.forgeries.collateral import (
    DocumentMutations,
    DocumentTimeMutations,
    FirstModuleMutations,
    ModuleMutations,
    PlatformMutations,
)
from tdx.emulator.forgeries.forms import (
    CertificateFormMutations,
    RevocationFormMutations,
    RootMutations,
)
from tdx.emulator.forgeries.shape import (
    BodyMutations,
    EnclaveMutations,
    SignatureMutations,
    StructureMutations,
)

if TYPE_CHECKING:
    from tdx.emulator.emulator import Emulator

__all__ = ["FORGERIES", "GROUPS", "Forgery", "Mutations", "forgeries"]

GROUPS: tuple[type[Mutations], ...] = (
    StructureMutations,
    SignatureMutations,
    EnclaveMutations,
    BodyMutations,
    ChainMutations,
    AuthorityMutations,
    SignerMutations,
    RevocationMutations,
    RevocationListMutations,
    DocumentMutations,
    DocumentTimeMutations,
    PlatformMutations,
    ModuleMutations,
    FirstModuleMutations,
    CertificateFormMutations,
    RevocationFormMutations,
    RootMutations,
)
FORGERIES = tuple(f"{group.__name__}.{name}" for group in GROUPS for name in group.names())


def forgeries(emulator: Emulator) -> dict[str, Callable[[], Forgery]]:
    """Return every forgery by name, each to be made when called."""
    return {
        f"{group.__name__}.{name}": group(emulator).named(name)
        for group in GROUPS
        for name in group.names()
    }
