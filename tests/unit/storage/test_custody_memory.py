"""What a process that keeps chains has in its memory when their keys are gone (rule 1, row Z12)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_forward_secrecy import found_in, memory_of
from zipnet.protocol.ratchet import step

ROOT = Path(__file__).parents[3]
CHAINS, KEPT, ROUNDS = 200, 20, 6

CHILD = f"""
import hashlib, sys
from pathlib import Path
from zipnet.protocol.ids import GroupId, RegistryIndex, RoundNumber
from zipnet.storage.custody import CustodyFiles, KeyCustody, _Chain

files = CustodyFiles(Path(sys.argv[1]))
custody = KeyCustody(files, group=GroupId(bytes(32)), max_skip_rounds=64)
for index in range({CHAINS}):
    first = bytearray(hashlib.sha256(index.to_bytes(4, "big")).digest())
    custody._chains[RegistryIndex(index)] = _Chain(first, RoundNumber(1))
for number in range(1, {ROUNDS} + 1):
    if number > {ROUNDS} // 2:  # fewer and fewer: what was large is not needed again
        custody.retire_others({{RegistryIndex(i) for i in range({KEPT})}})
    custody.step_past(RoundNumber(number))
print("stepped", flush=True)
sys.stdin.read()
"""


@pytest.mark.requirement("Z12")
def test_no_key_of_a_closed_round_is_left_by_the_files_that_held_it(tmp_path: Path) -> None:
    past: dict[str, bytes] = {}
    present: dict[str, bytes] = {}
    for index in range(CHAINS):
        key = bytearray(hashlib.sha256(index.to_bytes(4, "big")).digest())
        for number in range(2, ROUNDS + 2):
            step(key)
            kept = present if number == ROUNDS + 1 and index < KEPT else past
            kept[f"chain {index} round {number}"] = bytes(key)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"stepped\n"
            try:
                found = found_in(memory_of(child.pid), past | present)
            except PermissionError:
                pytest.skip("the system lets nobody read another process's memory")
        finally:
            child.kill()
    assert found & set(present) == set(present), "the search finds what is there"
    lingering = found - set(present)
    print(f"{len(past)} keys of the past, {len(lingering)} found")
    assert lingering == set()
