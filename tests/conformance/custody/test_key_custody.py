"""The key-custody port: memory, files and a token in software keep the same promises (row L3)."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.soft_token import LABEL, PIN, SoftToken, missing, soft_token
from zipnet.cli import run as run_verb
from zipnet.errors import ConfigError, LocalProtocolError
from zipnet.protocol.identity import verify_ed25519, verify_hybrid
from zipnet.protocol.secret import Secret
from zipnet.settings.keycustody import FileCustody, MemoryCustody, custody_of, signer
from zipnet.settings.keyfiles import create_identity_files, create_token_files
from zipnet.settings.tokencustody import TokenPlace, make_token_key

if TYPE_CHECKING:
    from zipnet.ports import KeyCustody

ADAPTERS = ["memory", "file", "token"]
_names = count()

needs_token = pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")


@dataclass(frozen=True)
class Kept:
    """A keeper, another one of the same keys, and what must never be shown."""

    custody: KeyCustody
    again: Callable[[], KeyCustody]
    hidden: tuple[str, ...]


@pytest.fixture(scope="session")
def token() -> Iterator[SoftToken]:
    if missing():
        pytest.skip(missing())
    with soft_token() as made:
        yield made


def _place(token: SoftToken) -> TokenPlace:
    return TokenPlace(token.module, LABEL, f"key-{next(_names)}")


def _token_file(token: SoftToken, folder: Path) -> Path:
    path = folder / "operator.key"
    create_token_files(path, _place(token), PIN, token.pin_file, os.urandom)
    return path


@pytest.fixture(params=ADAPTERS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "memory":
        secret = Secret.random(os.urandom)
        with secret.reveal() as view:
            shown = view.hex()
        return Kept(MemoryCustody(secret), lambda: MemoryCustody(secret), (shown,))
    if request.param == "file":
        path = tmp_path / "operator.key"
        create_identity_files(path, "operator", os.urandom)
    else:
        path = _token_file(request.getfixturevalue("token"), tmp_path)
    texts = [file.read_text().rpartition(":")[2].strip() for file in (path, *_half(path))]
    hidden = (PIN, *(text for text in texts if len(text) == 64))
    return Kept(
        custody_of(path, what="--key"), lambda: custody_of(path, what="--key"), hidden
    )  # fmt: skip


def _half(path: Path) -> list[Path]:
    half = path.with_name(path.name + ".mldsa")
    return [half] if half.exists() else []


@pytest.mark.requirement("L3")
def test_what_is_lent_signs_with_both_keys(kept: Kept) -> None:
    identity = kept.custody.open()
    verify_hybrid(identity.public, "header", b"m", identity.sign("header", b"m"))
    signature = identity.sign_ed25519("revocation", b"m")
    verify_ed25519(identity.public.ed25519, "revocation", b"m", signature)
    kept.custody.close()


def test_it_is_the_same_party_each_time(kept: Kept) -> None:
    first = kept.custody.open().peer_id
    assert kept.custody.open().peer_id == first
    kept.custody.close()
    assert kept.custody.open().peer_id == first
    other = kept.again()
    assert other.open().peer_id == first
    for custody in (kept.custody, other):
        custody.close()


def test_after_it_is_taken_back_nothing_signs(kept: Kept) -> None:
    identity = kept.custody.open()
    kept.custody.close()
    kept.custody.close()
    with pytest.raises(LocalProtocolError):
        identity.sign("header", b"m")
    with pytest.raises(LocalProtocolError):
        identity.sign_ed25519("header", b"m")


@pytest.mark.requirement("L3")
def test_nothing_shows_a_key_or_a_pin(kept: Kept) -> None:
    identity = kept.custody.open()
    shown = repr(kept.custody) + repr(identity) + kept.custody.described
    kept.custody.close()
    assert not any(text in shown for text in kept.hidden)
    assert kept.custody.described


@needs_token
@pytest.mark.requirement("L3")
def test_a_key_in_a_token_cannot_be_taken_out(token: SoftToken, tmp_path: Path) -> None:
    with signer(_token_file(token, tmp_path), what="--key") as identity:
        key = identity.ed25519_private_key()
        with pytest.raises(LocalProtocolError, match="does not leave"):
            key.private_bytes_raw()
        with pytest.raises(LocalProtocolError, match="does not leave"):
            key.private_bytes(None, None, None)  # type: ignore[arg-type]
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(key)
        assert copy.deepcopy(key) is key
        assert key.public_key().public_bytes_raw() == identity.public.ed25519


@needs_token
def test_file_alone_or_token_alone_sign_nothing(token: SoftToken, tmp_path: Path) -> None:
    path = _token_file(token, tmp_path)
    # The token with another half: another party.
    half = path.with_name(path.name + ".mldsa")
    with signer(path, what="--key") as identity:
        mine = identity.public
        made = identity.sign("header", b"m")
    half.write_text(FileSecret(tmp_path).text)
    with signer(path, what="--key") as identity:
        assert identity.public.ed25519 == mine.ed25519
        assert identity.peer_id != mine.peer_id
    verify_hybrid(mine, "header", b"m", made)
    # The file with another token's key.
    text = path.read_text().replace("key-", "other-")
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not there"):
        custody_of(path, what="--key").open()


class FileSecret:
    """A fresh secret file's text."""

    def __init__(self, folder: Path) -> None:
        path = folder / f"fresh-{next(_names)}"
        create_identity_files(path, "operator", os.urandom)
        self.text = path.read_text()


def _no_pin(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("pin_file")]
    path.write_text("\n".join(lines) + "\n")


def _edit(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(old, new))


def _wrong_pin(path: Path) -> None:
    other = path.with_name("pin")
    other.touch(mode=0o600)
    other.write_text("wrong\n")
    _no_pin(path)
    path.write_text(path.read_text() + 'pin_file = "pin"\n')


def _open_pin(path: Path) -> None:
    _wrong_pin(path)
    path.with_name("pin").chmod(0o644)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nobody to ask": (_no_pin, "nobody is there to ask"),
    "a wrong PIN": (_wrong_pin, "cannot be opened: PinIncorrect"),
    "a PIN others can read": (_open_pin, "open to others"),
    "another token": (_edit(f'token = "{LABEL}"', 'token = "nobody"'), "NoSuchToken"),
    "no such library": (_edit("libsofthsm2", "libnothing"), "cannot be opened"),
    "a library by name": (_edit('module = "/', 'module = "'), "not a full path"),
    "an unknown key": (lambda path: path.write_text(path.read_text() + "x = 1\n"), "holds no key"),
    "no half": (lambda path: path.with_name(path.name + ".mldsa").unlink(), "ML-DSA half"),
}


@needs_token
@pytest.mark.parametrize("case", BROKEN)
def test_a_token_that_cannot_be_used_says_why_in_a_line(
    case: str, token: SoftToken, tmp_path: Path
) -> None:
    path = _token_file(token, tmp_path)
    spoil, says = BROKEN[case]
    spoil(path)
    with pytest.raises(ConfigError, match=says) as caught:
        custody_of(path, what="--key").open()
    assert "\n" not in caught.value.message_line
    assert PIN not in caught.value.message_line


@needs_token
def test_a_person_is_asked_for_the_pin_where_no_file_has_it(
    token: SoftToken, tmp_path: Path
) -> None:
    path = _token_file(token, tmp_path)
    _no_pin(path)
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return PIN

    with signer(path, what="--key", ask_pin=ask) as identity:
        identity.sign_ed25519("header", b"m")
    assert len(asked) == 1
    assert LABEL in asked[0]


@needs_token
def test_a_name_is_given_to_one_key(token: SoftToken) -> None:
    place = _place(token)
    make_token_key(place, PIN)
    with pytest.raises(ConfigError, match="exists"):
        make_token_key(place, PIN)


@needs_token
@pytest.mark.requirement("L3")
def test_an_operator_signs_descriptor_and_settings_from_a_token(
    token: SoftToken,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path, fine: bool = True) -> str:
        code = run_verb([str(word) for word in words])
        said = "".join(capsys.readouterr())
        assert (code == 0) is fine, said
        assert PIN not in said
        return said

    where = ("--token-module", token.module, "--token", LABEL, "--pin-file", token.pin_file)
    run("keygen", "operator", "--out", "op.key", *where, "--key-name", "cli")
    assert "exists" in run("keygen", "operator", "--out", "op.key", *where, fine=False)
    assert "own memory" in run("keygen", "node", "--out", "n.key", *where, fine=False)
    run("keygen", "committee", "--out", "c.secret")
    nodes = ["s0", "s1", "s2", "root"]
    for name in nodes:
        run("keygen", "node", "--out", f"{name}.secret")
    drafts = [f"{name}=127.0.0.1:{4000 + i}={name}.secret.pub" for i, name in enumerate(nodes)]
    run(
        "descriptor", "create", "--name", "acme.test", "--committee-secret-file", "c.secret",
        "--operator", "op.key.pub", *(f"--server={draft}" for draft in drafts[:3]),
        f"--aggregator={drafts[3]}", "--out", "d.toml",
    )  # fmt: skip
    run("descriptor", "sign", "d.toml", "--key", "op.key")
    run("descriptor", "verify", "d.toml")
    (tmp_path / "c.toml").write_text("config_version = 1\n")
    run("config", "sign", "c.toml", "--key", "op.key")
    assert "signature ok" in run("config", "verify", "c.toml", "--key", "op.key.pub")
    run("token", "revoke", "--descriptor", "d.toml", "--key", "op.key", "--peer",
        "zp1" + "ab" * 32, "--out", "r.revocation")  # fmt: skip


def test_a_file_that_holds_no_key_is_left_to_the_reader_of_secrets(tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    for text in ("", "canary-5d1c", "x" * 5000):
        path.write_text(text)
        custody = custody_of(path, what="--key")
        assert isinstance(custody, FileCustody)
        with pytest.raises(ConfigError, match="--key") as caught:
            custody.open()
        assert "canary" not in caught.value.message_line
