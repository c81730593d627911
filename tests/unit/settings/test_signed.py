"""Row A9: settings files that an operator signed and numbered."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.harness.instance_files import NOW, InstanceFiles
from zipnet.errors import ConfigError
from zipnet.node.settings_guard import require_not_older
from zipnet.protocol.identity import Identity
from zipnet.settings import ServerSettings, load_server
from zipnet.settings.keyfiles import create_identity_files, public_path
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.signedfile import sign_settings
from zipnet.settings.values import ALLOW_FEW_PARTICIPANTS, ALLOW_UNSIGNED_SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


class SignedFiles:
    """An instance with a settings file for its second server, and a key that may sign it."""

    def __init__(self, folder: Path) -> None:
        self.instance = InstanceFiles(folder)
        self.signer = folder / "signer.key"
        create_identity_files(self.signer, "operator", os.urandom)
        self.config = folder / "server.toml"
        self.table = {
            "instance": f'"{self.instance.name}"',
            "descriptor": f'"{self.instance.descriptor}"',
            "secret_file": f'"{self.instance.secret_file("server-1")}"',
            "committee_secret_file": f'"{self.instance.secret_file("committee")}"',
            "allow_few_participants": f'"{ALLOW_FEW_PARTICIPANTS}"',
            "config_version": "3",
        }

    @property
    def key(self) -> Path:
        return public_path(self.signer)

    def write(self, *, signer: Path | None = None) -> None:
        text = "".join(f"{name} = {value}\n" for name, value in self.table.items()).encode()
        if signer is not None:
            secret, _ = read_secret_file(signer, what="signer")
            with secret:
                text = sign_settings(text, Identity.from_secret(secret))
        self.config.write_bytes(text)

    def load(self, profile: str = "production", *, key: Path | None = None) -> ServerSettings:
        flags = {"profile": profile, "config_key": key}
        return load_server(flags, {}, self.config, now=NOW)


@pytest.fixture
def files(tmp_path: Path) -> SignedFiles:
    return SignedFiles(tmp_path)


@pytest.mark.requirement("A9")
def test_production_takes_a_signed_file_only_or_a_sentence(files: SignedFiles) -> None:
    files.write()
    with pytest.raises(ConfigError, match="production refuses"):
        files.load()
    assert files.load("development").config_version is None
    files.write(signer=files.signer)
    with pytest.raises(ConfigError, match="production refuses"):
        files.load()  # signed by whom? nobody was named
    assert files.load(key=files.key).config_version == 3
    files.table["allow_unsigned_settings"] = f'"{ALLOW_UNSIGNED_SETTINGS}"'
    files.write()
    assert files.load().config_version is None


@pytest.mark.requirement("A9")
@pytest.mark.parametrize("profile", ["production", "development"])
def test_no_byte_of_a_signed_file_may_change(files: SignedFiles, profile: str) -> None:
    files.write(signer=files.signer)
    good = files.config.read_bytes()
    for at in (0, len(good) // 4, len(good) - 3):
        files.config.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ConfigError, match=r"altered|not signed"):
            files.load(profile, key=files.key)
    files.config.write_bytes(good + b'log_level = "debug"\n')
    with pytest.raises(ConfigError, match="not signed"):
        files.load(profile, key=files.key)


def test_another_signer_is_refused(files: SignedFiles, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    create_identity_files(other, "operator", os.urandom)
    files.write(signer=other)
    with pytest.raises(ConfigError, match="somebody else"):
        files.load(key=files.key)


def test_a_signed_file_needs_a_number(files: SignedFiles) -> None:
    del files.table["config_version"]
    files.write(signer=files.signer)
    with pytest.raises(ConfigError, match="CONFIG_VERSION"):
        files.load(key=files.key)


def test_a_file_cannot_name_its_own_signer(files: SignedFiles) -> None:
    files.table["config_key"] = f'"{files.key}"'
    files.write(signer=files.signer)
    for key in (None, files.key):
        with pytest.raises(ConfigError, match="CONFIG_KEY"):
            files.load("development", key=key)


@pytest.mark.requirement("A9")
def test_a_server_takes_no_file_older_than_one_it_ran_with(
    files: SignedFiles, tmp_path: Path
) -> None:
    files.write(signer=files.signer)
    settings, state = files.load(key=files.key), tmp_path / "state"
    state.mkdir(mode=0o700)
    require_not_older(settings, state)
    require_not_older(settings, state)
    require_not_older(replace(settings, config_version=5), state)
    with pytest.raises(ConfigError, match="number 3; this server ran with number 5"):
        require_not_older(settings, state)
    require_not_older(replace(settings, config_version=None), state)
