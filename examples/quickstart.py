"""Publish one message anonymously and print its receipt.

Run it against ``make demo KEEP=1``: ``python examples/quickstart.py [DESCRIPTOR [MESSAGE]]``.
"""

from __future__ import annotations

import asyncio
import sys

import zipnet


# The README shows these five lines; tests/e2e/test_quickstart.py holds the two together.
async def publish(path: str, message: bytes) -> zipnet.Receipt:
    """Publish, wait for the proof, and stay for three rounds of cover before leaving."""
    descriptor = zipnet.load_descriptor(path)
    async with zipnet.Publisher(descriptor, linger_rounds=3) as publisher:
        return await publisher.publish(message)


def main() -> int:
    """Publish the message of the command line, or a greeting."""
    path = sys.argv[1] if len(sys.argv) > 1 else "out/demo.toml"
    message = sys.argv[2] if len(sys.argv) > 2 else "hello from nobody in particular"  # noqa: PLR2004
    try:
        receipt = asyncio.run(publish(path, message.encode()))
    except zipnet.ZipnetError as error:
        print(f"{type(error).__name__}: {error.message_line}", file=sys.stderr)
        return error.exit_code
    slots = ", ".join(str(slot) for slot in receipt.slots)
    print(f"published in round {receipt.round}, slot {slots}")
    print(f"one of {receipt.participants} participants; message id {receipt.message_id.hex()}")
    print(f"record hash {receipt.record_hashes[-1].hex()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
