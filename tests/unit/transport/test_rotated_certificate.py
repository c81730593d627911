"""Another certificate for the same key: both are good for a while, then only the new one (Z6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import make_identity
from zipnet.errors import TransportError, VerificationError
from zipnet.transport.certificate import node_certificate, registered_certificate
from zipnet.transport.tls import TlsTransport

if TYPE_CHECKING:
    from zipnet.ports import Connection

NODE = make_identity("node").ed25519_private_key()
PEER = make_identity("peer").ed25519_private_key()
OLD, NEW = node_certificate(NODE), node_certificate(NODE, 1)
OWN, OWN_NEXT = node_certificate(PEER), node_certificate(PEER, 1)


async def meet(server: TlsTransport, client: TlsTransport) -> bool:
    """Whether a client gets through to a server, and is let in by it."""
    met: list[bytes | None] = []

    async def on_connection(connection: Connection) -> None:
        met.append(connection.peer_certificate.public_key)
        await connection.close()

    listener = await server.listen("127.0.0.1", 0, on_connection)
    try:
        connection = await client.connect(
            "127.0.0.1", listener.port, expected_key=OLD.public_key, timeout_s=10
        )
        with pytest.raises(TransportError):  # the far side closes; or refused our certificate
            await connection.receive()
        await connection.close()
    except TransportError:
        return False
    finally:
        await listener.close()
    return met == [OWN.public_key]


def test_each_generation_is_another_certificate_of_one_key() -> None:
    assert OLD.der != NEW.der
    assert OLD.public_key == NEW.public_key
    assert NEW.der == node_certificate(NODE, 1).der
    assert registered_certificate(NODE, NEW.der) == NEW
    with pytest.raises(VerificationError):
        registered_certificate(PEER, NEW.der)


@pytest.mark.requirement("Z6")
async def test_the_one_before_is_good_until_the_next_version() -> None:
    server = TlsTransport(OLD, registered={OWN.public_key: OWN.der})
    client = TlsTransport(OWN, registered={OLD.public_key: OLD.der})
    assert await meet(server, client)
    # The client knows the new certificate, the server still shows the old one.
    client.register({OLD.public_key: NEW.der}, {OLD.public_key: OLD.der})
    assert await meet(server, client)
    server.present(NEW)
    assert await meet(server, client)
    # The version after that: a server that still shows the old one is refused.
    client.register({OLD.public_key: NEW.der})
    assert await meet(server, client)
    server.present(OLD)
    assert not await meet(server, client)


@pytest.mark.requirement("Z6")
async def test_a_listening_node_takes_both_from_a_peer_and_then_one() -> None:
    server = TlsTransport(OLD, registered={OWN.public_key: OWN.der})
    client = TlsTransport(OWN, registered={OLD.public_key: OLD.der})
    server.register({OWN.public_key: OWN_NEXT.der}, {OWN.public_key: OWN.der})
    assert await meet(server, client)
    server.register({OWN.public_key: OWN_NEXT.der})
    assert not await meet(server, client)
    client.present(OWN_NEXT)
    assert await meet(server, client)


@pytest.mark.requirement("Z6")
async def test_a_client_that_missed_every_rotation_goes_by_the_key_alone() -> None:
    server = TlsTransport(NEW, registered={})
    client = TlsTransport(None, registered={OLD.public_key: OLD.der})
    client.register({OLD.public_key: OLD.der})

    async def on_connection(connection: Connection) -> None:
        await connection.close()

    listener = await server.listen("127.0.0.1", 0, on_connection)
    try:
        connection = await client.connect(
            "127.0.0.1", listener.port, expected_key=OLD.public_key, timeout_s=10
        )
        await connection.close()
        with pytest.raises(TransportError, match="another key"):
            await client.connect(
                "127.0.0.1", listener.port, expected_key=OWN.public_key, timeout_s=10
            )
    finally:
        await listener.close()
