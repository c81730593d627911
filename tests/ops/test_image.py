"""The container image: what its root filesystem holds, what it must not hold, and that it starts.

Built once into `out/image` and kept while its inputs stay the same. Skipped, with the reason, where
it cannot be built within the time a test run may take; `make images` demands it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.harness.network import LiveNetwork
from tests.ops.tools import ROOT, require_tool, run
from zipnet.protocol.params import RoundParams

_SPEC = importlib.util.spec_from_file_location("statements", ROOT / "images/statements.py")
assert _SPEC is not None
assert _SPEC.loader is not None
statements = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(statements)

pytestmark = [pytest.mark.image, pytest.mark.slow, pytest.mark.timeout(400)]

OUT = ROOT / "out" / "image"
BUILD_S = 120 if os.environ.get("CI") else 90
# The simulator is not part of the image.
SCRIPTS = {
    name
    for name, target in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "scripts"
    ].items()
    if not target.startswith("sim.")
}
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox", "perl", "env"}
MANAGERS = {"apt", "apt-get", "dpkg", "dpkg-deb", "pip", "pip3", "tar", "gcc", "cc", "ld", "make"}
# A key with a body: libraries hold the bare line of dashes to recognise one.
SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[A-Za-z0-9+/=]{16}|zipnet-secret-1:[0-9a-f]{8}"
)


@pytest.fixture(scope="module")
def image() -> Path:
    """Build the image, or keep the one of the same inputs; return the folder of both forms."""
    demanded = bool(os.environ.get("ZIPNET_REQUIRE_IMAGE"))
    command = [sys.executable, "images/build.py", "--out", str(OUT), "--if-changed"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=None if demanded else BUILD_S,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the image could not be built within {BUILD_S} s (make images builds it)")
    if done.returncode == 0:
        return OUT
    reason = f"the image cannot be built here: {done.stderr.strip()}"
    if demanded or not done.stderr.startswith("error: "):
        pytest.fail(reason)
    pytest.skip(reason)


def _files(image: Path) -> list[Path]:
    return [path for path in (image / "rootfs").rglob("*") if not path.is_dir()]


def _inside(
    image: Path, *command: str, also: tuple[str | Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in the root filesystem: read-only, no network, user 65532, no capability."""
    return run(
        *(require_tool("bwrap"), "--unshare-all", "--die-with-parent", "--clearenv"),
        *("--ro-bind", image / "rootfs", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--tmpfs", "/tmp", *also, "--uid", "65532", "--gid", "65532", "--cap-drop", "ALL"),
        *("--setenv", "PATH", "/usr/bin", "--setenv", "LANG", "C.UTF-8", *command),
    )


def _blob(image: Path, digest: str) -> bytes:
    data = (image / "oci" / "blobs" / digest.replace(":", "/")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest.removeprefix("sha256:")
    return data


def _manifest(image: Path) -> dict[str, object]:
    index = json.loads((image / "oci" / "index.json").read_bytes())
    manifest: dict[str, object] = json.loads(_blob(image, index["manifests"][0]["digest"]))
    return manifest


def _configuration(image: Path) -> dict[str, object]:
    described = _manifest(image)["config"]
    assert isinstance(described, dict)
    configuration: dict[str, object] = json.loads(_blob(image, described["digest"]))
    return configuration


def test_there_is_no_shell_no_package_manager_and_no_compiler(image: Path) -> None:
    programs = {path.name for path in _files(image) if os.access(path, os.X_OK)}
    assert not programs & (SHELLS | MANAGERS)
    assert {path.name for path in (image / "rootfs/usr/bin").iterdir()} == {"python3.11", *SCRIPTS}
    for folder in ("bin", "sbin", "usr/sbin", "usr/local"):
        assert not list((image / "rootfs" / folder).glob("*")), folder


def test_no_file_is_set_id_or_writable_by_others(image: Path) -> None:
    for path in (image / "rootfs").rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        if not path.is_symlink() and path != image / "rootfs/tmp":
            assert not mode & 0o022, path
        assert path.is_dir() or path.is_symlink() or stat.S_ISREG(mode), path


def test_there_is_no_secret_and_no_trace_of_the_building_machine(image: Path) -> None:
    traces = [str(ROOT).encode(), sys.prefix.encode()]
    for path in _files(image):
        if path.is_symlink():
            continue
        data = path.read_bytes()
        assert not SECRET.search(data), path
        if "zipnet" in path.parts or path.suffix in {".json", ".conf", ".pth"}:
            assert not any(trace in data for trace in traces), path
    names = {path.name for path in _files(image)}
    assert not names & {"direct_url.json", "pip.conf", "sources.list", "resolv.conf", ".env"}


@pytest.mark.requirement("M11")
def test_the_bill_of_materials_names_everything_that_is_inside(image: Path) -> None:
    bill = json.loads((image / "sbom.cdx.json").read_text("utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill == json.loads((image / "rootfs/usr/share/zipnet/sbom.cdx.json").read_text("utf-8"))
    purls = [component["purl"] for component in bill["components"]]
    assert len(set(purls)) == len(purls)
    debian = json.loads((image / "rootfs/usr/share/zipnet/debian-packages.json").read_text())
    assert {purl.split("/")[2].split("@")[0] for purl in purls if ":deb/" in purl} == set(debian)
    site = image / "rootfs/usr/lib/python3/dist-packages"
    distributions = {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")}
    named = {purl.split("/")[1].split("@")[0] for purl in purls if ":pypi/" in purl}
    assert {name.replace("-", "_") for name in named} == distributions
    locked = (ROOT / "requirements/node.txt").read_text("utf-8")
    for purl in purls:
        if purl.startswith("pkg:pypi/") and not purl.startswith("pkg:pypi/zipnet@"):
            assert purl.removeprefix("pkg:pypi/").replace("@", "==") in locked, purl
    assert set(bill["dependencies"][0]["dependsOn"]) == set(purls)


@pytest.mark.requirement("L14")
def test_the_provenance_names_the_image_and_what_it_was_made_from(image: Path) -> None:
    statement = json.loads((image / "provenance.json").read_text("utf-8"))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    index = json.loads((image / "oci" / "index.json").read_bytes())
    (subject,) = statement["subject"]
    assert f"sha256:{subject['digest']['sha256']}" == index["manifests"][0]["digest"]
    made_from = {
        entry["uri"].removeprefix("file:"): entry["digest"].get("sha256")
        for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    for name in ("requirements/node.txt", "zipnet/cli/__init__.py", "images/rootfs.py"):
        assert made_from[name] == hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
    bill = hashlib.sha256((image / "sbom.cdx.json").read_bytes()).hexdigest()
    assert made_from["sbom.cdx.json"] == bill
    text = json.dumps(statement)
    assert str(ROOT) not in text
    assert not re.search(r"https?://(?!in-toto\.io/|slsa\.dev/)", text)


@pytest.mark.requirement("L14")
def test_a_signed_statement_opens_with_its_key_alone() -> None:
    key = Ed25519PrivateKey.generate()
    statement = statements.provenance(image="sha256:00", commit="", inputs={}, environment={})
    envelope = statements.sign_statement(statement, key)
    assert statements.open_envelope(envelope, key.public_key()) == statement
    with pytest.raises(InvalidSignature):
        statements.open_envelope(envelope, Ed25519PrivateKey.generate().public_key())
    payload = base64.b64decode(envelope["payload"]).replace(b"zipnet", b"zipmet")
    with pytest.raises(InvalidSignature):
        statements.open_envelope(
            {**envelope, "payload": base64.b64encode(payload).decode()}, key.public_key()
        )


def test_calls_can_be_filtered_inside(image: Path) -> None:
    script = "from zipnet.node.sandbox import sandbox_missing; print(repr(sandbox_missing()))"
    result = _inside(image, "/usr/bin/python3.11", "-I", "-c", script)
    assert (result.returncode, result.stdout) == (0, "''\n")


def test_the_simulator_and_the_tests_stay_outside(image: Path) -> None:
    site = image / "rootfs/usr/lib/python3/dist-packages"
    assert (site / "zipnet").is_dir()
    assert not [
        name for name in ("sim", "tests", "pip", "pytest", "hypothesis") if (site / name).exists()
    ]


def test_every_shared_library_that_an_extension_needs_is_there(image: Path) -> None:
    script = (
        "import pathlib, importlib.util, sys\n"
        "import aioquic.quic.connection, blake3, cryptography.x509, msgspec, nacl.bindings, numpy\n"
        "import prometheus_client, pydantic_settings, pysyncobj, ssl, starlette, structlog, typer\n"
        "import uvicorn, zipnet.errors\n"
        "import os; print(os.getuid(), sys.version_info[:2])\n"
    )
    result = _inside(image, "/usr/bin/python3.11", "-I", "-c", script)
    assert (result.returncode, result.stdout) == (0, "65532 (3, 11)\n")


@pytest.mark.parametrize("program", sorted(SCRIPTS))
def test_the_program_starts_inside(program: str, image: Path) -> None:
    result = _inside(image, f"/usr/bin/{program}", "--help")
    assert result.returncode == 0, result.stdout
    assert "Usage" in result.stdout


@pytest.mark.requirement("Z16")
@pytest.mark.requirement("H5")
def test_a_client_of_the_image_publishes_and_reads(image: Path, tmp_path: Path) -> None:
    """Clients run the same image as nodes, so theirs is built as repeatably (row Z16)."""
    params = RoundParams(num_slots=16, slot_bytes=256, min_participants=2)
    network = LiveNetwork(tmp_path, params=params)
    tmp_path.chmod(0o755)
    where = ("--share-net", "--ro-bind", network.descriptor_file, "/tmp/d.toml")
    client = ("--descriptor", "/tmp/d.toml", "--transport", "tls")
    try:
        network.start()
        network.spawn("cover", "publish", "--cover", "--descriptor", "d.toml", "--transport", "tls")
        words = ("publish", *client, "--message", "from the image", "--timeout", "60s")
        sent = _inside(image, "/usr/bin/zipnet", *words, also=where)
        assert sent.returncode == 0, sent.stdout
        read = _inside(image, "/usr/bin/zipnet", "read", *client, also=where)
        assert "from the image" in read.stdout
        metrics = f"127.0.0.1:{network.nodes['s0'].wait_ready()['metrics_port']}"
        assert _inside(image, "/usr/bin/zipnet", "health", metrics, also=where).returncode == 0
        network.nodes["s0"].stop()
        assert _inside(image, "/usr/bin/zipnet", "health", metrics, also=where).returncode == 1
    finally:
        network.close()


def test_the_configuration_names_an_unprivileged_user_and_no_secret(image: Path) -> None:
    settings = _configuration(image)["config"]
    assert isinstance(settings, dict)
    assert settings["User"] == "65532:65532"
    assert settings["Entrypoint"] == ["/usr/bin/zipnet"]
    assert settings["StopSignal"] == "SIGTERM"
    check = settings["Healthcheck"]["Test"]
    assert check == ["CMD", "/usr/bin/zipnet", "health", "127.0.0.1:9464"]
    ours = {entry.partition("=")[0] for entry in settings["Env"] if entry.startswith("ZIPNET_")}
    assert ours <= {"ZIPNET_BUILD_COMMIT", "ZIPNET_BUILD_TIME", "ZIPNET_INPUTS_TIME"}
    assert set(settings["Labels"]) >= {
        f"org.opencontainers.image.{name}" for name in ("title", "revision", "licenses")
    }


def test_the_layers_hold_exactly_the_root_filesystem(image: Path) -> None:
    layers, rootfs = _manifest(image)["layers"], _configuration(image)["rootfs"]
    assert isinstance(layers, list)
    assert isinstance(rootfs, dict)
    found: set[str] = set()
    for layer in layers:
        _blob(image, layer["digest"])
        path = image / "oci" / "blobs" / layer["digest"].replace(":", "/")
        with tarfile.open(path, mode="r:gz") as tar:
            for member in tar:
                assert (member.uid, member.gid) == (0, 0), member.name
                assert member.name not in found
                found.add(member.name)
    expected = {
        path.relative_to(image / "rootfs").as_posix() for path in (image / "rootfs").rglob("*")
    }
    assert found == expected
    assert len(rootfs["diff_ids"]) == len(layers)


def test_the_same_root_filesystem_gives_the_same_bytes(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "usr/bin").mkdir(parents=True)
    digests = []
    for turn, names in enumerate((["b", "a"], ["a", "b"])):
        for name in names:  # other order, other times: what a second build would differ in
            (rootfs / "usr/bin" / name).unlink(missing_ok=True)
            (rootfs / "usr/bin" / name).write_text(name, "utf-8")
            os.utime(rootfs / "usr/bin" / name, (turn, turn))
        script = (
            "import pathlib, sys; sys.path.insert(0, 'images'); import oci\n"
            "config = oci.ImageConfig("
            "'amd64', '2026-01-01T00:00:00Z', ('/usr/bin/a',), (), {}, ('/usr/bin/b',))\n"
            "root, target = map(pathlib.Path, sys.argv[1:])\n"
            "print(oci.write_layout(root, target, config, layer_of=lambda path: path.endswith('b'),"
            " layers=2, epoch=7, tag='t'))\n"
        )
        digests.append(run(sys.executable, "-c", script, rootfs, tmp_path / f"oci{turn}").stdout)
    assert digests[0] == digests[1]
    assert digests[0].startswith("sha256:")


def test_the_search_for_secrets_finds_a_key() -> None:
    key = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    assert SECRET.search(b"x" + key)


def test_the_inventory_names_the_debian_packages(image: Path) -> None:
    listing = image / "rootfs/usr/share/zipnet/debian-packages.json"
    packages = json.loads(listing.read_text("utf-8"))
    assert {"libc6", "python3.11-minimal", "libssl3"} <= set(packages)
    assert not {"dpkg", "apt", "bash", "dash"} & set(packages)
