"""``zipnet check``: shipped templates hold; each key that can weaken one is named when it does."""

from __future__ import annotations

import ctypes.util
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.harness.attested import group_terms
from tests.harness.strict_files import UNATTESTED, StrictFiles
from zipnet.attestation.source import PlatformConfig, QuoteSourceKind, require_complete
from zipnet.cli import run
from zipnet.errors import ConfigError
from zipnet.posture import CHECKS
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.settings.allowances import ALLOWANCES
from zipnet.settings.model import (
    AggregatorInput,
    BaseInput,
    GatewayInput,
    MicroInput,
    ServerInput,
)
from zipnet.settings.tokenfile import write_token_file

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("seccomp") is None, reason="this system has no libseccomp"
)
MODELS: dict[str, type[BaseInput]] = {
    "server": ServerInput,
    "aggregator": AggregatorInput,
    "gateway": GatewayInput,
    "micro": MicroInput,
}


@dataclass(frozen=True)
class Weak:
    """A way to weaken a template.

    Attributes:
        line: Line that replaces the key's, or is added; empty takes the key out.
        role: Template it is done to.
        spoil: What is done to the files besides.
        key: The key that must be named, where it is not the row's own.
        code: Exit code; 1 where a key allows it.
    """

    line: str | None = None
    role: str = "server"
    spoil: Callable[[StrictFiles, Path], None] | None = None
    key: str | None = None
    code: int = 2


def _folder(name: str, mode: int) -> Callable[[StrictFiles, Path], None]:
    def make(files: StrictFiles, _config: Path) -> None:
        (files.folder / name).mkdir()
        (files.folder / name).chmod(mode)

    return make


def _open(suffix: str) -> Callable[[StrictFiles, Path], None]:
    return lambda _files, config: config.with_suffix(suffix).chmod(0o644)


def _neighbour(suffix: str) -> Callable[[StrictFiles, Path], None]:
    def make(_files: StrictFiles, config: Path) -> None:
        other = config.with_name("other.toml")
        other.write_text('instance = "other.test"\n')
        other.with_suffix(suffix).write_text(config.with_suffix(suffix).read_text())

    return make


def _token(files: StrictFiles, _config: Path) -> None:
    write_token_file(files.folder / "a.token", b"\x01" * 200, b"\x02" * 32)
    (files.folder / "a.token").chmod(0o644)


def _allow(key: str, role: str = "server") -> Weak:
    return Weak(f'{key} = "{ALLOWANCES[key].sentence}"', role, code=1)


def _old_keys(files: StrictFiles, _config: Path) -> None:
    files.not_before -= timedelta(days=365)
    files.say()


def _other_certificate(files: StrictFiles, _config: Path) -> None:
    text = files.compose().decode()
    mine, other, *_ = re.findall(r'certificate = "([^"]+)"', text)
    text = text.replace(mine, other, 1)
    files.descriptor.write_bytes(sign_descriptor(text.encode(), files.operator))


def _unsigned(files: StrictFiles, _config: Path) -> None:
    files.key_file = Path()


WEAK: dict[str, Weak] = {
    "profile": Weak('profile = "development"'),
    "log_level": Weak('log_level = "debug"'),
    "descriptor: nobody attests": Weak(spoil=lambda files, _: files.say(terms=UNATTESTED)),
    "descriptor: emulated": Weak(spoil=lambda files, _: files.say(terms=group_terms())),
    "descriptor: one fault domain": Weak(
        spoil=lambda files, _: files.say(domains=("north", "north", "west"))
    ),
    "descriptor: no fault domain": Weak(
        spoil=lambda files, _: files.say(domains=("north", "", "west"))
    ),
    "descriptor: another node's certificate": Weak(spoil=_other_certificate),
    "descriptor: keys of last year": Weak(spoil=_old_keys),
    "operator": Weak(""),
    "config_key": Weak(spoil=_unsigned),
    "config_version": Weak(""),
    "tdx_source": Weak('tdx_source = "emulator"'),
    "tdx_collateral": Weak(""),
    "tdx_emulator": Weak('tdx_emulator = "/run/emulator"'),
    "tdx_emulated_mrtd": Weak(f'tdx_emulated_mrtd = "{"ab" * 48}"'),
    "metrics": Weak('metrics = "0.0.0.0:9464"'),
    "admin": Weak('admin = "ADMIN"', spoil=_folder("ADMIN", 0o755)),
    "admin_uids": Weak('admin_uids = "1000,65534"'),
    "round_period": Weak('round_period = "200ms"'),
    "fold_deadline": Weak('fold_deadline = "200ms"'),
    "round_deadline": Weak('round_deadline = "2500ms"'),
    "limits: more of something": Weak('limits = "requests_per_s=100000"'),
    "limits: of a gateway": Weak('limits = "sessions=1000000"', "gateway"),
    "limits: slower than slow": Weak('limits = "min_bytes_per_s=1"'),
    "state": Weak(spoil=_folder("state", 0o750)),
    "min_participants": Weak("min_participants = 3"),
    "etcd": Weak('etcd = "10.0.0.1:2379"'),
    "secret: open to others": Weak(spoil=_open(".secret")),
    "committee_secret: open to others": Weak(spoil=_open(".committee-secret")),
    "secret_file: another instance's too": Weak(spoil=_neighbour(".secret")),
    "committee_secret_file: another instance's too": Weak(spoil=_neighbour(".committee-secret")),
    "token": Weak('token = "TOKEN"', "aggregator", spoil=_token),
    "gateway": Weak('gateway = "0.0.0.0:8640"', "gateway"),
    "gateway: of a micro network": Weak('gateway = "0.0.0.0:8640"', "micro"),
    "allow_unsigned_settings": _allow("allow_unsigned_settings"),
    "allow_unattested": _allow("allow_unattested"),
    "allow_shared_fault_domain": _allow("allow_shared_fault_domain"),
    "allow_old_build": _allow("allow_old_build"),
    "allow_old_keys": _allow("allow_old_keys"),
    "allow_no_sandbox": _allow("allow_no_sandbox"),
    "allow_privileges": _allow("allow_privileges"),
    "allow_writable_system": _allow("allow_writable_system"),
    "allow_public_metrics": _allow("allow_public_metrics"),
    "allow_few_participants": _allow("allow_few_participants"),
    "allow_public_gateway": _allow("allow_public_gateway", "gateway"),
    "allow_publishing_for_others": _allow("allow_publishing_for_others", "gateway"),
}
"""Key, and after a colon which of several ways → how it weakens a template."""

HARMLESS = {
    "role": "says which program the file is for; every other one refuses it",
    "instance": "must be the descriptor's, or nothing starts",
    "universe": "must be the descriptor's, or nothing starts",
    "transport": "both are TLS 1.3 with both sides authenticated",
    "bootstrap": "keys, not addresses, say who is spoken to",
    "tdx_policy": "only adds to what the descriptor asks",
    "tdx_second_opinion": "only adds to what the descriptor asks",
    "listen": "anybody may dial; the handshake says who gets in",
    "token_issuers": "who may publish is the operator's choice, and open unless it is made",
    "token_roles": "who may publish is the operator's choice, and open unless it is made",
    "snapshot_every": "when the log is shortened, not what is in it",
    "trace_collector": "only on this machine; and traces carry no more than the file's",
    "trace_file": "traces carry what the record shows and what nodes ask, never what clients do",
    "read_only": "publishing for this machine is what a gateway is for",
    "proxy": "hides where the gateway is, and shows nothing else",
    "servers": "all of a micro network is in one process",
    "covers": "all of a micro network is in one process",
}
"""Keys that weaken nothing, whatever they say, and why."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrictFiles:
    # Not the day somebody set this environment up.
    monkeypatch.setenv("ZIPNET_BUILD_TIME", str(int(time.time())))
    return StrictFiles(tmp_path)


@pytest.mark.requirement("Z18")
def test_an_old_build_is_not_started(
    files: StrictFiles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZIPNET_BUILD_TIME", str(int(time.time()) - 46 * 86_400))
    code, lines = check(files, files.template("aggregator"), capsys)
    assert code == 2
    assert [line["key"] for line in lines if line["state"] == "violated"] == ["allow_old_build"]


def check(
    files: StrictFiles,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    profile: str = "production",
) -> tuple[int, list[dict[str, str]]]:
    words = ["check", str(config), "--profile", profile, "--json"]
    if files.key_file.name:
        words += ["--config-key", str(files.key_file)]
    code = run(words)
    shown = capsys.readouterr()
    assert not any(text in shown.out + shown.err for text in files.secret_texts)
    return code, [json.loads(line) for line in shown.out.splitlines()]


def profile_of(role: str) -> str:
    return "micro" if role == "micro" else "production"


@pytest.mark.requirement("H6")
@pytest.mark.parametrize("role", MODELS)
def test_the_shipped_template_holds(
    role: str, files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = check(files, files.template(role), capsys, profile_of(role))
    assert {line["state"] for line in lines} <= {"ok", "at start"}, lines
    assert code == 0
    assert len(lines) >= 4


@pytest.mark.requirement("H6")
@pytest.mark.requirement("Z5")
@pytest.mark.requirement("Z8")
@pytest.mark.requirement("Z20")
@pytest.mark.requirement("Z23")
@pytest.mark.requirement("L13")
@pytest.mark.parametrize("row", WEAK)
def test_a_weakened_copy_fails_and_names_the_key(
    row: str, files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    weak, own = WEAK[row], row.partition(":")[0]
    config = files.template(weak.role)
    if weak.line is not None:
        line = weak.line.replace('"ADMIN"', f'"{files.folder}/ADMIN"')
        line = line.replace('"TOKEN"', f'"{files.folder}/a.token"')
        kept = [
            text for text in config.read_text().splitlines()
            if not text.startswith((f"{own} =", "# signature"))
        ]  # fmt: skip
        files.write_signed(config, "\n".join([*kept, line]) + "\n")
    if weak.spoil is not None:
        weak.spoil(files, config)
    code, lines = check(files, config, capsys, profile_of(weak.role))
    told = [line for line in lines if line["state"] in {"violated", "allowed"}]
    assert [line["key"] for line in told] == [weak.key or own], lines
    assert told[0]["text"]
    assert told[0]["fix"]
    assert code == weak.code


@pytest.mark.parametrize("role", MODELS)
def test_every_key_is_known_to_weaken_or_to_be_harmless(role: str) -> None:
    """A new setting without a row fails here: say how it weakens a node, or why it cannot."""
    weakening = {row.partition(":")[0] for row in WEAK}
    assert set(MODELS[role].model_fields) - weakening - set(HARMLESS) == set()
    assert weakening.isdisjoint(HARMLESS)


def test_every_key_that_allows_something_belongs_to_one_check() -> None:
    allowing = [check.allow for check in CHECKS if check.allow is not None]
    assert sorted(allowing) == sorted(ALLOWANCES)
    assert all(key in WEAK for key in ALLOWANCES)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_an_almost_right_sentence_allows_nothing(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    files.say(terms=UNATTESTED)
    config = files.template("aggregator")
    text = config.read_text() + 'allow_unattested = "yes"\n'
    files.write_signed(config, text)
    code, lines = check(files, config, capsys)
    assert code == 2
    assert any(line["key"] == "descriptor" and line["state"] == "violated" for line in lines)
    advice = {line["key"]: line["text"] for line in lines if line["state"] == "advice"}
    assert "allows nothing" in advice["allow_unattested"]


@pytest.mark.requirement("Z20")
def test_nothing_makes_a_micro_network_production(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.template("micro")
    code, lines = check(files, config, capsys)
    assert code == 2
    assert any(line["key"] == "profile" for line in lines)
    config.write_text(config.read_text().replace('profile = "micro"', 'profile = "production"'))
    code, (line,) = check(files, config, capsys)
    assert (code, line["key"]) == (2, "profile")


def test_development_advises_and_lets_pass(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.template("server")
    files.say(terms=UNATTESTED, domains=("north", "north", "west"))
    text = config.read_text().replace('"production"', '"development"').replace("tdx_", "# tdx_")
    files.write_signed(config, "\n".join(text.splitlines()[:-1]) + "\n")
    code, lines = check(files, config, capsys, "development")
    assert code == 0
    assert [line["check"] for line in lines if line["state"] == "advice"] == [
        "attested", "fault_domains",
    ]  # fmt: skip


def test_settings_that_a_node_could_not_start_with_are_not_ok(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.template("server")
    words = ["config", "check", "--role", "server", "--config", str(config)]
    words += ["--set", f"secret_file={config.with_suffix('.secret')}"]
    words += ["--set", f"committee_secret_file={config.with_suffix('.committee-secret')}"]
    words += ["--set", f"config_key={files.key_file}"]
    assert run(words) == 0, capsys.readouterr().err
    text = "\n".join(
        line for line in config.read_text().splitlines()[:-1] if "tdx_collateral" not in line
    )
    files.write_signed(config, text + "\n")
    assert run(words) == 2
    assert "TDX_COLLATERAL is required where quotes are made" in capsys.readouterr().err


def test_a_source_of_quotes_needs_what_it_quotes_with(tmp_path: Path) -> None:
    emulator = PlatformConfig(source=QuoteSourceKind.EMULATOR, collateral=tmp_path)
    with pytest.raises(ConfigError, match="without TDX_EMULATOR and TDX_EMULATED_MRTD"):
        require_complete(emulator)
    require_complete(replace(emulator, emulator=tmp_path, emulated_mrtd=bytes(48)))
    require_complete(PlatformConfig())


def test_a_file_that_says_no_role_needs_to_be_told(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.folder / "c.toml"
    config.write_text('instance = "acme.test"\n')
    assert run(["check", str(config)]) == 2
    assert "does not say its role" in capsys.readouterr().err


def test_a_line_for_people_says_key_and_remedy(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.template("server")
    config.with_suffix(".secret").chmod(0o644)
    assert run(["check", str(config), "--config-key", str(files.key_file)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("violated  settings")
    assert "chmod 600" in line


def test_a_host_of_several_nodes_asks_for_signatures_too(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.template("server")
    assert run(["host", "--server", str(config)]) == 2
    assert "nobody's signature is asked" in capsys.readouterr().err
    config.write_text(config.read_text().replace("min_participants = 8", "min_participants = 9"))
    assert run(["host", "--server", str(config), "--config-key", str(files.key_file)]) == 2
    assert "was altered" in capsys.readouterr().err


def test_the_units_environment_file_beside_the_settings_counts(
    files: StrictFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    config = files.template("server")
    key, files.key_file = files.key_file, Path()
    assert check(files, config, capsys)[0] == 2
    beside = config.with_suffix(".env")
    beside.write_text(f'# of the unit\nZIPNET_CONFIG_KEY="{key}"\nPYTHONPATH=/elsewhere\n')
    code, lines = check(files, config, capsys)
    assert code == 0, lines
    beside.write_text(f"ZIPNET_CONFIG_KEY={key}\nZIPNET_METRICS=0.0.0.0:9464\n")
    code, (line,) = check(files, config, capsys)
    assert (code, line["key"]) == (2, "metrics")
    beside.write_text("ZIPNET_SECRET='canary\n")
    code, (line,) = check(files, config, capsys)
    assert code == 2
    assert "line 1" in line["text"]
    assert "canary" not in str(line)


@pytest.mark.requirement("L13")
def test_a_production_gateway_does_not_start_where_its_posture_does_not_hold(
    files: StrictFiles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = files.template("gateway")
    assert run(["gateway", "--config", str(config)]) == 2
    assert "setting CONFIG_KEY" in capsys.readouterr().err
    monkeypatch.setenv("ZIPNET_CONFIG_KEY", str(files.key_file))
    files.say(terms=UNATTESTED)
    assert run(["gateway", "--config", str(config)]) == 2
    assert "setting DESCRIPTOR: the descriptor's tdx.mode is off" in capsys.readouterr().err
