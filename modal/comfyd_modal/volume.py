"""The models' Volume, as a container that runs already sees it.

A container keeps the Volume as it was mounted until it reloads it, which Modal refuses while files on it are open, as
those of loaded models may be (modal.com/docs/reference/modal.Volume).
"""

import logging

import modal

from . import settings

log = logging.getLogger("comfyd")


class OutOfDate(Exception):
    """This container cannot see the Volume as it is now."""


def reload() -> None:
    """For functions in which nothing is open; a failure is logged, what was mounted still counts. Not outside Modal."""
    if modal.is_local():
        return
    try:
        _volume().reload()
    except Exception as e:
        log.warning("the Volume is seen as it was when this container started: %r", e)


async def reload_now() -> None:
    """For a container that may hold files open: OutOfDate when Modal refuses. Outside Modal it does nothing."""
    if modal.is_local():
        return
    try:
        await _volume().reload.aio()
    except Exception as e:
        raise OutOfDate(str(e)) from e


def _volume() -> modal.Volume:
    return modal.Volume.from_name(settings.from_env().volume)
