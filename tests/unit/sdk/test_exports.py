from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import zipnet
from tests.harness.committee import HarnessCommittee, make_identity
from zipnet.errors import ConfigError
from zipnet.protocol.ids import format_peer_id

_FOREIGN = (
    "pydantic",
    "typer",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "pysyncobj",
    "zipnet.consensus",
    "zipnet.node",
    "zipnet.cli",
    "zipnet.settings",
)


def _modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_zipnet_imports_nothing_of_weight() -> None:
    modules = _modules_after("import zipnet")
    assert {name for name in modules if name.startswith("zipnet")} == {"zipnet"}
    assert "numpy" not in modules
    assert "asyncio" not in modules


def test_the_sdk_pulls_in_no_web_server_no_raft_no_command_line() -> None:
    modules = _modules_after("import zipnet.sdk\nimport zipnet.transport.tls")
    assert not {m for m in modules if m.startswith(_FOREIGN)}


def test_importing_the_sdk_loads_no_engine_and_no_parser_that_only_some_programs_need() -> None:
    modules = _modules_after("import zipnet.sdk")
    assert not modules & {"aioquic", "cryptography.x509", "numpy", "python_socks", "structlog"}


def test_every_exported_name_exists_and_no_other_does() -> None:
    for name in zipnet.__all__:
        assert getattr(zipnet, name) is not None
    assert dir(zipnet) == sorted(zipnet.__all__)
    with pytest.raises(AttributeError):
        zipnet.Pigeon  # type: ignore[attr-defined]  # noqa: B018 - the access is the test


def test_descriptors_are_loaded_only_when_genuine(tmp_path: Path) -> None:
    committee = HarnessCommittee()
    path = tmp_path / "d.toml"
    path.write_bytes(committee.descriptor_bytes)
    operator = format_peer_id(committee.operator.peer_id)
    assert zipnet.load_descriptor(path, operator=operator).group == committee.descriptor.group
    stranger = format_peer_id(make_identity("stranger").peer_id)
    with pytest.raises(ConfigError):
        zipnet.load_descriptor(path, operator=stranger)
    path.write_bytes(
        committee.descriptor_bytes.replace(b"min_participants = 2", b"min_participants = 3")
    )
    with pytest.raises(ConfigError, match="altered"):
        zipnet.load_descriptor(path)
    with pytest.raises(ConfigError, match="cannot read"):
        zipnet.load_descriptor(tmp_path / "absent.toml")
