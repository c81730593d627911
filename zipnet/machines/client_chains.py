"""A client's chain keys: one per committee server, all at the same round (protocol.md §4).

Rules:

1. Chains start at the registration's first round and are stepped once per round number, whether
   the client took part or not: the key of round r is the initial key stepped r - first_round times.
2. ``take_pad_keys`` steps every chain past the round before it returns, so no envelope can leave
   while a key that made it still exists, and no round number can be asked for twice.
3. Catching up is bounded by ``max_skip_rounds``; beyond it the client has to register anew.
4. Keys are bytearrays, overwritten when left behind. Nothing here shows key bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import GuardError, LocalProtocolError
from zipnet.protocol.ids import GroupId, RoundNumber, ServerIndex
from zipnet.protocol.ratchet import initial_chain_key, pad_key, skip, step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.secret import Secret

__all__ = ["ClientChains", "RoundGuard"]


class RoundGuard:
    """Lets each round number through once, in strictly increasing order (protocol.md §4.5)."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = RoundNumber(0)

    @property
    def last(self) -> RoundNumber:
        """The highest round let through, 0 before the first."""
        return self._last

    def claim(self, round_number: RoundNumber) -> None:
        """Take a round number for good.

        Raises:
            GuardError: When this or a higher round was taken before.
        """
        if round_number <= self._last:
            raise GuardError(
                f"round {round_number} was asked for after round {self._last} had its envelope"
            )
        self._last = round_number


class ClientChains:
    """The chain keys that one registration gave this client.

    Args:
        group: Group the registration is for.
        shared: KEM epoch and shared secret per server; the secrets are wiped here.
        first_round: First round the registration is good for.
        max_skip_rounds: Most rounds the chains may be moved at once.
    """

    __slots__ = ("_keys", "_max_skip_rounds", "_position")

    def __init__(
        self,
        group: GroupId,
        shared: Mapping[ServerIndex, tuple[int, Secret]],
        *,
        first_round: RoundNumber,
        max_skip_rounds: int,
    ) -> None:
        self._keys: dict[ServerIndex, bytearray] = {}
        self._position = first_round
        self._max_skip_rounds = max_skip_rounds
        for server, (epoch, secret) in shared.items():
            self._keys[server] = initial_chain_key(group, epoch, secret)
            secret.wipe()

    def __repr__(self) -> str:
        return f"ClientChains(servers={len(self._keys)}, position={self._position})"

    @property
    def position(self) -> RoundNumber:
        """The round whose keys are held; every earlier one is gone."""
        return self._position

    def take_pad_keys(self, header: RoundHeader) -> list[bytearray]:
        """Return the pad keys of a round, one per roster server, and step all chains past it.

        The caller owns the returned keys and wipes them after use.

        Raises:
            GuardError: When the round is before the chains' position: its keys are erased.
            LocalProtocolError: When the round is too far ahead to skip to; the chains stay put.
        """
        ahead = header.round - self._position
        if ahead < 0:
            raise GuardError(f"keys of round {header.round} were erased before it was asked for")
        if ahead > self._max_skip_rounds or not self._keys:
            raise LocalProtocolError(
                f"round {header.round} is {ahead} rounds ahead of this registration's chains",
                hint="register again",
            )
        header_hash = header.hash
        for key in self._keys.values():
            skip(key, ahead, limit=self._max_skip_rounds)
        pads = [pad_key(self._keys[server], header_hash) for server in header.roster]
        for key in self._keys.values():
            step(key)
        self._position = RoundNumber(header.round + 1)
        return pads

    def wipe(self) -> None:
        """Overwrite and forget every key; nothing can be padded with these chains again."""
        for key in self._keys.values():
            key[:] = bytes(len(key))
        self._keys.clear()
