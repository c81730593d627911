"""What a capability grants, and to how many ways of asking for more it says no (row M2)."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from biscuit_auth import (
    Algorithm,
    Biscuit,
    BiscuitBuilder,
    BlockBuilder,
    KeyPair,
    PrivateKey,
)

from zipnet.access.capability import (
    MAX_LIFETIME_S,
    Capability,
    CapabilityRole,
    inspect_capability,
    issuer_public,
    require_role,
    verify_capability,
)
from zipnet.access.minting import (
    attenuate_capability,
    issuer_key,
    mint_capability,
)
from zipnet.access.tokentext import format_token, parse_token
from zipnet.errors import AdmissionError, ConfigError
from zipnet.protocol.ids import GroupId, PeerId
from zipnet.protocol.secret import Secret
from zipnet.sdk.token import load_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = hashlib.sha256(b"issuer").digest()
GROUP = GroupId(hashlib.sha256(b"group").digest())
PEER = PeerId(hashlib.sha256(b"peer").digest())
OTHER = PeerId(hashlib.sha256(b"other").digest())
NOW = 1_800_000_000
PUBLISH, READ = CapabilityRole.PUBLISH, CapabilityRole.READ


def secret(seed: bytes = SEED) -> Secret:
    return Secret(bytearray(seed))


ISSUER = issuer_key(secret())


def mint(
    *roles: CapabilityRole, lifetime_s: int = 3600, peer: PeerId | None = None, now_s: int = NOW
) -> bytes:
    return mint_capability(
        secret(),
        group=GROUP,
        roles=roles or (PUBLISH, READ),
        now_s=now_s,
        lifetime_s=lifetime_s,
        peer=peer,
    )


def verify(
    token: bytes,
    *,
    now_s: float = NOW,
    presenter: PeerId | None = PEER,
    group: GroupId = GROUP,
    issuers: tuple[bytes, ...] = (ISSUER,),
) -> Capability:
    return verify_capability(token, issuers=issuers, group=group, now_s=now_s, presenter=presenter)


def refusal(token: bytes, **asked: object) -> str:
    with pytest.raises(AdmissionError) as caught:
        verify(token, **asked)  # type: ignore[arg-type]  # a table of cases
    return caught.value.code


def signed(source: str, seed: bytes = SEED, **values: object) -> bytes:
    key = PrivateKey.from_bytes(seed, Algorithm.Ed25519)  # type: ignore[attr-defined, call-arg]  # the stubs lag
    return bytes(BiscuitBuilder(source, values).build(key).to_bytes())


def appended(token: bytes, source: str) -> bytes:
    biscuit = Biscuit.from_bytes(token, issuer_public(ISSUER))
    return bytes(biscuit.append(BlockBuilder(source)).to_bytes())


def date(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


FIXED = (
    "check if audience($group), group($group);"
    "check if time($now), expires($end), $now < $end;"
    "check if operation($role), role($role);"
)


@pytest.mark.requirement("M2")
def test_what_was_minted_is_granted_to_whoever_shows_it() -> None:
    found = verify(mint())
    assert found.roles == {PUBLISH, READ}
    assert (found.group, found.peer, found.issuer) == (GROUP, None, ISSUER)
    assert (found.issued_s, found.expires_s) == (NOW, NOW + 3600)
    assert verify(mint(), presenter=None).roles == {PUBLISH, READ}


@pytest.mark.requirement("M2")
@pytest.mark.parametrize(
    ("make", "asked", "code"),
    {
        "expired": (mint, {"now_s": NOW + 3600}, "capability_expired"),
        "dated ahead": (mint, {"now_s": NOW - 100}, "capability_not_yet"),
        "another group": (mint, {"group": GroupId(bytes(32))}, "capability_audience"),
        "another issuer": (
            mint,
            {"issuers": (issuer_key(Secret(bytearray(32))),)},
            "capability_issuer",
        ),
        "no issuer": (mint, {"issuers": ()}, "capability_issuer"),
        "bound, shown by another": (
            lambda: mint(peer=PEER),
            {"presenter": OTHER},
            "capability_presenter",
        ),
        "bound, shown by nobody": (
            lambda: mint(peer=PEER),
            {"presenter": None},
            "capability_presenter",
        ),
        "truncated": (lambda: mint()[:-7], {}, "capability_issuer"),
        "garbage": (lambda: bytes(range(256)), {}, "capability_issuer"),
        "empty": (lambda: b"", {}, "capability_malformed"),
        "oversize": (lambda: bytes(4097), {}, "capability_malformed"),
    }.values(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_token_that_does_not_hold_grants_nothing(
    make: Callable[[], bytes], asked: dict[str, object], code: str
) -> None:
    assert refusal(make(), **asked) == code


@pytest.mark.requirement("L4")
def test_more_than_thirty_days_are_neither_minted_nor_believed() -> None:
    with pytest.raises(ConfigError, match="thirty days"):
        mint(lifetime_s=MAX_LIFETIME_S + 1)
    assert verify(mint(lifetime_s=MAX_LIFETIME_S)).expires_s == NOW + MAX_LIFETIME_S
    # An issuer that writes it by hand is not believed either.
    longer = signed(
        'group({group}); issued({now}); expires({end}); role("publish");' + FIXED,
        group=bytes(GROUP),
        now=date(0),
        end=date(MAX_LIFETIME_S + 1),
    )
    assert refusal(longer) == "capability_lifetime"


@pytest.mark.requirement("M2")
def test_attenuation_takes_away_and_never_gives() -> None:
    token = mint(PUBLISH, READ)
    fewer = attenuate_capability(token, ISSUER, roles=[READ, CapabilityRole.ADMIN_WRITE])
    assert verify(fewer).roles == {READ}
    again = attenuate_capability(fewer, ISSUER, roles=[PUBLISH, READ], expires_s=NOW + 9999)
    assert verify(again).roles == {READ}
    assert verify(again).expires_s == NOW + 3600
    shorter = attenuate_capability(again, ISSUER, expires_s=NOW + 60, peer=PEER)
    assert verify(shorter).expires_s == NOW + 60
    assert refusal(shorter, now_s=NOW + 60) == "capability_expired"
    assert refusal(shorter, presenter=OTHER) == "capability_presenter"
    both = attenuate_capability(shorter, ISSUER, peer=OTHER)
    assert refusal(both, presenter=PEER) == refusal(both, presenter=OTHER)
    nothing = attenuate_capability(fewer, ISSUER, roles=[PUBLISH])
    assert refusal(nothing) == "capability_role"


@pytest.mark.requirement("M2")
@pytest.mark.parametrize(
    "source",
    [
        'role("admin-write");',
        "expires(2090-01-01T00:00:00Z);",
        'role("admin-write") <- role("publish");',
        "check all time($t), $t < 2090-01-01T00:00:00Z;",
        'check if time($now), $now.type() == "date";',
        'reject if operation("read");',
    ],
)
def test_a_block_with_anything_but_the_three_shapes_is_refused(source: str) -> None:
    assert refusal(appended(mint(), source)) == "capability_malformed"


@pytest.mark.requirement("M2")
@pytest.mark.parametrize(
    "source",
    {
        "no role": "group({group}); issued({now}); expires({end});" + FIXED,
        "unknown role": 'group({group}); issued({now}); expires({end}); role("root");' + FIXED,
        "no checks": 'group({group}); issued({now}); expires({end}); role("read");',
        "two ends": "group({group}); issued({now}); expires({end}); expires({now});"
        'role("read");' + FIXED,
        "a rule": 'group({group}); issued({now}); expires({end}); role("read"); a(1) <- b(1);'
        + FIXED,
    }.values(),
)
def test_an_issuer_writes_no_other_kind_of_token(source: str) -> None:
    token = signed(source, group=bytes(GROUP), now=date(0), end=date(60))
    assert refusal(token) == "capability_malformed"


@pytest.mark.requirement("M2")
def test_too_many_blocks_are_refused() -> None:
    token = mint()
    for _ in range(7):
        token = attenuate_capability(token, ISSUER, roles=[READ])
    assert verify(token).roles == {READ}
    biscuit = Biscuit.from_bytes(token, issuer_public(ISSUER))
    block = BlockBuilder('check if operation($role), {"read"}.contains($role);')
    assert refusal(bytes(biscuit.append(block).to_bytes())) == "capability_malformed"


@pytest.mark.requirement("M2")
def test_no_flipped_byte_survives_and_no_error_escapes() -> None:
    token = bytearray(attenuate_capability(mint(peer=PEER), ISSUER, expires_s=NOW + 60))
    draw = random.Random(7)
    for position in range(len(token)):
        mutant = bytearray(token)
        mutant[position] ^= draw.randrange(1, 256)
        try:
            found = verify(bytes(mutant))
        except AdmissionError:
            continue
        # A biscuit is not one encoding only: where a changed byte says the same, so does the token.
        assert found == verify(bytes(token))


@pytest.mark.requirement("M2")
def test_revoking_any_block_reaches_everything_made_from_it() -> None:
    token = mint()
    one = attenuate_capability(token, ISSUER, roles=[READ])
    two = attenuate_capability(token, ISSUER, roles=[READ])
    assert verify(one).ids[0] == verify(two).ids[0] == verify(token).ids[0]
    assert verify(one).ids[-1] != verify(two).ids[-1]
    assert inspect_capability(one).ids == verify(one).ids


def test_a_role_is_required_each_time_and_runs_out() -> None:
    found = verify(mint(PUBLISH))
    require_role(found, PUBLISH, now_s=NOW + 3599)
    for capability, role, now_s, code in (
        (None, PUBLISH, NOW, "capability_missing"),
        (found, READ, NOW, "capability_role"),
        (found, PUBLISH, NOW + 3600, "capability_expired"),
    ):
        with pytest.raises(AdmissionError) as caught:
            require_role(capability, role, now_s=now_s)
        assert caught.value.code == code


def test_a_token_is_one_line_of_text_and_no_error_repeats_it() -> None:
    token = mint()
    assert parse_token(format_token(token, ISSUER) + "\n") == (token, ISSUER)
    for text in ("", "zipnet-token-1.", "x" * 9000, format_token(token, b"short"), "ä.ö"):
        with pytest.raises(ConfigError) as caught:
            parse_token(text)
        assert text == "" or text not in str(caught.value)
    with pytest.raises(AdmissionError) as refused:
        verify(token, presenter=PEER, now_s=NOW + timedelta(days=40).total_seconds())
    assert format_token(token, ISSUER).split(".")[2] not in repr(refused.value)


def test_a_program_loads_a_token_without_the_library_that_makes_them(tmp_path: Path) -> None:
    file = tmp_path / "alice.token"
    file.write_text(format_token(mint(), ISSUER) + "\n")
    loads = "import sys, zipnet; token = zipnet.load_token(sys.argv[1]); print(token.hex())"
    without = "; assert 'biscuit_auth' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", loads + without, str(file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert verify(bytes.fromhex(done.stdout.strip())).roles == {PUBLISH, READ}
    file.write_bytes(b"\xff" * 99)
    with pytest.raises(ConfigError, match="no token"):
        load_token(file)
    with pytest.raises(ConfigError, match="cannot read"):
        load_token(tmp_path / "missing")


def test_attenuation_by_another_issuers_key_is_refused() -> None:
    key = PrivateKey.from_bytes(bytes(32), Algorithm.Ed25519)  # type: ignore[attr-defined, call-arg]  # the stubs lag
    other = bytes(KeyPair.from_private_key(key).public_key.to_bytes())
    with pytest.raises(ConfigError, match="not signed"):
        attenuate_capability(mint(), other, roles=[READ])
    with pytest.raises(ConfigError, match="nothing to take away"):
        attenuate_capability(mint(), ISSUER)
