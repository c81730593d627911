"""Committee secrets while one takes another's place: which is in force, which are believed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee
from zipnet.errors import VerificationError
from zipnet.protocol.committee_secrets import CommitteeSecrets
from zipnet.protocol.ids import DescriptorVersion, Digest, committee_fingerprint
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor

FIRST = HarnessCommittee().descriptor
INSTANCE = FIRST.descriptor.instance
OLD, NEW, LATER = (bytes(range(at, at + 32)) for at in (1, 2, 3))


def _named(secret: bytes) -> Digest:
    return committee_fingerprint(Secret(secret), INSTANCE)


def _version(number: int, secret: bytes, *earlier: TrustedDescriptor) -> TrustedDescriptor:
    descriptor = replace(
        FIRST.descriptor,
        version=DescriptorVersion(number),
        previous=Digest(bytes(32)),
        rotated_secret=_named(secret),
    )
    return replace(FIRST, descriptor=descriptor, earlier=earlier)


ONE = _version(1, OLD)
TWO = _version(2, NEW, ONE)
THREE = _version(3, NEW, ONE, TWO)


def _values(secrets: CommitteeSecrets) -> list[bytes]:
    found = []
    for secret in secrets.believed:
        with secret.reveal() as view:
            found.append(bytes(view))
    return found


@pytest.mark.requirement("Z6")
def test_both_are_believed_until_the_version_after_and_one_after_that() -> None:
    given = [Secret(OLD), Secret(NEW)]
    secrets = CommitteeSecrets(ONE, given)
    assert _values(secrets) == [OLD, NEW]
    secrets.use(TWO)
    assert _values(secrets) == [NEW, OLD]
    secrets.use(THREE)
    assert _values(secrets) == [NEW]
    assert given[0].wiped
    assert not given[1].wiped


def test_a_secret_that_was_not_given_yet_is_not_in_force() -> None:
    secrets = CommitteeSecrets(ONE, [Secret(OLD)])
    assert secrets.holds(ONE)
    assert not secrets.holds(TWO)
    secrets.use(TWO)
    assert _values(secrets) == [OLD]  # links stay
    assert secrets.of_round(2) is None
    assert secrets.of_round(1) is not None
    secrets.add(Secret(NEW))
    assert secrets.in_force == Secret(NEW)
    assert _values(secrets) == [NEW, OLD]


def test_one_to_come_is_kept_whatever_versions_pass() -> None:
    secrets = CommitteeSecrets(ONE, [Secret(OLD), Secret(NEW), Secret(LATER)])
    secrets.use(TWO)
    secrets.use(THREE)
    assert _values(secrets) == [NEW, LATER]
    secrets.add(Secret(LATER))
    assert len(secrets) == 2


def test_going_back_to_the_one_before_is_a_rotation_like_any_other() -> None:
    secrets = CommitteeSecrets(ONE, [Secret(OLD), Secret(NEW)])
    secrets.use(TWO)
    secrets.use(_version(3, OLD, ONE, TWO))
    assert _values(secrets) == [OLD, NEW]


def test_a_round_has_the_secret_of_its_own_version() -> None:
    secrets = CommitteeSecrets(TWO, [Secret(OLD), Secret(NEW)])
    assert secrets.of_round(1) == Secret(OLD)
    assert secrets.of_round(2) == Secret(NEW)
    with pytest.raises(VerificationError):
        secrets.of_round(7)


def test_nothing_of_them_shows() -> None:
    shown = repr(CommitteeSecrets(TWO, [Secret(OLD), Secret(NEW)]))
    assert shown == "<CommitteeSecrets 2>"


@pytest.mark.requirement("Z6")
def test_what_was_wiped_comes_back_by_no_file() -> None:
    secrets = CommitteeSecrets(ONE, [Secret(OLD), Secret(NEW)])
    secrets.use(TWO)
    secrets.use(THREE)
    again = Secret(OLD)
    assert secrets.add(again) == _named(OLD)
    assert _values(secrets) == [NEW]
    assert again.wiped
    same = Secret(NEW)
    secrets.add(same)
    assert same.wiped, "one that is held already is held once"
    assert _values(secrets) == [NEW]
