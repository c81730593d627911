"""Measuring firmware and kernels: against an independent layout, and against Debian's OVMF."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from hashlib import sha256, sha384
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdx.errors import Check, ImageError, QuoteError
from tdx.measure import (
    PROFILES,
    Boot,
    authenticode_sha384,
    compute_mrtd,
    measure,
    parse_tdvf,
    rtmr1,
    rtmr2,
)
from tdx.policy import load_policy
from tdx.quote import extend_all
from tests.tdx.test_cli import run
from tests.tdx.test_fuzz import fuzzed
from tests.tdx.test_policy import REPORT

PAGE = 4096
FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
ENTRY = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
OTHER = UUID("00000000-1111-2222-3333-444444444444").bytes_le
OVMF_SHA256 = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773"
SINGLE_PASS = (
    "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057"
    "fb887fed0744d5631a212967fb231c47"
)
TWO_PASS = (
    "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b3"
    "3db3b32e6924cba830a724eed443f7e1"
)

SectionRow = tuple[int, int, int, int, int, int]
CODE = bytes(i * 7 % 256 for i in range(2 * PAGE))
# data offset, raw size, address, memory size, type, attributes
SECTIONS: list[SectionRow] = [
    (PAGE, 2 * PAGE, (1 << 32) - 2 * PAGE, 2 * PAGE, 0, 1),
    (0, PAGE, (1 << 32) - 3 * PAGE, PAGE, 1, 0),
    (0, 0, 0x810000, 2 * PAGE, 3, 0),
    (0, 0, 0x900000, 4 * PAGE, 4, 2),
    (100, 300, 0xA00000, PAGE, 5, 1),
]


def firmware(sections: list[SectionRow] | None = None, *, version: int = 1) -> bytes:
    """Lay out a small combined image: a page of variables, two of code, metadata at the end."""
    rows = SECTIONS if sections is None else sections
    listed = b"".join(struct.pack("<IIQQII", *row) for row in rows)
    descriptor = struct.pack("<4sIII", b"TDVF", 16 + len(listed), version, len(rows)) + listed
    code = bytearray(CODE)
    start = len(code) - 1024
    code[start : start + len(descriptor)] = descriptor
    entry = struct.pack("<I", 1024) + struct.pack("<H", 22) + ENTRY
    noise = b"abc" + struct.pack("<H", 21) + OTHER
    table = entry + noise
    table += struct.pack("<H", len(table) + 18) + FOOTER
    code[len(code) - 0x20 - len(table) : len(code) - 0x20] = table
    return bytes(i % 251 for i in range(PAGE)) + bytes(code)


def record(name: str, address: int) -> bytes:
    out = bytearray(128)
    out[: len(name)] = name.encode()
    struct.pack_into("<Q", out, 16, address)
    return bytes(out)


def test_mrtd_is_the_hash_of_the_calls_in_either_order() -> None:
    """Write the calls out by hand, page by page, apart from the code."""
    image = firmware()
    single, two = [], []
    for offset, raw, address, memory, _, attributes in SECTIONS:
        if attributes & 2:
            continue
        data = image[offset : offset + raw] + bytes(memory - raw)
        adds, extends = [], []
        for page in range(0, memory, PAGE):
            add = record("MEM.PAGE.ADD", address + page)
            adds.append(add)
            single.append(add)
            if attributes & 1:
                for chunk in range(page, page + PAGE, 256):
                    piece = record("MR.EXTEND", address + chunk) + data[chunk : chunk + 256]
                    extends.append(piece)
                    single.append(piece)
        two += adds + extends
    found = compute_mrtd(image)
    assert found.single_pass == sha384(b"".join(single)).digest()
    assert found.two_pass == sha384(b"".join(two)).digest()
    assert found.single_pass != found.two_pass


def changed(number: int, **fields: int) -> list[SectionRow]:
    names = ("offset", "raw", "address", "memory", "kind", "attributes")
    row = dict(zip(names, SECTIONS[number], strict=True)) | fields
    rows = list(SECTIONS)
    rows[number] = tuple(row[name] for name in names)  # type: ignore[assignment] # six numbers
    return rows


IMAGES_REFUSED = {
    "empty": b"",
    "no table": bytes(8192),
    "no TDX entry": firmware().replace(ENTRY, OTHER),
    "code without variables": firmware()[PAGE:],
    "version 2": firmware(version=2),
    "no sections": firmware([]),
    "data outside": firmware(changed(0, offset=PAGE + 1)),
    "half a page": firmware(changed(2, memory=PAGE // 2)),
    "odd address": firmware(changed(2, address=0x810001)),
    "more data than memory": firmware(changed(4, raw=PAGE + 1)),
    "unknown type": firmware(changed(2, kind=9)),
    "unknown attribute": firmware(changed(2, attributes=4)),
    "too much memory": firmware(changed(2, memory=1 << 40)),
    "no boot volume at the end": firmware(changed(0, address=0xF0000000)),
    "boot volume of other bytes": firmware(changed(0, offset=0)),
    "signature": firmware().replace(b"TDVF", b"TDXX"),
    "table size": firmware().replace(struct.pack("<H", 61) + FOOTER, b"\xff\xff" + FOOTER),
}


@pytest.mark.parametrize("title", IMAGES_REFUSED)
def test_an_image_whose_metadata_does_not_describe_it_is_refused(title: str) -> None:
    with pytest.raises(ImageError):
        compute_mrtd(IMAGES_REFUSED[title])


@fuzzed
@given(where=st.lists(st.tuples(st.integers(PAGE * 3 - 1100, PAGE * 3 - 1), st.integers(0, 255))))
def test_damaged_metadata_ends_in_a_value_or_an_image_error(where: list[tuple[int, int]]) -> None:
    image = bytearray(firmware())
    for at, value in where:
        image[at] = value
    try:
        parse_tdvf(bytes(image))
    except ImageError:
        return


@pytest.fixture(scope="session")
def ovmf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's OVMF files: installed, or fetched by package name; skips, saying so, otherwise."""
    installed = Path("/usr/share")
    if (installed / "ovmf" / "OVMF.fd").is_file():
        return installed
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        pytest.skip("Debian's ovmf is not installed, and there is no apt-get to fetch it")
    folder = tmp_path_factory.mktemp("ovmf")
    folder.chmod(0o755)
    done = subprocess.run(
        [apt, "-q", "-o", "APT::Sandbox::User=root", "download", "ovmf"],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    packages = list(folder.glob("ovmf_*.deb"))
    if done.returncode or not packages:
        pytest.skip("Debian's ovmf is not installed and could not be fetched by name")
    subprocess.run([dpkg, "-x", packages[0], folder], check=True, timeout=60)
    return folder / "usr" / "share"


def test_debians_ovmf_has_the_known_mrtds(ovmf: Path) -> None:
    image = (ovmf / "ovmf" / "OVMF.fd").read_bytes()
    digest = sha256(image).hexdigest()
    if digest != OVMF_SHA256:
        pytest.skip(f"another version of ovmf: {digest}")
    found = measure(image).mrtd
    assert (found.single_pass.hex(), found.two_pass.hex()) == (SINGLE_PASS, TWO_PASS)
    assert len(parse_tdvf(image)) == 6
    done = run("measure", ovmf / "ovmf" / "OVMF.fd", "--json")
    assert json.loads(done.stdout) == {
        "mrtd.single_pass": SINGLE_PASS,
        "mrtd.two_pass": TWO_PASS,
    }


@pytest.mark.parametrize("name", ["OVMF_CODE.fd", "OVMF_CODE_4M.fd", "OVMF_VARS.fd"])
def test_parts_of_debians_ovmf_are_refused(ovmf: Path, name: str) -> None:
    path = ovmf / "OVMF" / name
    if not path.is_file():
        pytest.skip(f"this version of ovmf has no {name}")
    with pytest.raises(ImageError):
        compute_mrtd(path.read_bytes())


def kernel(*, certificates: bytes = b"", tail: bytes = b"", shuffled: bool = False) -> bytes:
    """Lay out a Linux-like PE: setup header at 0x1f1, PE header at 0x40, two sections."""
    out = bytearray(0x1000)
    out[:2] = b"MZ"
    struct.pack_into("<I", out, 0x3C, 0x40)
    out[0x40:0x44] = b"PE\0\0"
    struct.pack_into("<HH", out, 0x44, 0x8664, 2)
    struct.pack_into("<H", out, 0x54, 240)
    optional = 0x58
    struct.pack_into("<H", out, optional, 0x20B)
    struct.pack_into("<I", out, optional + 60, 0x400)  # size of headers
    struct.pack_into("<I", out, optional + 64, 0x12345678)  # checksum
    struct.pack_into("<I", out, optional + 108, 16)
    body = 0x1000 + len(tail)
    struct.pack_into(
        "<II", out, optional + 112 + 32, body if certificates else 0, len(certificates)
    )
    rows = [(0x400, 0x400), (0x800, 0x800)]
    for number, (start, size) in enumerate(reversed(rows) if shuffled else rows):
        struct.pack_into("<II", out, optional + 240 + 40 * number + 16, size, start)
    out[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", out, 0x206, 0x20F)
    out[0x211] = 1
    struct.pack_into("<I", out, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<H", out, 0x236, 2)
    out[0x400:] = bytes(i % 253 for i in range(0xC00))
    return bytes(out) + tail + certificates


def by_hand(image: bytes, certificates: int = 0) -> bytes:
    """Hash a kernel made above: everything but checksum, directory entry and certificates."""
    optional = 0x58
    entry = optional + 112 + 32
    whole = image[: optional + 64] + image[optional + 68 : entry] + image[entry + 8 :]
    return sha384(whole[: len(whole) - certificates]).digest()


def test_authenticode_leaves_out_checksum_entry_and_certificates() -> None:
    plain = kernel()
    assert authenticode_sha384(plain) == by_hand(plain)
    signed = kernel(certificates=b"c" * 64)
    assert authenticode_sha384(signed) == by_hand(signed, 64) == by_hand(plain)
    resummed = bytearray(plain)
    resummed[0x58 + 64] ^= 1
    assert authenticode_sha384(bytes(resummed)) == by_hand(plain)
    with_tail = kernel(tail=b"tail!")
    assert authenticode_sha384(with_tail) == by_hand(with_tail)
    assert authenticode_sha384(with_tail, pad_to=8) == by_hand(with_tail + bytes(3))


def test_sections_are_hashed_in_the_order_of_the_file() -> None:
    assert authenticode_sha384(kernel(shuffled=True)) == by_hand(kernel(shuffled=True))


KERNELS_REFUSED = {
    "empty": b"",
    "no MZ": b"\0" * 4096,
    "cut": kernel()[:0x50],
    "no PE": kernel().replace(b"PE\0\0", b"NE\0\0"),
    "magic": kernel()[:0x58] + b"\0\0" + kernel()[0x5A:],
    "section outside": kernel()[:-1],
    "certificates outside": kernel(certificates=b"c" * 64)[:-1],
    "headers beyond": kernel()[:0x94] + b"\xff\xff\xff\x7f" + kernel()[0x98:],
    "no certificate entry": kernel()[: 0x58 + 108] + b"\x04" + kernel()[0x58 + 109 :],
}


@pytest.mark.parametrize("title", KERNELS_REFUSED)
def test_a_kernel_that_is_no_pe_image_is_refused(title: str) -> None:
    with pytest.raises(ImageError):
        authenticode_sha384(KERNELS_REFUSED[title])


def patched(image: bytes, initrd_bytes: int, below: int) -> bytes:
    """Write what QEMU writes, by hand."""
    out = bytearray(image)
    out[0x210], out[0x211] = 0xB0, out[0x211] | 0x80
    struct.pack_into("<H", out, 0x224, 0xFE00)
    struct.pack_into("<I", out, 0x228, 0x20000)
    if initrd_bytes:
        address = (below - 0x28000 - 1 - initrd_bytes) // PAGE * PAGE
        struct.pack_into("<II", out, 0x218, address, initrd_bytes)
    return bytes(out)


ACTIONS = [
    b"Calling EFI Application from Boot Option",
    bytes(4),
    b"Exit Boot Services Invocation",
    b"Exit Boot Services Returned with Success",
]


def test_rtmr1_is_the_patched_kernel_and_the_actions() -> None:
    initrd = b"i" * 5000
    digests = [sha384(one).digest() for one in ACTIONS]
    boot = Boot(kernel(), "quiet", initrd)
    first = by_hand(patched(kernel(), 5000, 0x80000000))
    assert rtmr1(boot, PROFILES["qemu-9"]) == extend_all([first, *digests])
    del digests[1]
    assert rtmr1(boot, PROFILES["qemu-8.2-noble"]) == extend_all([first, *digests])


def test_memory_moves_the_initrd_only_below_2_75_gib() -> None:
    profile = PROFILES["qemu-9"]
    mib = 1 << 20

    def at(size: int, initrd: bytes | None = b"i") -> bytes:
        return rtmr1(Boot(kernel(), "", initrd, size * mib), profile)

    assert at(2816) == at(4096) == at(65536) == at(2048)
    assert len({at(1024), at(2048), at(2304)}) == 3
    assert at(1024, None) == at(4096, None)


def test_rtmr2_is_the_command_line_and_the_initrd() -> None:
    profile = PROFILES["qemu-9"]
    line = sha384("quiet initrd=initrd\0".encode("utf-16-le")).digest()
    disk = sha384(b"disk").digest()
    assert rtmr2(Boot(b"", "quiet", b"disk"), profile) == extend_all([line, disk])
    alone = sha384("quiet\0".encode("utf-16-le")).digest()
    assert rtmr2(Boot(b"", "quiet"), profile) == extend_all([alone])


def test_a_kernel_qemu_could_not_boot_is_refused() -> None:
    profile = PROFILES["qemu-9"]
    old = bytearray(kernel())
    struct.pack_into("<H", old, 0x206, 0x202)
    for image in (kernel()[:0x200], kernel().replace(b"HdrS", b"SrdH"), bytes(old)):
        with pytest.raises(ImageError):
            rtmr1(Boot(image, ""), profile)
    with pytest.raises(ImageError, match="initrd"):
        rtmr1(Boot(kernel(), "", bytes(1 << 20), memory_bytes=1 << 20), profile)


def test_a_manifest_becomes_a_policy_that_pairs_registers_of_one_host(tmp_path: Path) -> None:
    image = firmware()
    boot = Boot(kernel(), "quiet", b"disk")
    manifest = measure(image, boot)
    policy = manifest.policy()
    first, second = manifest.boots["qemu-9"]

    fits = replace(
        REPORT, mrtd=manifest.mrtd.single_pass, rtmr=(bytes(48), first, second, bytes(48))
    )
    policy.check_td(fits)
    with pytest.raises(QuoteError) as caught:
        policy.check_td(replace(fits, mrtd=manifest.mrtd.two_pass))
    assert caught.value.check is Check.VARIANT
    paths = {name: tmp_path / name for name in ("ovmf", "kernel", "initrd")}
    for name, data in (("ovmf", image), ("kernel", boot.kernel), ("initrd", b"disk")):
        paths[name].write_bytes(data)
    options = ("--kernel", paths["kernel"], "--initrd", paths["initrd"], "--cmdline", "quiet")
    done = run("measure", paths["ovmf"], *options, "--policy")
    assert load_policy(done.stdout.decode()) == policy
    alone = run("measure", paths["ovmf"], "--policy")
    assert load_policy(alone.stdout.decode()) == measure(image).policy()
    people = run("measure", paths["ovmf"], *options)
    assert b"qemu-8.2-noble.rtmr1" in people.stdout
    assert run("measure", paths["ovmf"], "--cmdline", "quiet").returncode == 2
    assert run("measure", paths["kernel"]).returncode == 1
