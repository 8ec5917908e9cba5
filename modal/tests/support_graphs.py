"""Graphs for a ComfyUI without models, and doubles of Modal's Dict and Queue."""

import json
import uuid
from collections.abc import Callable
from typing import Any


class Aio:
    """A method as synchronicity gives it: called as it is, and with .aio in an event loop."""

    def __init__(self, sync: Callable, pause: Callable | None = None):
        self._sync = sync
        self._pause = pause

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._sync(*args, **kwargs)

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        """The same, after `pause`."""
        if self._pause is not None:
            await self._pause()
        return self._sync(*args, **kwargs)


class Book:
    """A modal.Dict, as far as the ledger uses it. `pause` may hang or raise."""

    def __init__(self, pause: Callable | None = None) -> None:
        self.entries: dict[str, str] = {}
        self.put = Aio(self._put, pause)
        self.get = Aio(self.entries.get, pause)

    def _put(self, key: str, value: str, *, skip_if_exists: bool = False) -> bool:
        if skip_if_exists and key in self.entries:
            return False
        self.entries[key] = value
        return True


class Channel:
    """A modal.Queue, as far as progress uses it. `pause` may hang or raise."""

    def __init__(self, pause: Callable | None = None):
        self.items: dict[str, list[dict]] = {}
        self.put = Aio(self._put, pause)

    def _put(self, item: str, *, timeout: float, partition: str, partition_ttl: int) -> None:
        assert timeout <= 5 and partition_ttl == 3600
        self.items.setdefault(partition, []).append(json.loads(item))


def node(class_type: str, **inputs: Any) -> dict:
    """One node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


def tag() -> dict[str, str]:
    """An input that makes an output node unlike any that ComfyUI has in its cache."""
    return {"_test": str(uuid.uuid4())}


def solid(width: int = 64, height: int = 48, batch: int = 1, color: int = 0x3366CC) -> dict:
    """Images of one colour, saved."""
    return {
        "1": node("EmptyImage", width=width, height=height, batch_size=batch, color=color),
        "2": node("SaveImage", images=["1", 0], filename_prefix="suite/solid", **tag()),
    }


def slow(rows: int = 2000, batch: int = 4) -> dict:
    """Images of 384 pixels by 8 for each row, tile by tile: it can be interrupted after each; half a minute."""
    size = {"tile_size": 64, "overlap": 16, "temporal_size": 64 + 4 * (uuid.uuid4().int % 1000), "temporal_overlap": 8}
    return {
        "1": node("VAELoader", vae_name="pixel_space"),
        "2": node("EmptyChromaRadianceLatentImage", width=384, height=rows * 8, batch_size=batch),
        "3": node("VAEDecodeTiled", samples=["2", 0], vae=["1", 0], **size),
        "4": node("SaveImage", images=["3", 0], filename_prefix="suite/slow"),
    }
