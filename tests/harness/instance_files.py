"""An instance on disk as an operator has it: secrets, public identities, a signed descriptor."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.identity import Identity
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.settings.descriptorfile import NodeDraft, compose_descriptor
from zipnet.settings.publicfile import PublicFile
from zipnet.settings.values import Endpoint
from zipnet.transport.certificate import node_certificate

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass
class InstanceFiles:
    """Files of one instance under ``folder``; ``secret_texts`` are canaries for output searches."""

    folder: Path
    name: str = "acme.test"
    universe: str = "zipnet"
    params: RoundParams = field(default_factory=RoundParams)
    cadence: Cadence = field(default_factory=Cadence)
    not_before: datetime = NOW - timedelta(days=1)
    not_after: datetime = NOW + timedelta(days=90)
    first_port: int = 41_000

    def __post_init__(self) -> None:
        self.secret_texts: list[str] = []
        self.committee = self.write_secret("committee")
        self.operator = self._identity("operator")
        self.servers = [self._identity(f"server-{index}") for index in range(3)]
        self.aggregators = [self._identity(name) for name in ("root", "leaf")]
        self.descriptor = self.folder / "d.toml"
        self.descriptor.write_bytes(sign_descriptor(self.compose(), self.operator))

    def compose(self) -> bytes:
        """The unsigned descriptor; nodes listen from the port after ``first_port`` on."""
        self._port = self.first_port
        servers = [self._draft(f"s{i}", who) for i, who in enumerate(self.servers)]
        root, leaf = self.aggregators
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
            aggregators=[self._draft("root", root), self._draft("leaf", leaf, parent="root")],
        )

    def secret_file(self, name: str) -> Path:
        """Path of a secret: ``committee``, ``operator``, ``server-0`` …, ``root``, ``leaf``."""
        return self.folder / f"{name}.secret"

    def write_secret(self, name: str) -> Secret:
        """Draw a secret and write its file, mode 0600."""
        secret = Secret.random(os.urandom)
        text = format_secret_text(secret)
        self.secret_texts.append(text.rpartition(":")[2])
        path = self.secret_file(name)
        path.touch(mode=0o600)
        path.write_text(text + "\n")
        return secret

    def _identity(self, name: str) -> Identity:
        return Identity.from_secret(self.write_secret(name))

    def _draft(self, name: str, identity: Identity, *, parent: str | None = None) -> NodeDraft:
        certificate = node_certificate(identity.ed25519_private_key()).der
        self._port += 1
        return NodeDraft(
            name,
            Endpoint("127.0.0.1", self._port),
            PublicFile("node", identity.public, certificate),
            parent,
        )
