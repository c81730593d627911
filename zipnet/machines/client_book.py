"""The registered clients as one committee server holds them.

The registry says who is in; this book adds what only this server knows: whose registration it was
told to open, whose chain it holds, and whose it cannot hold (``machines.server``).

Rules:

1. Each registration the log names is opened once (:class:`AdmitClient`); the chain of whoever left
   is erased, and asked about no more.
2. Who leaves still counts in the round under way: it was in when that round opened.
3. Who cannot be held here is to be retired, for as long as the registry has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.machines.server_effects import AdmitClient, RetireChain, RetireOtherChains

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.machines.registry import RegistryView
    from zipnet.machines.server_effects import Effect
    from zipnet.protocol.ids import Digest, RegistryIndex
    from zipnet.protocol.registration import RegistryChange

__all__ = ["ClientBook"]


class ClientBook:
    """Who is to be admitted here, who is, and who leaves."""

    def __init__(self) -> None:
        self._to_admit: dict[RegistryIndex, AdmitClient] = {}
        self._registrations: dict[RegistryIndex, Digest] = {}
        self._admitted: set[RegistryIndex] = set()
        self._leaving: set[RegistryIndex] = set()
        self._unadmittable: set[RegistryIndex] = set()

    # -- what the log says -----------------------------------------------------------------

    def register(self, change: RegistryChange) -> None:
        """Note that a client is in the registry."""
        self._to_admit[change.index] = AdmitClient(change)
        if change.registration is not None:
            self._registrations[change.index] = change.registration

    def forget(self, index: RegistryIndex) -> RetireChain:
        """Note that a client is out of the registry; returns what is to be erased."""
        self._unadmittable.discard(index)
        self._leaving.add(index)
        self._to_admit.pop(index, None)
        return RetireChain(index, self._registrations.pop(index, None))

    def open_round(self) -> None:
        """Let go of who left before a round that opens now (rule 2)."""
        self._admitted -= self._leaving
        self._leaving.clear()

    def restore(self, registry: RegistryView) -> list[Effect]:
        """Go by a registry whose changes were not seen; returns what is to be erased."""
        self._leaving.clear()
        active = {change.index: change for change in registry.active_changes()}
        gone = [index for index in self._registrations if index not in active]
        effects: list[Effect] = [self.forget(index) for index in gone]
        self._leaving.clear()
        self._admitted &= active.keys()
        for index, change in active.items():
            if index not in self._registrations and change.registration is not None:
                self.register(change)
        return [*effects, RetireOtherChains(frozenset(active))]

    # -- what the driver says --------------------------------------------------------------

    def admit(self, index: RegistryIndex) -> None:
        """Note that a client's chain is here; of who left long ago nothing is noted any more."""
        if index in self._registrations or index in self._leaving:
            self._admitted.add(index)

    def give_up(self, index: RegistryIndex) -> None:
        """Note that a client's chain cannot be held here."""
        self._unadmittable.add(index)

    # -- what is asked ---------------------------------------------------------------------

    def is_admitted(self, index: RegistryIndex) -> bool:
        """Tell whether a client's chain is here."""
        return index in self._admitted

    def is_by(self, index: RegistryIndex, registration: Digest) -> bool:
        """Tell whether a client is in by this very registration."""
        return self._registrations.get(index) == registration

    def take_new(self) -> Iterable[AdmitClient]:
        """Return, once each, the registrations to open."""
        new = tuple(self._to_admit.values())
        self._to_admit.clear()
        return new

    def to_retire(self, registry: RegistryView) -> tuple[RegistryIndex, ...]:
        """Return whom this server wants out of the registry (rule 3)."""
        return tuple(index for index in sorted(self._unadmittable) if registry.is_active(index))
