"""What an image is made of, and how: a CycloneDX bill of materials and a SLSA provenance statement.

Rules:

1. The bill is taken from the finished root filesystem, not from what was asked for: Debian packages
   that left files, distributions that left metadata. It holds no time and no random serial, so that
   the same image has the same bill.
2. The provenance names the image's digest, the commit, and the digests of every file that decides
   what goes in. No host, user or path of the building machine is in it.
3. A signature is a DSSE envelope (Ed25519 over the statement's pre-authentication encoding), which
   common supply-chain tools verify with the bare public key.
"""

from __future__ import annotations

import base64
import hashlib
import json
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = ["PAYLOAD_TYPE", "bill_of_materials", "open_envelope", "provenance", "sign_statement"]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://slsa.dev/provenance/v1"


def bill_of_materials(
    rootfs: Path, site: Path, debian: Mapping[str, str], *, version: str
) -> dict[str, Any]:
    """Return the bill of an image as CycloneDX 1.6.

    Args:
        rootfs: The finished root filesystem.
        site: Folder of Python distributions in it.
        debian: Debian packages that left files: name to version.
        version: Of zipnet.
    """
    components = [_debian(name, of) for name, of in sorted(debian.items())]
    components += [_python(path) for path in sorted((rootfs / site).glob("*.dist-info"))]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "bom-ref": "zipnet-image",
                "type": "container",
                "name": "zipnet",
                "version": version,
            }
        },
        "components": components,
        "dependencies": [
            {"ref": "zipnet-image", "dependsOn": sorted(c["bom-ref"] for c in components)}
        ],
    }


def _debian(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:deb/debian/{name}@{version}?distro=debian-12"
    return {
        "bom-ref": purl,
        "type": "library",
        "name": name,
        "version": version,
        "purl": purl,
    }


def _python(folder: Path) -> dict[str, Any]:
    """Describe a distribution by its own metadata; the hash is over the list of its files."""
    told = HeaderParser().parsestr((folder / "METADATA").read_text("utf-8"))
    name, version = told["Name"], told["Version"]
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    component = {
        "bom-ref": purl,
        "type": "library",
        "name": name,
        "version": version,
        "purl": purl,
    }
    licence = told["License-Expression"]
    if licence:
        component["licenses"] = [{"expression": licence}]
    record = folder / "RECORD"
    if record.is_file():
        digest = hashlib.sha256(record.read_bytes()).hexdigest()
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return component


def provenance(
    *, image: str, commit: str, inputs: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return an in-toto statement with a SLSA provenance of an image.

    Args:
        image: ``sha256:…`` of the image's manifest.
        commit: Git commit of the sources; empty where it is not known.
        inputs: File of the sources that decides what goes in to its SHA-256.
        environment: Versions of what built it.
    """
    sources = [{"uri": f"file:{name}", "digest": {"sha256": of}} for name, of in inputs.items()]
    if commit:
        sources.insert(0, {"uri": "git:zipnet", "digest": {"gitCommit": commit}})
    return {
        "_type": _STATEMENT,
        "subject": [{"name": "zipnet", "digest": {"sha256": image.removeprefix("sha256:")}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:zipnet:image-build:1",
                "externalParameters": {"target": "images"},
                "internalParameters": dict(environment),
                "resolvedDependencies": sources,
            },
            "runDetails": {"builder": {"id": "urn:zipnet:make-images"}},
        },
    }


def sign_statement(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return a DSSE envelope around a statement."""
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    public = key.public_key().public_bytes_raw()
    signature = key.sign(_encoded(payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {
                "keyid": hashlib.sha256(public).hexdigest(),
                "sig": base64.b64encode(signature).decode(),
            }
        ],
    }


def open_envelope(envelope: Mapping[str, Any], key: Ed25519PublicKey) -> dict[str, Any]:
    """Return the statement in an envelope that a key signed.

    Raises:
        InvalidSignature: When it did not.
    """
    payload = base64.b64decode(envelope["payload"], validate=True)
    (signature,) = envelope["signatures"]
    key.verify(base64.b64decode(signature["sig"], validate=True), _encoded(payload))
    statement: dict[str, Any] = json.loads(payload)
    return statement


def _encoded(payload: bytes) -> bytes:
    """Lay out what DSSE signs, version 1."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
