"""Write a root filesystem as an OCI image layout: sorted tar layers and three JSON files.

Implements the parts of OCI Image Specification 1.1 that a single-platform image needs:
`oci-layout`, `index.json`, one manifest, one configuration, gzip layers. The same files give the
same bytes: entries are sorted, owners are root, times are one constant, the gzip header carries
neither name nor time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["ImageConfig", "write_layout"]

_MEDIA: Final = "application/vnd.oci.image."
_SECOND_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a runtime needs to know to start the image.

    Attributes:
        architecture: As Go names it (`amd64`, `arm64`).
        created: RFC 3339 time of the sources.
        entrypoint: Program and fixed arguments.
        environment: `NAME=value` of the process.
        labels: `org.opencontainers.image.*`.
        health: Program that exits with 0 where the node lives.
        user: Numeric user and group.
    """

    architecture: str
    created: str
    entrypoint: tuple[str, ...]
    environment: tuple[str, ...]
    labels: Mapping[str, str]
    health: tuple[str, ...]
    user: str = "65532:65532"
    stop_signal: str = "SIGTERM"


def write_layout(
    rootfs: Path,
    target: Path,
    config: ImageConfig,
    *,
    layer_of: Callable[[str], int],
    layers: int,
    epoch: int,
    tag: str,
) -> str:
    """Write `target` as an OCI layout and return the digest of its manifest.

    Args:
        rootfs: The root filesystem.
        target: A folder that does not exist yet.
        config: What goes into the image configuration.
        layer_of: Number of the layer (0 is the lowest) for a path relative to the root.
        layers: How many layers there are.
        epoch: Modification time of every entry, in seconds.
        tag: Name of the image in the layout's index.
    """
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    paths = sorted(path.relative_to(rootfs).as_posix() for path in rootfs.rglob("*"))
    descriptors, diff_ids = [], []
    for number in range(layers):
        tar = _tar(rootfs, [path for path in paths if layer_of(path) == number], epoch)
        diff_ids.append(_digest(tar))
        packed = gzip.compress(tar, compresslevel=6, mtime=0)
        descriptors.append(_put(blobs, packed, _MEDIA + "layer.v1.tar+gzip"))
    described = _put(blobs, _json(_configuration(config, diff_ids)), _MEDIA + "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MEDIA + "manifest.v1+json",
        "config": described,
        "layers": descriptors,
        "annotations": dict(config.labels),
    }
    entry = _put(blobs, _json(manifest), _MEDIA + "manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "mediaType": _MEDIA + "index.v1+json",
        "manifests": [
            {
                **entry,
                "platform": {"architecture": config.architecture, "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }
        ],
    }
    (target / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (target / "index.json").write_bytes(_json(index))
    return str(entry["digest"])


def _configuration(config: ImageConfig, diff_ids: list[str]) -> dict[str, object]:
    return {
        "architecture": config.architecture,
        "os": "linux",
        "created": config.created,
        "config": {
            "User": config.user,
            "Env": list(config.environment),
            "Entrypoint": list(config.entrypoint),
            "WorkingDir": "/",
            "StopSignal": config.stop_signal,
            # Beyond OCI's own fields; runtimes that know it use it, the others pass it over.
            "Healthcheck": {
                "Test": ["CMD", *config.health],
                "Interval": _SECOND_NS * 10,
                "Timeout": _SECOND_NS * 6,
                "StartPeriod": _SECOND_NS * 30,
                "Retries": 3,
            },
            "Labels": dict(config.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": config.created, "created_by": "images/build.py"} for _ in diff_ids],
    }


def _tar(rootfs: Path, paths: Iterable[str], epoch: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            info = tar.gettarinfo(str(rootfs / path), arcname=path)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = epoch
            info.mode = stat.S_IMODE(info.mode)
            if info.islnk():  # hard links inside the root would depend on the order of extraction
                info.type, info.size = tarfile.REGTYPE, (rootfs / path).stat().st_size
            if info.isreg():
                with (rootfs / path).open("rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
    return buffer.getvalue()


def _put(blobs: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = _digest(data)
    (blobs / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
