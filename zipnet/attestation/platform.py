"""The attestor of a running process: quotes from its platform, collateral and policy from files.

Implements :class:`zipnet.ports.Attestor`. The judging itself is pure (``zipnet.admission``).

Rules:

1. A quote is compared with what was asked before it is shown. Tickets are kept until two thirds of
   their life; answers to challenges are made for one question each.
2. A peer may not go back to older collateral than it has shown before. The memory is kept per
   peer: one peer's newer collateral says nothing about what another has been given.
3. Where a policy wants one identity per machine, the first to show it holds it until its evidence
   lapses.
4. Both files are looked at again while :meth:`run` runs. A file that is gone or does not parse
   changes nothing and is logged, and ``on_source_broken`` is told; a changed policy makes every
   standing bond be judged anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tdx.binding import check_own_quote
from tdx.collateral import Bundle, expiries
from tdx.errors import GuestError, PolicyError, QuoteError
from tdx.policy import Policy, load_policy
from tdx.verify import Memo, PlatformRegister, RollbackMemory
from zipnet.admission import (
    MAX_COLLATERAL_BYTES,
    bind,
    boot_id_of,
    encode_evidence,
    gate_of,
    judge_evidence,
)
from zipnet.attestation.source import open_source
from zipnet.errors import AdmissionError, ConfigError
from zipnet.observe.log import get_logger
from zipnet.protocol.attestation import AttestationMode
from zipnet.wire.handshake import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tdx.guest import QuoteSource
    from zipnet.admission import EvidenceView, Judgement
    from zipnet.attestation.source import PlatformConfig
    from zipnet.protocol.attestation import AttestationTerms
    from zipnet.protocol.ids import PeerId

__all__ = ["PlatformAttestor"]

_MAX_TICKETS = 16
_MAX_REMEMBERED = 4096
_LOOK_S = 1.0
_MAX_POLICY_BYTES = 64 * 1024

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ticket:
    evidence: bytes
    renew_at: int


class PlatformAttestor:
    """Shows and judges evidence for one process.

    Args:
        terms: What the group asks; not ``off``.
        config: Where quotes, collateral and the operator's own policy come from.
        boot_id: 16 random bytes drawn when this process started.
        wall: Unix seconds; injectable for tests.
        source: Takes the place of the configured source; for tests.

    Raises:
        ConfigError: When a file cannot be used, or the source does not fit the group's mode.
    """

    def __init__(
        self,
        terms: AttestationTerms,
        config: PlatformConfig,
        *,
        boot_id: bytes,
        wall: Callable[[], float] = time.time,
        source: QuoteSource | None = None,
    ) -> None:
        self._terms = terms
        self._config = config
        self._boot_id = boot_id_of(boot_id)
        self._wall = wall
        self._source = open_source(config) if source is None else source
        if self._source is not None and config.collateral is None:
            raise ConfigError(
                "setting TDX_COLLATERAL is required where quotes are made",
                hint="write the bundle with `tdx fetch`, and name it here",
            )
        if config.second_opinion and find_spec("dcap_qvl") is None:
            raise ConfigError(
                "setting TDX_SECOND_OPINION: the second verifier is not installed",
                hint="pip install 'zipnet[second-opinion]'",
            )
        self._collateral = b""
        self._local: Policy | None = None
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._tickets: OrderedDict[bytes, _Ticket] = OrderedDict()
        # By role, so that no number of clients makes a node's memory be forgotten.
        self._seen: dict[Role, OrderedDict[PeerId, RollbackMemory]] = {
            role: OrderedDict() for role in Role
        }
        self._memo = Memo()
        self._machines = PlatformRegister()
        self._holding: dict[bytes, int] = {}
        self._changed = asyncio.Event()
        self._broken: dict[Path, float] = {}
        self.on_source_broken: Callable[[str], None] = lambda _what: None
        self._load_collateral()
        self._load_policy()

    @property
    def terms(self) -> AttestationTerms:
        """What the group asks."""
        return self._terms

    @property
    def can_show(self) -> bool:
        """Whether this machine makes quotes at all."""
        return self._source is not None

    @property
    def collateral_expires_at(self) -> int | None:
        """When the first part of this machine's collateral lapses, Unix seconds."""
        if not self._collateral:
            return None
        return min(expiries(Bundle.from_json(self._collateral)).values())

    def now(self) -> int:
        """Unix seconds."""
        return int(self._wall())

    async def wait_changed(self) -> None:
        """Return when what is demanded has changed."""
        await self._changed.wait()

    # -- showing -------------------------------------------------------------------------------

    async def show(self, view: EvidenceView) -> bytes:
        """Return evidence bound to the view.

        Raises:
            AdmissionError: With code ``evidence_unavailable``.
        """
        if view.challenge is not None:
            return await self._make(view)
        key = _ticket_key(view)
        kept = self._tickets.get(key)
        if kept is not None and self.now() < kept.renew_at:
            return kept.evidence
        made = await self._make(view)
        self._tickets[key] = _Ticket(made, self.now() + 2 * self._terms.lifetime_s // 3)
        self._tickets.move_to_end(key)
        while len(self._tickets) > _MAX_TICKETS:
            self._tickets.popitem(last=False)
        return made

    async def _make(self, view: EvidenceView) -> bytes:
        source = self._source
        if source is None:
            raise AdmissionError(
                "this process has no source of quotes",
                code="evidence_unavailable",
                hint="set TDX_SOURCE and TDX_COLLATERAL",
            )
        not_before = self.now()
        not_after = not_before + self._terms.lifetime_s
        boot_id = view.boot_id or self._boot_id
        binding = bind(view, not_before=not_before, not_after=not_after, boot_id=boot_id)
        try:
            quote = await asyncio.to_thread(source.quote, binding.report_data())
            check_own_quote(quote, binding)
        except (GuestError, QuoteError) as error:
            _log.warning("quote_not_made", reason=error.reason, error=str(error))
            raise AdmissionError(
                f"this machine could not make a quote: {error}", code="evidence_unavailable"
            ) from error
        return encode_evidence(
            view,
            quote=quote,
            collateral=self._collateral,
            not_before=not_before,
            not_after=not_after,
            boot_id=boot_id,
        )

    # -- judging -------------------------------------------------------------------------------

    def judge(self, data: bytes | None, view: EvidenceView, *, now: int | None = None) -> Judgement:
        """Judge a peer's evidence, at an earlier moment where ``now`` is given.

        Raises:
            AdmissionError: With a code that names what failed.
        """
        peer, remembered = view.identity.peer_id, self._seen[view.role]
        judgement = judge_evidence(
            data,
            view,
            self._terms,
            now=self.now() if now is None else now,
            seen=remembered.get(peer),
            local=self._local,
            memo=self._memo,
            second_opinion=self._config.second_opinion,
        )
        self._hold_machine(view, judgement)
        before = remembered.get(peer, RollbackMemory())
        remembered[peer] = before.advanced(judgement.verdict)
        remembered.move_to_end(peer)
        while len(remembered) > _MAX_REMEMBERED:
            remembered.popitem(last=False)
        return judgement

    def _hold_machine(self, view: EvidenceView, judgement: Judgement) -> None:
        gate = gate_of(view.role)
        policy = None if gate is None else self._terms.policy_for(gate)
        if policy is None or not policy.one_identity_per_platform:
            return
        for lapsed in [who for who, until in self._holding.items() if until < self.now()]:
            del self._holding[lapsed]
            self._machines = self._machines.released(lapsed)
        holder = bytes(view.identity.peer_id)
        try:
            self._machines = self._machines.admit(judgement.verdict, holder)
        except QuoteError as error:
            raise AdmissionError(str(error), code=f"tdx_{error.check.value}") from error
        self._holding[holder] = judgement.not_after

    async def check_own(self, view: EvidenceView) -> Judgement:
        """Show evidence to oneself and judge it: what every peer will say, before it is asked.

        Raises:
            AdmissionError: As peers would say it.
        """
        shown = await self.show(view)
        return judge_evidence(shown, view, self._terms, now=self.now())

    # -- files ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the files until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for path, load in (
                (self._config.collateral, self._load_collateral),
                (self._config.policy, self._load_policy),
            ):
                if path is not None and _stamp(path) != self._stamps.get(path):
                    self._reload(path, load)

    def _reload(self, path: Path, load: Callable[[], None]) -> None:
        try:
            load()
        except ConfigError as error:
            stamp = _stamp(path)
            if stamp is not None:
                self._stamps[path] = stamp  # said once, until it changes again
            else:
                self._stamps.pop(path, None)
            _log.error("attestation_file_refused", error=str(error), path=str(path))
            if path not in self._broken:
                self._broken[path] = time.monotonic()
                self.on_source_broken(self._name_of(path))
            return
        self._broken.pop(path, None)
        _log.info("attestation_file_loaded", path=str(path))
        if path == self._config.policy:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _name_of(self, path: Path) -> str:
        return "collateral" if path == self._config.collateral else "policy"

    def broken_for_s(self, what: str) -> float:
        """Return for how long ``collateral`` or ``policy`` could not be read; 0 when it can."""
        since = [at for path, at in self._broken.items() if self._name_of(path) == what]
        return time.monotonic() - since[0] if since else 0.0

    def _load_collateral(self) -> None:
        path = self._config.collateral
        if path is None:
            return
        data = self._read(path)
        try:
            Bundle.from_json(data)
        except QuoteError as error:
            raise ConfigError(f"collateral {path}: {error}") from error
        self._collateral = data
        self._tickets.clear()

    def _load_policy(self) -> None:
        path = self._config.policy
        if path is None:
            return
        try:
            policy = load_policy(self._read(path).decode("utf-8"))
        except (UnicodeDecodeError, PolicyError) as error:
            raise ConfigError(f"policy {path}: {error}") from error
        emulated = self._terms.mode is AttestationMode.EMULATED
        self._local = replace(policy, allow_emulated=emulated)

    def _read(self, path: Path) -> bytes:
        limit = MAX_COLLATERAL_BYTES if path == self._config.collateral else _MAX_POLICY_BYTES
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > limit:
            raise ConfigError(f"{path} is larger than {limit} bytes")
        stamp = _stamp(path)
        if stamp is not None:
            self._stamps[path] = stamp
        return data


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _ticket_key(view: EvidenceView) -> bytes:
    state = sha256(view.role.value.encode() + bytes(view.identity.peer_id) + (view.boot_id or b""))
    for key in view.extra_keys:
        state.update(sha256(key).digest())
    return state.digest()
