"""Run ``zipnet`` as another release: ``python -m tests.harness.next_version 2,1 …``.

The process offers those wire versions, best first, and is this release in everything else.
"""

from __future__ import annotations

import sys

from zipnet.wire import handshake

if __name__ == "__main__":
    versions = tuple(int(word) for word in sys.argv.pop(1).split(","))
    handshake.VERSIONS = versions  # type: ignore[misc, assignment]
    # Imported afterwards: sessions take their versions when they are defined.
    from zipnet.cli import main

    sys.exit(main())
