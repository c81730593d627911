"""The shipped settings templates, filled in: an attested instance, all its files beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tdx.policy import Policy
from tests.harness.instance_files import InstanceFiles
from zipnet.protocol.attestation import ATTESTATION_OFF, AttestationMode, Gate, make_terms
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.ids import format_peer_id
from zipnet.settings.descriptorfile import compose_descriptor
from zipnet.settings.publicfile import PublicFile, format_public_file
from zipnet.settings.signedfile import sign_settings

if TYPE_CHECKING:
    from zipnet.protocol.attestation import AttestationTerms
    from zipnet.settings.descriptorfile import NodeDraft

TEMPLATES = Path(__file__).parents[2] / "ops" / "settings"
REQUIRED = make_terms(
    AttestationMode.REQUIRED,
    root_der=None,
    policies=MappingProxyType(
        {Gate.COMMITTEE: Policy().require_mrtd(bytes(range(48))),
         Gate.AGGREGATOR: Policy().require_mrtd(bytes(range(48)))}
    ),
    lifetime_s=600,
)  # fmt: skip
APART = ("north", "south", "west")


@dataclass
class StrictFiles(InstanceFiles):
    """An instance that production takes; ``say`` signs the descriptor anew with other terms."""

    terms: AttestationTerms = REQUIRED
    domains: tuple[str, ...] = APART

    def __post_init__(self) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        self.not_before, self.not_after = now - timedelta(days=1), now + timedelta(days=90)
        super().__post_init__()
        self.key_file = self.folder / "operator.pub"
        self.key_file.write_text(
            format_public_file(PublicFile("operator", self.operator.public, b""))
        )

    def compose(self) -> bytes:
        """The unsigned descriptor, with fault domains and attestation."""
        self._port = self.first_port
        servers = [
            replace(self._draft(f"s{i}", who), fault_domain=domain)
            for i, (who, domain) in enumerate(zip(self.servers, self.domains, strict=True))
        ]
        root, leaf = self.aggregators
        aggregators: list[NodeDraft] = [
            self._draft("root", root), self._draft("leaf", leaf, parent="root")
        ]  # fmt: skip
        return compose_descriptor(
            name=self.name,
            universe=self.universe,
            version=1,
            not_before=self.not_before,
            not_after=self.not_after,
            max_absent=0,
            committee_secret=self.committee,
            operator=self.operator.public,
            params=self.params,
            cadence=self.cadence,
            servers=servers,
            aggregators=aggregators,
            attestation=self.terms,
        )

    def say(
        self, *, terms: AttestationTerms | None = None, domains: tuple[str, ...] | None = None
    ) -> None:
        """Write the descriptor anew."""
        self.terms = terms or self.terms
        self.domains = domains or self.domains
        self.descriptor.write_bytes(sign_descriptor(self.compose(), self.operator))

    def template(self, role: str) -> Path:
        """Fill a shipped template in, with the secrets of its role beside it, and sign it."""
        text = (TEMPLATES / f"{role}.toml").read_text()
        for blank, value in {
            "<acme.mainnet.descriptor.toml>": str(self.descriptor),
            "/var/lib/zipnet/<acme.mainnet>": str(self.folder / "state"),
            "<acme.mainnet>": self.name,
            "<zp1…>": format_peer_id(self.operator.peer_id),
        }.items():
            text = text.replace(blank, value)
        assert "<" not in text.split("\nrole", 1)[1], "a blank was left"
        config = self.folder / "config" / f"{role}.toml"
        config.parent.mkdir(mode=0o700, exist_ok=True)
        mine = {"server": "server-0", "aggregator": "leaf"}.get(role)
        if mine is not None:
            self._beside(config, ".secret", mine)
        if role == "server":
            self._beside(config, ".committee-secret", "committee")
        self.write_signed(config, text)
        return config

    def write_signed(self, config: Path, text: str) -> None:
        """Write a settings file with the operator's signature."""
        config.write_bytes(sign_settings(text.encode(), self.operator))

    def _beside(self, config: Path, suffix: str, name: str) -> None:
        path = config.with_suffix(suffix)
        path.touch(mode=0o600)
        path.write_text(self.secret_file(name).read_text())


UNATTESTED = ATTESTATION_OFF
