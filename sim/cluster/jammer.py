"""Publishers that write noise over others: ``python -m sim.cluster.jammer DESCRIPTOR < plan``.

Everything about them is the shipped publisher, registered and gated like any other, but for what
they put into the vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.cluster import clients
from sim.model.jamming import jam
from zipnet.machines.publisher import PublisherMachine
from zipnet.sdk import publisher

if TYPE_CHECKING:
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.ids import Digest


class _JammingMachine(PublisherMachine):
    def _fill(self, header: RoundHeader, header_hash: Digest) -> bytearray:
        body = super()._fill(header, header_hash)
        jam(body, self._descriptor.params, header_hash, self._identity.peer_id.hex())
        return body


if __name__ == "__main__":
    # The shipped SDK offers no way to break the rules, so its machine is replaced in this process.
    publisher.__dict__["PublisherMachine"] = _JammingMachine
    clients.main()
