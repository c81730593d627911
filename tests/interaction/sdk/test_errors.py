"""Every error a user of the SDK can meet, met: through a real failure, with words that help.

One case for each class. A case makes the failure happen and returns the error; the test looks at
what it says. The last test holds the table to what the SDK exports and what its docstrings name.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import zipnet
from tests.harness.committee import HarnessCommittee
from tests.harness.fake_network import FakeNetwork
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet import errors
from zipnet.errors import PolicyMismatchError, ZipnetError
from zipnet.protocol.secret import Secret
from zipnet.sdk import publisher, reader
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.sdk.links import Trouble

Case = Callable[[FakeNetwork, Path], Awaitable[BaseException]]
CASES: dict[type[BaseException], tuple[Case, str]] = {}


def case(kind: type[BaseException], says: str) -> Callable[[Case], Case]:
    """Register how to meet an error, and what its advice must speak of."""

    def register(function: Case) -> Case:
        CASES[kind] = (function, says)
        return function

    return register


async def _met(work: Awaitable[object], kind: type[BaseException]) -> BaseException:
    with pytest.raises(kind) as found:
        await work
    return found.value


def _publisher(network: FakeNetwork, on_trouble: Trouble | None = None) -> zipnet.Publisher:
    return zipnet.Publisher(network.committee.descriptor, transport="tls", on_trouble=on_trouble)


def _talked(committee: HarnessCommittee, text: bytes) -> None:
    crowd = [HarnessPublisher(committee, f"{text!r}-{i}") for i in range(2)]
    for one in crowd:
        one.register()
    crowd[0].queue(text)
    for _ in range(4):
        play_round(committee, crowd)


async def _records(descriptor: TrustedDescriptor, **options: Any) -> list[object]:  # noqa: ANN401 - Reader checks them
    async with zipnet.Reader(descriptor, transport="tls", follow=False, **options) as reading:
        return [record async for record in reading.records()]


@case(errors.NotSent, "more time|be sent again|more clients")
async def _without_rounds(network: FakeNetwork, _: Path) -> BaseException:
    async with _publisher(network) as one:
        await one.when.registered()
        return await _met(one.publish(b"hello", timeout=0.2), errors.NotSent)


@case(errors.Unknown, "publish it again with its salt")
async def _without_a_record(network: FakeNetwork, _: Path) -> BaseException:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        sending = asyncio.create_task(one.publish(b"hello"))
        while not network.committee.verified or not any(
            network.committee.verified[-1].record.content.reservations
        ):
            await network.run_round(2)
        for node in network.nodes.values():
            node.muted.add(Kind.RECORD_SEALED)
        await network.run_round(2)
        await one.close()
        return await _met(sending, errors.Unknown)


@case(errors.Refused, "operator")
async def _by_everybody(network: FakeNetwork, _: Path) -> BaseException:
    for name in ("s0", "s1", "s2"):
        network.nodes[name].refuse = lambda _facts: PolicyMismatchError("other parameters")
    async with _publisher(network) as one:
        return await _met(one.publish(b"hello"), errors.Refused)


@case(errors.LocalProtocolError, "publish 1 to")
async def _too_long(network: FakeNetwork, _: Path) -> BaseException:
    async with _publisher(network) as one:
        return await _met(one.publish(bytes(10_000_000)), errors.LocalProtocolError)


@case(errors.ConfigError, "the operator published")
async def _no_descriptor(_: FakeNetwork, folder: Path) -> BaseException:
    return await _met(asyncio.to_thread(zipnet.load_descriptor, folder / "x"), errors.ConfigError)


@case(errors.VerificationError, "whole proof")
async def _half_a_proof(network: FakeNetwork, _: Path) -> BaseException:
    _talked(network.committee, b"hello")
    descriptor = network.committee.descriptor
    work = asyncio.to_thread(zipnet.verify_proof, [], bytes(16), descriptor)
    return await _met(work, errors.VerificationError)


@case(errors.EquivocationError, "keep the error's proof")
async def _two_stories(network: FakeNetwork, _: Path) -> BaseException:
    descriptor = network.committee.descriptor
    twin = HarnessCommittee(
        params=network.committee.params,
        aggregators={"root": None},
        ports=network.ports,
        cadence=descriptor.descriptor.cadence,
    )
    _talked(network.committee, b"one story")
    _talked(twin, b"another")
    network.nodes["s0"].records = twin.records
    network.nodes["s1"].records = twin.records
    for _attempt in range(20):  # whom a reader asks is drawn
        try:
            await _records(descriptor)
        except errors.EquivocationError as error:
            return error
    raise AssertionError("nobody noticed")


@case(errors.TrustPolicyError, "stands still")
async def _an_old_log(network: FakeNetwork, _: Path) -> BaseException:
    committee = network.committee
    crowd = [HarnessPublisher(committee, f"old-{i}") for i in range(2)]
    for one in crowd:
        one.register()
    committee.open_round(opened_at_ms=1_577_836_800_000)
    for one in crowd:
        for envelope in one.show_header():
            committee.submit(envelope)
    committee.seal()
    policy = zipnet.TrustPolicy(max_record_age_s=60)
    work = _records(committee.descriptor, trust=policy)
    return await _met(work, errors.TrustPolicyError)


@case(errors.TransportError, "proxy")
async def _a_dead_proxy(network: FakeNetwork, _: Path) -> BaseException:
    work = _records(network.committee.descriptor, proxy="socks5://127.0.0.1:9")
    return await _met(work, errors.TransportError)


@case(errors.RemoteProtocolError, "")
async def _junk_from_every_server(network: FakeNetwork, _: Path) -> BaseException:
    for name in ("s0", "s1", "s2"):
        network.nodes[name].records = [b"junk"]
    work = _records(network.committee.descriptor)
    return await _met(work, errors.RemoteProtocolError)


@case(errors.AdmissionError, "")
async def _full_servers(network: FakeNetwork, _: Path) -> BaseException:
    for name in ("s0", "s1", "s2"):
        full = errors.AdmissionError("full", code="overloaded", retry_after=0.01)
        network.nodes[name].refuse = lambda _facts, full=full: full  # type: ignore[misc]
    return await _met(_records(network.committee.descriptor), errors.AdmissionError)


@case(errors.PolicyMismatchError, "")
async def _other_parameters(network: FakeNetwork, _: Path) -> BaseException:
    other = HarnessCommittee(seed=9)
    places = [("127.0.0.1", network.ports[f"s{i}"]) for i in range(3)]
    # The same name with other keys: the certificate is another's before anything is said.
    work = _records(other.descriptor, servers_at=places)
    assert isinstance(await _met(work, ZipnetError), errors.TransportError)
    for name in ("s0", "s1", "s2"):
        network.nodes[name].refuse = lambda _facts: PolicyMismatchError("other parameters")
    return await _met(_records(network.committee.descriptor), errors.PolicyMismatchError)


@case(errors.StorageError, "folder that this user can write to")
async def _no_folder(_: FakeNetwork, folder: Path) -> BaseException:
    path = folder / "absent" / "outbox"
    work = asyncio.to_thread(zipnet.Outbox, path, Secret(bytes(32)))
    return await _met(work, errors.StorageError)


@case(errors.DuplicateIdentityError, "an outbox of its own")
async def _two_processes(_: FakeNetwork, folder: Path) -> BaseException:
    with zipnet.Outbox(folder / "outbox", Secret(bytes(32))):
        work = asyncio.to_thread(zipnet.Outbox, folder / "outbox", Secret(bytes(32)))
        return await _met(work, errors.DuplicateIdentityError)


@case(errors.AnonymityWarning, "so few")
async def _among_two(network: FakeNetwork, _: Path) -> BaseException:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        assert await network.run_round(2)
        assert await network.run_round(2)
        with warnings.catch_warnings():
            warnings.simplefilter("error", errors.AnonymityWarning)
            return await _met(one.publish(b"hello"), errors.AnonymityWarning)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
async def test_an_error_is_met_and_says_what_to_do(
    kind: type[BaseException], tmp_path: Path
) -> None:
    meet, says = CASES[kind]
    async with FakeNetwork("tls") as network:
        error = await meet(network, tmp_path)
    assert type(error) is kind
    if isinstance(error, ZipnetError):
        assert re.search(says, error.hint or ""), (str(error), error.hint)
        assert error.message_line.startswith(str(error))
    else:
        assert re.search(says, str(error))
    if isinstance(error, errors.PublishError):
        assert len(error.message_id) == 16
        assert error.message == b"hello"
        assert b"hello" not in repr(error).encode()
        assert len(error.salt) == 8


def test_the_table_has_every_error_the_sdk_exports_or_names() -> None:
    exported = {
        thing
        for name in zipnet.__all__
        if inspect.isclass(thing := getattr(zipnet, name)) and issubclass(thing, BaseException)
    }
    named: set[type[BaseException]] = set()
    raised = re.compile(r"^\s+(\w+Error|NotSent|Unknown|Refused):", re.MULTILINE)
    for module in (publisher, reader):
        for word in raised.findall(inspect.getsource(module)):
            named.add(getattr(errors, word))
    abstract = {errors.PublishError, ZipnetError}
    assert exported | named <= set(CASES) | abstract
