"""The models' Volume, as a container that runs already sees it.

A container keeps the Volume as it was mounted until it reloads it, which Modal refuses while files on it are open, as
those of loaded models may be (modal.com/docs/reference/modal.Volume).
"""

import asyncio
import logging
from collections.abc import Iterable

import modal

from . import models, settings

log = logging.getLogger("comfyd")

LISTING = 20.0  # seconds for Modal to list the Volume
RELOADING = 60.0  # seconds for Modal to bring it up to date


class OutOfDate(Exception):
    """This container cannot see the Volume as it is now."""


def reload(name: str = "") -> None:
    """Brings the mount up to date; the app's own Volume where none is named. For functions in which nothing is open: a failure is
    logged, and what was mounted still counts. Not outside Modal.
    """
    if modal.is_local():
        return
    try:
        _volume(name).reload()
    except Exception as e:
        log.warning("the Volume is seen as it was when this container started: %r", e)


class Shelf:
    """The Volume of a container that may hold files of it open. Outside Modal there is none."""

    async def reload(self) -> None:
        """Brings the mount up to date. OutOfDate when Modal refuses; outside Modal it does nothing."""
        if modal.is_local():
            return
        try:
            async with asyncio.timeout(RELOADING):
                await _volume().reload.aio()
        except Exception as e:
            raise OutOfDate(repr(e)) from e

    async def has(self, names: Iterable[str]) -> bool:
        """Whether the Volume has a file for each of these names of models, below whatever folder.

        Modal is asked, because the mount may be old. True where that cannot be found out.
        """
        if modal.is_local():
            return True
        try:
            async with asyncio.timeout(LISTING):
                files = [entry.path async for entry in _volume().iterdir.aio("/", recursive=True)]
        except Exception as e:
            log.warning("the Volume cannot be listed: %r", e)
            return True
        return all(_among(name, files) for name in names)


def _among(name: str, files: list[str]) -> bool:
    paths = [file.lstrip("/") for file in files]
    return any(path.endswith(f"/{name}") and not path.startswith(f"{models.OURS}/") for path in paths)


def _volume(name: str = "") -> modal.Volume:
    return modal.Volume.from_name(name or settings.from_env().volume)
