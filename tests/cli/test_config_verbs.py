"""Promises of `zipnet config`: values with their source, secrets named but never shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.harness.command import Done, zipnet
from tests.harness.instance_files import InstanceFiles

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    now = datetime.now(UTC).replace(microsecond=0)
    return InstanceFiles(
        tmp_path, not_before=now - timedelta(days=1), not_after=now + timedelta(days=1)
    )


def _config(files: InstanceFiles) -> Path:
    path = files.folder / "s0.toml"
    path.write_text(
        f'instance = "{files.name}"\ndescriptor = "d.toml"\nsecret_file = "server-0.secret"\n'
        'committee_secret_file = "committee.secret"\nstate = "state"\nround_period = "3s"\n'
    )
    return path


def test_show_names_each_setting_with_its_source(files: InstanceFiles) -> None:
    config = _config(files)
    done = zipnet(
        "config", "show", "--role", "server", "--config", config, "--set", "log-level=debug",
        "--json", cwd=files.folder, env={"ZIPNET_TRANSPORT": "tls"},
    )  # fmt: skip
    assert done.code == 0, done.err
    shown = {
        item["name"]: (item["value"], item["origin"])
        for item in map(json.loads, done.out.splitlines())
    }
    assert shown["SECRET"] == ("set (file, 0600)", f"file {config}")
    assert shown["COMMITTEE_SECRET"][0] == "set (file, 0600)"
    assert shown["TRANSPORT"] == ("tls", "environment ZIPNET_TRANSPORT")
    assert shown["LOG_LEVEL"] == ("debug", "flag --log-level")
    assert shown["ROUND_PERIOD"] == ("3000ms", f"file {config}")
    assert shown["FOLD_DEADLINE"] == ("1000ms", "descriptor")
    assert not any(text in done.everything for text in files.secret_texts)
    assert not (files.folder / "state").exists()


def test_show_as_a_table(files: InstanceFiles) -> None:
    done = zipnet(
        "config",
        "show",
        "--role",
        "client",
        "--set",
        f"descriptor={files.descriptor}",
        cwd=files.folder,
    )
    assert done.code == 0
    assert "CADENCE" in done.out
    assert "not set" in done.out


def test_check_says_ok_or_what_is_wrong_in_one_line(files: InstanceFiles) -> None:
    config = _config(files)
    good = zipnet("config", "check", "--role", "server", "-c", config, cwd=files.folder)
    assert (good.code, good.out, good.err) == (0, "settings ok: server of acme.test\n", "")
    bad = zipnet(
        "config", "check", "--role", "server", "-c", config, cwd=files.folder,
        env={"ZIPNET_ROUND_PERIOD": "canary-5d1c"},
    )  # fmt: skip
    assert (bad.code, bad.out) == (2, "")
    assert bad.err == (
        "error: setting ROUND_PERIOD: got text of 11 characters from environment "
        "ZIPNET_ROUND_PERIOD, not a duration — write a duration such as 2s or 500ms\n"
    )


def test_an_open_secret_warns_and_production_refuses_it(files: InstanceFiles) -> None:
    config = _config(files)
    files.secret_file("server-0").chmod(0o644)
    lax = zipnet("config", "check", "--role", "server", "-c", config, cwd=files.folder)
    assert lax.code == 0
    assert "warning: SECRET: the secret file" in lax.err
    _sign(files, config)
    strict = _check_in_production(files, config)
    assert strict.code == 2
    assert "chmod 600" in strict.err


def _sign(files: InstanceFiles, config: Path) -> None:
    with config.open("a") as file:
        file.write("config_version = 1\nmin_participants = 8\n")
    assert zipnet("keygen", "operator", "--out", "signer.key", cwd=files.folder).code == 0
    done = zipnet("config", "sign", config, "--key", "signer.key", cwd=files.folder)
    assert done.code == 0, done.err


def _check_in_production(files: InstanceFiles, config: Path) -> Done:
    return zipnet(
        "config", "check", "--role", "server", "-c", config, "--set", "profile=production",
        "--set", "config-key=signer.key.pub", cwd=files.folder,
    )  # fmt: skip


def test_production_takes_a_file_once_it_is_signed_and_none_that_changed_since(
    files: InstanceFiles,
) -> None:
    config = _config(files)
    unsigned = zipnet(
        "config", "check", "--role", "server", "-c", config, "--set", "profile=production",
        cwd=files.folder,
    )  # fmt: skip
    assert unsigned.code == 2
    assert "zipnet config sign" in unsigned.err
    _sign(files, config)
    assert _check_in_production(files, config).code == 0
    good = zipnet("config", "verify", config, "--key", "signer.key.pub", cwd=files.folder)
    assert (good.code, good.out) == (0, f"signature ok: {config}\n")
    config.write_text(config.read_text().replace('"3s"', '"4s"'))
    for done in (
        _check_in_production(files, config),
        zipnet("config", "verify", config, "--key", "signer.key.pub", cwd=files.folder),
    ):
        assert done.code == 2
        assert "was altered" in done.err


def test_a_file_without_a_number_is_not_signed(files: InstanceFiles) -> None:
    config = _config(files)
    before = config.read_text()
    done = zipnet("config", "sign", config, "--key", "operator.secret", cwd=files.folder)
    assert done.code == 2
    assert "config_version" in done.err
    assert config.read_text() == before


@pytest.mark.requirement("Z13")
def test_an_aggregator_with_the_servers_file_is_refused(files: InstanceFiles) -> None:
    done = zipnet("config", "check", "--role", "aggregator", "-c", _config(files), cwd=files.folder)
    assert done.code == 2
    assert "an aggregator was given a committee secret" in done.err
