"""Who may revoke what, down to the last byte (row Z26)."""

from __future__ import annotations

import hashlib

import pytest

from tests.harness.committee import make_identity
from zipnet.errors import AdmissionError, RemoteProtocolError, VerificationError
from zipnet.protocol.ids import GroupId
from zipnet.protocol.revocation import (
    Revocation,
    RevokedKind,
    open_revocation,
    open_warrant,
    require_fresh,
    sign_revocation,
    sign_warrant,
)

GROUP = GroupId(hashlib.sha256(b"group").digest())
OPERATOR = make_identity("operator")
DEPUTY = make_identity("deputy")
STRANGER = make_identity("stranger")
TARGET = hashlib.sha256(b"target").digest()
KEY = OPERATOR.public.ed25519
AT = 1_800_000_000_000


def opened(data: bytes, group: GroupId = GROUP) -> Revocation:
    return open_revocation(data, group, KEY)


@pytest.mark.requirement("Z26")
def test_the_operator_revokes_and_the_bytes_are_laid_out_as_written() -> None:
    data = sign_revocation(GROUP, RevokedKind.PEER, TARGET, AT, OPERATOR)
    body = b"\1" + GROUP + b"\2" + TARGET + AT.to_bytes(8, "big") + b"\0\0"
    assert data == body + OPERATOR.sign_ed25519("revocation", body)
    assert opened(data) == Revocation(RevokedKind.PEER, TARGET, AT, KEY)


@pytest.mark.requirement("Z26")
def test_a_deputy_revokes_under_a_warrant_and_until_it_ends() -> None:
    warrant = sign_warrant(GROUP, DEPUTY.public.ed25519, AT, OPERATOR)
    assert open_warrant(warrant, GROUP, KEY).key == DEPUTY.public.ed25519
    data = sign_revocation(GROUP, RevokedKind.TOKEN, TARGET, AT - 1, DEPUTY, warrant)
    assert opened(data).signer == DEPUTY.public.ed25519
    late = sign_revocation(GROUP, RevokedKind.TOKEN, TARGET, AT, DEPUTY, warrant)
    with pytest.raises(VerificationError, match="after the end"):
        opened(late)


@pytest.mark.requirement("Z26")
@pytest.mark.parametrize(
    "data",
    {
        "by a stranger": sign_revocation(GROUP, RevokedKind.PEER, TARGET, AT, STRANGER),
        "by a deputy without a warrant": sign_revocation(
            GROUP, RevokedKind.PEER, TARGET, AT, DEPUTY
        ),
        "by a stranger under a deputy's warrant": sign_revocation(
            GROUP, RevokedKind.PEER, TARGET, AT, STRANGER,
            sign_warrant(GROUP, DEPUTY.public.ed25519, AT + 1, OPERATOR),
        ),
        "under a warrant a stranger signed": sign_revocation(
            GROUP, RevokedKind.PEER, TARGET, AT, DEPUTY,
            sign_warrant(GROUP, DEPUTY.public.ed25519, AT + 1, STRANGER),
        ),
    }.values(),
)  # fmt: skip
def test_nobody_else_revokes(data: bytes) -> None:
    with pytest.raises(VerificationError):
        opened(data)


@pytest.mark.requirement("Z26")
def test_a_statement_is_for_one_group_and_no_byte_of_it_may_change() -> None:
    warrant = sign_warrant(GROUP, DEPUTY.public.ed25519, AT + 1, OPERATOR)
    data = sign_revocation(GROUP, RevokedKind.PEER, TARGET, AT, DEPUTY, warrant)
    with pytest.raises(RemoteProtocolError):
        opened(data, GroupId(bytes(32)))
    for position in range(len(data)):
        mutant = bytearray(data)
        mutant[position] ^= 1
        with pytest.raises((RemoteProtocolError, VerificationError)):
            opened(bytes(mutant))
    for cut in (b"", data[:64], data[:-1], data + b"\0", data * 3):
        with pytest.raises((RemoteProtocolError, VerificationError)):
            opened(cut)


def test_a_new_statement_is_of_today() -> None:
    day = 24 * 3600 * 1000
    found = Revocation(RevokedKind.PEER, TARGET, AT, KEY)
    require_fresh(found, AT)
    require_fresh(found, AT + day)
    for now in (AT + day + 1, AT - 60_001):
        with pytest.raises(AdmissionError):
            require_fresh(found, now)
