"""Template units: accepted by systemd silently, hardened to a score, no stray secret."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.ops.tools import OPS, ROOT, require_tool, run
from zipnet.settings.secretfiles import find_secret
from zipnet.settings.secretsources import FileSource
from zipnet.settings.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

ROLES = ["server", "aggregator"]
# Exposure as systemd counts it, times ten. What remains is what the job needs: the network.
THRESHOLD = 12


def _unit(role: str) -> Path:
    return OPS / "systemd" / f"zipnet-{role}@.service"


def _lines(role: str) -> list[str]:
    text = _unit(role).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _installed(role: str, folder: Path, *, change: tuple[str, str] = ("", "")) -> Path:
    """Write the unit as it would be installed: systemd wants the program to exist."""
    program = folder / f"zipnet-{role}"
    program.write_text("#!/bin/true\n", "utf-8")
    program.chmod(0o755)
    text = (
        _unit(role).read_text("utf-8").replace("ExecStart=/opt/zipnet/bin", f"ExecStart={folder}")
    )
    unit = folder / _unit(role).name
    unit.write_text(text.replace(*change) if change[0] else text, "utf-8")
    return unit


@pytest.mark.parametrize("role", ROLES)
def test_systemd_accepts_the_unit_without_a_word(role: str, tmp_path: Path) -> None:
    systemd = require_tool("systemd-analyze")
    result = run(systemd, "verify", "--man=no", _installed(role, tmp_path))
    assert (result.returncode, result.stdout) == (0, "")


def test_the_check_notices_a_misspelt_directive(tmp_path: Path) -> None:
    systemd = require_tool("systemd-analyze")
    unit = _installed("server", tmp_path, change=("PrivateTmp", "PrivateTemp"))
    assert "PrivateTemp" in run(systemd, "verify", "--man=no", unit).stdout


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_is_hardened(role: str) -> None:
    result = run(*_security(require_tool("systemd-analyze")), _unit(role))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "lost",
    [
        "CapabilityBoundingSet=\n",
        "SystemCallFilter=~@privileged @resources @mount @debug @cpu-emulation @obsolete\n",
        "PrivateUsers=yes\n",
    ],
)
def test_the_score_notices_a_lost_protection(lost: str, tmp_path: Path) -> None:
    unit = _installed("server", tmp_path, change=(lost, ""))
    result = run(*_security(require_tool("systemd-analyze")), unit)
    assert result.returncode != 0, result.stdout


def _security(systemd: str) -> list[str]:
    return [systemd, "security", "--offline=true", "--no-pager", f"--threshold={THRESHOLD}"]


@pytest.mark.parametrize("role", ROLES)
def test_the_unit_starts_a_program_that_the_project_installs(role: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    started = re.findall(
        r"^ExecStart=/opt/zipnet/bin/(\S+) ", "\n".join(_lines(role)), re.MULTILINE
    )
    assert started == [f"zipnet-{role}"]
    assert started[0] in scripts


def test_an_aggregator_unit_never_mentions_a_committee_secret() -> None:
    assert any("committee-secret" in line for line in _lines("server"))
    assert not any("committee" in line.lower() for line in _lines("aggregator"))


@pytest.mark.parametrize("role", ROLES)
def test_secrets_reach_the_service_as_credentials_that_the_node_looks_for(
    role: str, tmp_path: Path
) -> None:
    names = ["zipnet-secret"] + ["zipnet-committee-secret"] * (role == "server")
    credentials = [line for line in _lines(role) if line.startswith("LoadCredential=")]
    assert [re.split("[=:]", line)[1] for line in credentials] == names
    assert not [line for line in _lines(role) if line.startswith("Environment=")]
    for name in names:
        (tmp_path / name).write_text("", "utf-8")
        sources = Sources.gather({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, None)
        route = find_secret(name.removeprefix("zipnet-").replace("-", "_"), sources)
        assert route is not None
        assert route.source == FileSource(tmp_path / name, credential=True)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_but_transport_and_metrics_ports_may_be_bound(role: str) -> None:
    allowed = {
        line.partition("=")[2] for line in _lines(role) if line.startswith("SocketBindAllow")
    }
    assert "SocketBindDeny=any" in _lines(role)
    transport = {f"{ip}:{kind}:4433" for ip in ("ipv4", "ipv6") for kind in ("udp", "tcp")}
    assert allowed == transport | {"ipv4:tcp:9464"}


@pytest.mark.requirement("L15")
def test_logs_are_kept_seven_days_at_hand_and_thirty_sealed(tmp_path: Path) -> None:
    for role in ROLES:
        assert "LogNamespace=zipnet" in _lines(role)
    journal = (OPS / "systemd" / "journald@zipnet.conf").read_text("utf-8").splitlines()
    assert "MaxRetentionSec=7day" in journal
    systemd = require_tool("systemd-analyze")
    program = tmp_path / "zipnet"
    program.write_text("#!/bin/true\n", "utf-8")
    program.chmod(0o755)
    for name in [
        f"zipnet-{what}.{end}" for what in ("logs", "tokens") for end in ("service", "timer")
    ]:
        text = (OPS / "systemd" / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/opt/zipnet/bin", str(tmp_path)), "utf-8")
        result = run(systemd, "verify", "--man=no", tmp_path / name)
        assert (result.returncode, result.stdout) == (0, ""), result.stdout
    service = (OPS / "systemd" / "zipnet-logs.service").read_text("utf-8")
    assert "logs seal" in service
    assert "--keep 30" in service
    assert "token renew" in (OPS / "systemd" / "zipnet-tokens.service").read_text("utf-8")
