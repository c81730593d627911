"""Ports for networks on one machine."""

from __future__ import annotations

import socket

import pytest

from zipnet.host import loopback
from zipnet.host.loopback import free_ports


def test_each_is_another_and_can_be_bound() -> None:
    ports = free_ports(40)
    assert len(set(ports)) == 40
    for port in ports:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))


def test_none_is_one_that_the_kernel_gives_a_connection() -> None:
    assert max(free_ports(40)) < 32_768


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_one_in_use_is_not_found(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    (taken,) = free_ports(1)
    monkeypatch.setattr(loopback, "_FIRST", taken)
    monkeypatch.setattr(loopback, "_END", taken + 1)
    monkeypatch.setattr(loopback, "_TRIES", 5)
    assert free_ports(1) == [taken]
    with socket.socket(type=kind) as holder:
        holder.bind(("127.0.0.1", taken))
        with pytest.raises(OSError, match="no 1 free ports"):
            free_ports(1)
