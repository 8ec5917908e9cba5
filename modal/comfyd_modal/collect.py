"""What a prompt has made, read out of ComfyUI and put behind a manifest."""

from collections.abc import Iterable
from typing import Any

import aiohttp

from .client import Client
from .listener import Frame
from .payload import Blobs


def listed(outputs: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The (folder, subfolder, filename) of each file in a history's outputs, once.

    Nodes put them into lists of any name ("images", "audio", "gifs", "latents", ...), with other things between them;
    two nodes with the same inputs list the same file.
    """
    found: dict[tuple[str, str, str], None] = {}
    for node in outputs.values():
        for items in node.values() if isinstance(node, dict) else ():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and isinstance(item.get("filename"), str) and item["filename"]:
                    found[(str(item.get("type") or "output"), str(item.get("subfolder") or ""), item["filename"])] = (
                        None
                    )
    return list(found)


async def files(client: Client, outputs: dict[str, Any], blobs: Blobs) -> list[dict[str, Any]]:
    """The manifest's "files". One that cannot be read is told as missing; the others are worth having."""
    entries = []
    for folder, subfolder, filename in listed(outputs):
        entry: dict[str, Any] = {"folder": folder, "subfolder": subfolder, "filename": filename}
        try:
            entry |= blobs.add(await client.view(folder, subfolder, filename))
        except aiohttp.ClientResponseError as e:
            entry["missing"] = f"ComfyUI answers {e.status} for it" + (": it is not there" if e.status == 404 else "")
        except (aiohttp.ClientError, TimeoutError) as e:
            entry["missing"] = f"ComfyUI did not send it whole: {e!r}"
        entries.append(entry)
    return entries


def frames(received: Iterable[Frame], blobs: Blobs) -> list[dict[str, Any]]:
    """The manifest's "frames", in the order in which they came."""
    return [{"node": f.node, "ext": f.ext} | blobs.add(f.data) for f in received]


def times(history: dict[str, Any]) -> tuple[int, int]:
    """When the prompt started and ended, in Unix ms; 0 where ComfyUI does not say."""
    started = ended = 0
    for message in history.get("status", {}).get("messages") or ():
        kind, data = message
        stamp = int(data.get("timestamp") or 0) if isinstance(data, dict) else 0
        if kind == "execution_start":
            started = stamp
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            ended = stamp
    return started, ended


def broken_gpu(history: dict[str, Any]) -> bool:
    """Whether a node failed in a way that stays with the process.

    After a CUDA error other than out of memory each later call of CUDA in it fails too (CUDA runtime API: such an error
    leaves the process in an inconsistent state, and it must be ended).
    """
    for message in history.get("status", {}).get("messages") or ():
        kind, data = message
        if kind == "execution_error" and isinstance(data, dict):
            text = str(data.get("exception_message", ""))
            return "CUDA error" in text and "out of memory" not in text
    return False
