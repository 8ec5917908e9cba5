"""The answer of `ComfyUI.run`: one `bytes`, a line of JSON and then the files' bytes one after the other.

One value of bytes, so that the caller can stream it out of Modal's blob, and fetch one file of it by its range.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

VERSION = 1


def pack(manifest: dict[str, Any], blobs: Iterable[bytes]) -> bytes:
    """The manifest as a line of ASCII JSON, and the blobs behind it in their order.

    Offsets in the manifest are the caller's (see Blobs); numbers that JSON does not have become null, as ComfyUI's own
    answers hold bare NaN and Infinity.
    """
    line = json.dumps(finite({"v": VERSION, **manifest}), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return b"".join([line.encode("ascii"), b"\n", *blobs])


def unpack(payload: bytes) -> tuple[dict[str, Any], memoryview]:
    """The manifest, and the bytes from which the offsets in it count. Raises ValueError for anything else."""
    line, newline, _ = payload.partition(b"\n")
    if not newline:
        raise ValueError("not a payload: its first line has no end")
    manifest = json.loads(line)
    if not isinstance(manifest, dict) or manifest.get("v") != VERSION:
        raise ValueError(f"not a payload of version {VERSION}")
    return manifest, memoryview(payload)[len(line) + 1 :]


def read(payload: bytes, entry: dict[str, Any]) -> bytes:
    """The bytes of one entry of "files" or "frames", checked against its hash."""
    _, body = unpack(payload)
    data = bytes(body[entry["offset"] : entry["offset"] + entry["size"]])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError("the bytes are not those that the manifest describes")
    return data


class Blobs:
    """Collects the bytes behind a manifest."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> dict[str, Any]:
        """Takes the next bytes and returns what the manifest says of them."""
        entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "offset": self._size}
        self.parts.append(data)
        self._size += len(data)
        return entry


def finite(value: Any) -> Any:
    """The value with null in place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


@dataclass
class Container:
    """Who ran the prompt, as it stands in the manifest."""

    id: str  # Modal's task ID
    gpu: str = ""
    version: str = ""  # of ComfyUI
    cold_start_ms: int = 0  # of this container's start, for its first prompt only
