"""Promises of the settings: precedence, what each role refuses, and errors that quote no value."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness.instance_files import NOW, InstanceFiles
from zipnet.errors import ConfigError, PolicyMismatchError, UnknownInstanceError
from zipnet.protocol.ids import format_peer_id
from zipnet.settings import (
    CommonSettings,
    Endpoint,
    ServerSettings,
    load_aggregator,
    load_client,
    load_server,
)
from zipnet.settings.keyfiles import create_secret_file
from zipnet.settings.model import (
    AggregatorInput,
    ClientInput,
    GatewayInput,
    MicroInput,
    ServerInput,
)
from zipnet.settings.sources import parse_table
from zipnet.settings.values import ALLOW_FEW_PARTICIPANTS, ALLOW_PUBLIC_METRICS

CANARY = "canary-value-5d1c"
Loader = Callable[..., CommonSettings]


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    return InstanceFiles(tmp_path)


def _server_flags(files: InstanceFiles) -> dict[str, object]:
    return {
        "instance": files.name,
        "descriptor": files.descriptor,
        "secret_file": files.secret_file("server-1"),
        "committee_secret_file": files.secret_file("committee"),
        "state": files.folder / "state",
    }


def _aggregator_flags(files: InstanceFiles) -> dict[str, object]:
    return {
        "instance": files.name,
        "descriptor": files.descriptor,
        "secret_file": files.secret_file("leaf"),
    }


def _server(
    files: InstanceFiles, environ: dict[str, str] | None = None, **flags: object
) -> ServerSettings:
    return load_server(_server_flags(files) | flags, environ or {}, now=NOW)


def _refusal(load: Callable[[], object], kind: type[ConfigError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        load()
    line = caught.value.message_line
    assert "\n" not in line
    assert " — " in line, "an error says what to do"
    assert caught.value.exit_code == 2
    return line


def _origin(settings: CommonSettings, name: str) -> str:
    (found,) = [item.origin for item in settings.effective if item.name == name]
    return found


# -- what is loaded ------------------------------------------------------------------------------


def test_a_server_is_loaded_complete_and_nothing_is_written(files: InstanceFiles) -> None:
    before = sorted(files.folder.iterdir())
    settings = _server(files)
    assert sorted(files.folder.iterdir()) == before
    assert settings.index == 1
    assert settings.node.name == "s1"
    assert settings.identity.peer_id == settings.node.peer_id
    assert settings.listen == Endpoint(settings.node.host, settings.node.port)
    assert settings.metrics == Endpoint("127.0.0.1", 0)
    assert settings.cadence == files.cadence
    assert settings.min_participants == files.params.min_participants
    assert (settings.transport, settings.profile, settings.log_level) == (
        "tls",
        "development",
        "info",
    )
    assert [endpoint.port for endpoint in settings.server_endpoints] == [41_001, 41_002, 41_003]


def test_an_aggregator_and_a_client_are_loaded(files: InstanceFiles) -> None:
    aggregator = load_aggregator(_aggregator_flags(files), {}, now=NOW)
    assert (aggregator.entry.node.name, aggregator.entry.parent) == ("leaf", "root")
    client = load_client({"descriptor": files.descriptor}, {"ZIPNET_CADENCE": "4"}, now=NOW)
    assert (client.instance, client.universe) == (files.name, files.universe)
    assert (client.secret, client.state, client.cover_every) == (None, None, 4)
    assert (aggregator.transport, client.transport) == ("tls", "quic")


def test_flag_beats_environment_beats_file_and_the_origin_is_kept(
    files: InstanceFiles, tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('round_period = "3s"\nfold_deadline = "300ms"\nlog_level = "error"\n')
    environ = {
        "ZIPNET_ROUND_PERIOD": "2500ms",
        "ZIPNET_FOLD_DEADLINE": "200ms",
        "ZIPNET_METRICS": "",
    }
    flags = _server_flags(files) | {"round_period": "2s", "listen": None}
    settings = load_server(flags, environ, config, now=NOW)
    assert settings.cadence.round_period_ms == 2000
    assert settings.cadence.fold_deadline_ms == 200
    assert settings.log_level == "error"
    assert _origin(settings, "ROUND_PERIOD") == "flag --round-period"
    assert _origin(settings, "FOLD_DEADLINE") == "environment ZIPNET_FOLD_DEADLINE"
    assert _origin(settings, "LOG_LEVEL") == f"file {config}"
    assert _origin(settings, "ROUND_DEADLINE") == "descriptor"
    assert _origin(settings, "METRICS") == "default", "an empty variable is an unset one"


def test_every_setting_named_by_the_operators_guide_works_from_the_environment(
    files: InstanceFiles,
) -> None:
    environ = {
        "ZIPNET_INSTANCE": files.name,
        "ZIPNET_UNIVERSE": files.universe,
        "ZIPNET_DESCRIPTOR": str(files.descriptor),
        "ZIPNET_COMMITTEE_SECRET_FILE": str(files.secret_file("committee")),
        "ZIPNET_SECRET_FILE": str(files.secret_file("server-2")),
        "ZIPNET_BOOTSTRAP": "127.0.0.1:1,127.0.0.1:2,[::1]:3",
        "ZIPNET_MIN_PARTICIPANTS": "5",
        "ZIPNET_ROUND_PERIOD": "1s",
        "ZIPNET_ROUND_DEADLINE": "4s",
        "ZIPNET_FOLD_DEADLINE": "400ms",
        "ZIPNET_METRICS": "127.0.0.1:9464",
        "ZIPNET_LISTEN": "0.0.0.0:4433",
        "ZIPNET_STATE": str(files.folder / "s"),
        "ZIPNET_TRANSPORT": "QUIC",
        "ZIPNET_PROFILE": "Development",
        "ZIPNET_OPERATOR": format_peer_id(files.operator.peer_id),
        "ZIPNET_LOG_LEVEL": "DEBUG",
        "ZIPNET_CADENCE": "always",
    }
    settings = load_server({}, environ, now=NOW)
    assert settings.index == 2
    assert settings.server_endpoints[2] == Endpoint("::1", 3)
    assert settings.min_participants == 5
    assert (settings.cadence.round_period_ms, settings.cadence.round_deadline_ms) == (1000, 4000)
    assert settings.metrics == Endpoint("127.0.0.1", 9464)
    assert settings.listen == Endpoint("0.0.0.0", 4433)  # noqa: S104 - only parsed
    assert (settings.transport, settings.log_level) == ("quic", "debug")
    assert settings.operator == files.operator.peer_id


def test_paths_in_the_file_are_relative_to_the_file(files: InstanceFiles, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'instance = "{files.name}"\ndescriptor = "d.toml"\nsecret_file = "leaf.secret"\n'
    )
    assert load_aggregator({}, {}, config, now=NOW).entry.node.name == "leaf"


# -- secrets -------------------------------------------------------------------------------------


def test_the_next_committee_secret_is_looked_for_beside_the_present_one(
    files: InstanceFiles,
) -> None:
    settings = load_server(_server_flags(files), {}, now=NOW)
    assert settings.next_committee_secret.look() is None
    present = files.secret_file("committee")
    beside = present.with_name(f"{present.name}.next")
    create_secret_file(beside, os.urandom)
    found = settings.next_committee_secret.look()
    assert found is not None
    assert found.secret != settings.committee_secret
    elsewhere = files.folder / "elsewhere"
    environ = {"ZIPNET_NEXT_COMMITTEE_SECRET_FILE": str(elsewhere)}
    named = load_server(_server_flags(files), environ, now=NOW).next_committee_secret
    assert named.look() is None
    beside.rename(elsewhere)
    again = named.look()
    assert again is not None
    assert again.secret == found.secret
    elsewhere.write_text("no secret")
    with pytest.raises(ConfigError, match="NEXT_COMMITTEE_SECRET"):
        named.look()


def test_secrets_come_as_variable_file_or_credential_and_never_print(files: InstanceFiles) -> None:
    flags: dict[str, object] = _server_flags(files) | {
        "secret_file": None,
        "committee_secret_file": None,
    }
    credentials = files.folder / "credentials"
    credentials.mkdir()
    for name, source in (("zipnet-secret", "server-0"), ("zipnet-committee-secret", "committee")):
        (credentials / name).write_text(files.secret_file(source).read_text())
        (credentials / name).chmod(0o440)
    by_credential = {"CREDENTIALS_DIRECTORY": str(credentials)}
    by_value = {
        "ZIPNET_SECRET": files.secret_file("server-0").read_text(),
        "ZIPNET_COMMITTEE_SECRET": files.secret_file("committee").read_text(),
    }
    for environ in (by_credential, by_value):
        settings = load_server(flags, environ, now=NOW)
        assert settings.index == 0
        shown = repr(settings) + str(settings.effective) + str(settings.warnings)
        assert not any(text in shown for text in files.secret_texts)
        assert bool(settings.warnings) is (environ is by_value)
    assert (
        load_server(flags, by_credential | {"ZIPNET_PROFILE": "production"} | _FEW, now=NOW).index
        == 0
    )


_FEW = {"ZIPNET_ALLOW_FEW_PARTICIPANTS": ALLOW_FEW_PARTICIPANTS}


@pytest.mark.requirement("Z13")
@pytest.mark.parametrize(
    "route", ["flag", "variable", "variable file", "credential", "file", "own"]
)
def test_an_aggregator_refuses_a_committee_secret_by_any_route(
    files: InstanceFiles, route: str
) -> None:
    flags, environ, config = _aggregator_flags(files), {}, None
    secret = files.secret_file("committee")
    match route:
        case "flag":
            flags["committee_secret_file"] = secret
        case "variable":
            environ["ZIPNET_COMMITTEE_SECRET"] = secret.read_text()
        case "variable file":
            environ["ZIPNET_COMMITTEE_SECRET_FILE"] = str(secret)
        case "credential":
            (files.folder / "zipnet-committee-secret").write_text(secret.read_text())
            environ["CREDENTIALS_DIRECTORY"] = str(files.folder)
        case "file":
            config = files.folder / "c.toml"
            config.write_text('committee_secret_file = "committee.secret"\n')
        case _:
            flags["secret_file"] = secret
    line = _refusal(lambda: load_aggregator(flags, environ, config, now=NOW))
    assert "committee secret" in line
    assert not any(text in line for text in files.secret_texts)


@pytest.mark.requirement("Z13")
def test_a_committee_secret_is_refused_before_it_is_read(files: InstanceFiles) -> None:
    flags = _aggregator_flags(files) | {"committee_secret_file": files.folder / "does-not-exist"}
    assert "aggregator was given a committee secret" in _refusal(
        lambda: load_aggregator(flags, {}, now=NOW)
    )


def test_a_server_without_its_secrets_is_refused(files: InstanceFiles) -> None:
    for name in ("secret_file", "committee_secret_file"):
        line = _refusal(lambda name=name: _server(files, **{name: None}))  # type: ignore[misc]
        assert f"setting {name.upper()} is required" in line


def test_a_foreign_committee_secret_is_refused_by_its_fingerprint(files: InstanceFiles) -> None:
    files.write_secret("other")
    line = _refusal(
        lambda: _server(files, committee_secret_file=files.secret_file("other")),
        PolicyMismatchError,
    )
    assert "COMMITTEE_SECRET is not the committee secret of acme.test" in line


@pytest.mark.requirement("Z15")
def test_a_node_needs_a_secret_of_its_own_role(files: InstanceFiles) -> None:
    assert "registers no server" in _refusal(
        lambda: _server(files, secret_file=files.secret_file("leaf"))
    )
    flags = _aggregator_flags(files) | {"secret_file": files.secret_file("server-0")}
    assert "registers no aggregator" in _refusal(lambda: load_aggregator(flags, {}, now=NOW))
    assert "holds the committee secret" in _refusal(
        lambda: _server(files, secret_file=files.secret_file("committee"))
    )


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


SECRET_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "a folder": (lambda path: _replace(path, Path.mkdir), "regular file"),
    "a pipe": (lambda path: _replace(path, os.mkfifo), "regular file"),
    "empty": (lambda path: path.write_text(""), "0 characters"),
    "too large": (lambda path: path.write_text("x" * 5000), "too large"),
    "not text": (lambda path: path.write_bytes(b"\xff" * 40), "not hold text"),
    "another text": (lambda path: path.write_text(CANARY), f"{len(CANARY)} characters"),
    "weak": (lambda path: path.write_text("zipnet-secret-1:" + "ab" * 32), "random"),
}


@pytest.mark.parametrize("case", SECRET_FILES.keys())
def test_a_secret_file_of_another_shape_is_refused_without_showing_it(
    files: InstanceFiles, case: str
) -> None:
    spoil, expected = SECRET_FILES[case]
    path = files.secret_file("server-1")
    spoil(path)
    line = _refusal(lambda: _server(files))
    assert expected in line
    assert str(path) in line
    assert CANARY not in line
    assert "ab" * 8 not in line


def test_both_forms_of_a_secret_in_the_environment_are_ambiguous(files: InstanceFiles) -> None:
    environ = {"ZIPNET_SECRET": CANARY, "ZIPNET_SECRET_FILE": "/x"}
    line = _refusal(lambda: _server(files, environ, secret_file=None))
    assert "both ZIPNET_SECRET and ZIPNET_SECRET_FILE" in line
    assert CANARY not in line


@pytest.mark.parametrize("where", ["flag", "file"])
def test_a_secret_itself_never_stands_in_a_flag_or_file(files: InstanceFiles, where: str) -> None:
    config = files.folder / "c.toml"
    config.write_text(f'secret = "{CANARY}"\n' if where == "file" else "")
    flags = _server_flags(files) | ({"secret": CANARY} if where == "flag" else {})
    line = _refusal(lambda: load_server(flags, {}, config, now=NOW))
    assert "secret_file" in line
    assert CANARY not in line


# -- production ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_an_open_secret_file_warns_in_development_and_is_refused_in_production(
    files: InstanceFiles, mode: int
) -> None:
    path = files.secret_file("server-1")
    path.chmod(mode)
    (warning,) = _server(files).warnings
    assert f"chmod 600 {path}" in warning
    line = _refusal(lambda: _server(files, _FEW, profile="production"))
    assert f"mode {mode:04o}" in line
    assert f"chmod 600 {path}" in line


def test_production_accepts_files_for_the_owner_only(files: InstanceFiles) -> None:
    files.secret_file("server-1").chmod(0o400)
    settings = _server(files, _FEW, profile="production")
    assert settings.is_production
    assert any("OPERATOR" in line for line in settings.warnings)


def test_production_refuses_a_secret_in_the_environment_itself(files: InstanceFiles) -> None:
    environ = _FEW | {"ZIPNET_SECRET": files.secret_file("server-1").read_text()}
    line = _refusal(lambda: _server(files, environ, secret_file=None, profile="production"))
    assert "ZIPNET_SECRET_FILE" in line
    assert not any(text in line for text in files.secret_texts)


def test_production_refuses_a_secret_inside_a_git_checkout(files: InstanceFiles) -> None:
    (files.folder / ".git").mkdir()
    assert "git checkout" in _refusal(lambda: _server(files, _FEW, profile="production"))
    assert any("git checkout" in line for line in _server(files).warnings)


def test_production_refuses_fewer_than_eight_participants_unless_told_by_name(
    files: InstanceFiles,
) -> None:
    assert "fewer than 8" in _refusal(lambda: _server(files, profile="production"))
    almost = {"allow_few_participants": "yes"}
    assert "fewer than 8" in _refusal(lambda: _server(files, None, profile="production", **almost))
    assert _server(files, _FEW, profile="production").min_participants == 3
    assert _server(files, profile="production", min_participants=8).min_participants == 8


def test_production_refuses_to_log_traffic_keys(files: InstanceFiles) -> None:
    environ = _FEW | {"SSLKEYLOGFILE": "/tmp/keys"}
    assert "SSLKEYLOGFILE" in _refusal(lambda: _server(files, environ, profile="production"))
    assert any("SSLKEYLOGFILE" in line for line in _server(files, environ).warnings)


def test_a_variable_spelt_almost_like_a_setting_is_told_and_production_refuses_it(
    files: InstanceFiles,
) -> None:
    environ = _FEW | {"ZIPNET_MIN_PARTICIPNTS": "20", "ZIPNET_SIM_LIVE": "1", "PATH": "/bin"}
    line = _refusal(lambda: _server(files, environ, profile="production"))
    assert line.startswith("ZIPNET_MIN_PARTICIPNTS is no setting: ZIPNET_MIN_PARTICIPANTS is one")
    (warned,) = (line for line in _server(files, environ).warnings if "no setting" in line)
    assert "MIN_PARTICIPNTS" in warned


def test_whatever_is_given_is_shown_also_what_a_role_does_not_use_now(files: InstanceFiles) -> None:
    environ = {"ZIPNET_TDX_SECOND_OPINION": "yes", "ZIPNET_ALLOW_PUBLIC_METRICS": "no sentence"}
    shown = {item.name: item for item in _server(files, environ).effective}
    assert shown["TDX_SECOND_OPINION"].value == "yes"
    assert shown["ALLOW_PUBLIC_METRICS"].origin == "environment ZIPNET_ALLOW_PUBLIC_METRICS"
    assert len(shown) == len(_server(files, environ).effective), "each once"


def test_every_setting_that_is_a_file_is_relative_to_the_settings_file() -> None:
    for model in (ServerInput, AggregatorInput, ClientInput, GatewayInput, MicroInput):
        files = {name for name, field in model.model_fields.items() if "Path" in str(field)}
        files -= {"config_key"}  # never given by the file
        given = "\n".join(f'{name} = "a"' for name in files)
        table = parse_table(Path("/etc/zipnet/acme.toml"), given.encode())
        assert files, model
        assert set(table.values()) == {"/etc/zipnet/a"}, (model, table)


# -- names, descriptor, values -------------------------------------------------------------------


@pytest.mark.requirement("Z1")
def test_instance_is_required_for_nodes_and_must_be_the_descriptors(files: InstanceFiles) -> None:
    assert "INSTANCE is required" in _refusal(lambda: _server(files, instance=None))
    line = _refusal(lambda: _server(files, instance="acme.other"), UnknownInstanceError)
    assert "acme.other" in line
    assert "acme.test" in line
    flags: dict[str, object] = {"descriptor": files.descriptor, "instance": "acme.other"}
    _refusal(lambda: load_client(flags, {}, now=NOW), UnknownInstanceError)


@pytest.mark.requirement("Z2")
def test_universe_must_be_the_descriptors(files: InstanceFiles, tmp_path: Path) -> None:
    line = _refusal(lambda: _server(files, universe="other"), UnknownInstanceError)
    assert "universe" in line.lower()
    folder = tmp_path / "b"
    folder.mkdir()
    elsewhere = InstanceFiles(folder, universe="lab")
    _refusal(lambda: _server(elsewhere), UnknownInstanceError)
    assert _server(elsewhere, universe="lab").universe == "lab"


@pytest.mark.requirement("Z3")
@pytest.mark.parametrize("role", ["server", "aggregator", "client"])
def test_every_role_refuses_a_descriptor_it_cannot_trust(files: InstanceFiles, role: str) -> None:
    loaders: dict[str, tuple[Loader, dict[str, object]]] = {
        "server": (load_server, _server_flags(files)),
        "aggregator": (load_aggregator, _aggregator_flags(files)),
        "client": (load_client, {"descriptor": files.descriptor}),
    }
    load, flags = loaders[role]
    good = files.descriptor.read_bytes()
    expired = _refusal(lambda: load(flags, {}, now=NOW + timedelta(days=91)))
    assert "expired" in expired
    assert str(files.descriptor) in expired
    for broken, expected in {
        good.replace(b"max_absent = 0", b"max_absent = 1"): "altered",
        files.compose(): "not signed",
        b"\x00" * 10: "does not parse",
        b"#" * 300_000: "larger than",
    }.items():
        files.descriptor.write_bytes(broken)
        with pytest.raises(ConfigError, match=expected) as caught:
            load(flags, {}, now=NOW)
        assert str(files.descriptor) in str(caught.value)


def test_a_pinned_operator_is_enforced(files: InstanceFiles) -> None:
    flags: dict[str, object] = {"descriptor": files.descriptor}
    mine = format_peer_id(files.operator.peer_id)
    assert load_client(flags | {"operator": mine}, {}, now=NOW).operator == files.operator.peer_id
    other = format_peer_id(files.servers[0].peer_id)
    with pytest.raises(ConfigError, match="another operator"):
        load_client(flags | {"operator": other}, {}, now=NOW)


BAD_VALUES: dict[str, Any] = {
    "round_period": CANARY,
    "fold_deadline": [CANARY],
    "listen": CANARY,
    "metrics": f"{CANARY}:99999",
    "transport": CANARY,
    "profile": CANARY,
    "log_level": CANARY,
    "operator": CANARY,
    "instance": CANARY.upper(),
    "universe": CANARY.upper(),
    "bootstrap": CANARY,
    "min_participants": CANARY,
    "state": "\0" + CANARY,
}


@pytest.mark.parametrize("name", BAD_VALUES.keys())
@pytest.mark.parametrize("route", ["flag", "environment", "file"])
def test_a_bad_value_is_named_by_setting_shape_and_fix_and_never_quoted(
    files: InstanceFiles, name: str, route: str
) -> None:
    value = BAD_VALUES[name]
    flags, environ, config = _server_flags(files), {}, files.folder / "c.toml"
    flags.pop(name, None)
    text = value if isinstance(value, str) else str(value)
    config.write_text("")
    if route == "flag":
        flags[name] = value
    elif route == "environment":
        environ[f"ZIPNET_{name.upper()}"] = text
    else:
        config.write_text(f'{name} = "{text}"\n'.replace("\0", "\\u0000"))
    line = _refusal(lambda: load_server(flags, environ, config, now=NOW))
    assert f"setting {name.upper()}: got " in line
    assert "text of" in line or "a list of" in line
    assert "write " in line
    assert CANARY not in line
    assert CANARY.upper() not in line


def test_several_bad_values_are_counted(files: InstanceFiles) -> None:
    line = _refusal(lambda: _server(files, round_period="x", fold_deadline="x", listen="x"))
    assert "(and 2 more)" in line


@pytest.mark.parametrize(
    ("load", "key", "near"),
    [
        pytest.param(load_server, "instancex", "instance", id="misspelt"),
        pytest.param(load_server, "cadence", None, id="another role's"),
        pytest.param(load_client, "listen", None, id="a node's, at a client"),
        pytest.param(load_server, "secretfile", "secret_file", id="a secret's file"),
    ],
)
def test_unknown_keys_of_the_file_are_refused(
    files: InstanceFiles, load: Loader, key: str, near: str | None
) -> None:
    config = files.folder / "c.toml"
    config.write_text(f'{key} = "{CANARY}"\n')
    line = _refusal(lambda: load({"descriptor": files.descriptor}, {}, config, now=NOW))
    assert f"no setting {key}" in line
    assert near is None or f"did you mean {near}?" in line
    assert CANARY not in line


def test_a_file_that_is_no_toml_is_named_with_the_place_and_not_quoted(
    files: InstanceFiles,
) -> None:
    config = files.folder / "c.toml"
    config.write_text(f'instance = "acme.test"\nsecret {CANARY}\n')
    line = _refusal(lambda: load_server({}, {}, config, now=NOW))
    assert "line 2" in line
    assert CANARY not in line
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_server({}, {}, config, now=NOW)


def test_metrics_stay_on_loopback_unless_told_by_name(files: InstanceFiles) -> None:
    assert "METRICS" in _refusal(lambda: _server(files, metrics="0.0.0.0:9464"))
    allowed = _server(files, metrics="0.0.0.0:9464", allow_public_metrics=ALLOW_PUBLIC_METRICS)
    assert not allowed.metrics.is_loopback


def test_deadlines_must_fit_together_and_minimum_may_only_rise(files: InstanceFiles) -> None:
    line = _refusal(lambda: _server(files, fold_deadline="9s"))
    assert "FOLD_DEADLINE" in line
    assert "below the descriptor's 3" in _refusal(lambda: _server(files, min_participants=2))
    assert _server(files, min_participants=9).min_participants == 9


def test_bootstrap_names_one_address_for_each_server(files: InstanceFiles) -> None:
    assert "the committee has 3" in _refusal(lambda: _server(files, bootstrap="127.0.0.1:1"))


def test_without_a_state_folder_all_is_kept_in_memory_and_systemd_may_grant_one(
    files: InstanceFiles,
) -> None:
    settings = _server(files, state=None)
    assert settings.state is None
    (shown,) = (item for item in settings.effective if item.name == "STATE")
    assert "nothing on disk" in shown.value
    settings = _server(files, {"STATE_DIRECTORY": "/var/lib/zipnet:/x"}, state=None)
    assert settings.state == Path("/var/lib/zipnet")
    assert "not a folder" in _refusal(lambda: _server(files, state=files.descriptor))


def test_no_validation_error_with_the_input_hangs_behind_our_error(files: InstanceFiles) -> None:
    with pytest.raises(ConfigError) as caught:
        _server(files, round_period=CANARY)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
