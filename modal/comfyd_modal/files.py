"""The files of one job in ComfyUI's folders. A container runs one prompt at a time: all that is there is that job's."""

import logging
import os
import shutil
from pathlib import Path, PurePosixPath

from .errors import BackendLost, UserError

log = logging.getLogger("comfyd")


def write_inputs(folder: Path, inputs: list[list]) -> None:
    """Writes [path, bytes] pairs below `folder`.

    UserError (invalid_workflow) for a path that leaves it, before anything is written; BackendLost when the disk takes
    no more.
    """
    root = folder.resolve()
    wanted = [(_inside(root, item), item[1]) for item in inputs]
    for path, data in wanted:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as e:
            raise BackendLost(
                f"the input {path.relative_to(root)} ({len(data)} bytes) could not be written: {e.strerror}"
            ) from None


def _inside(root: Path, item: list) -> Path:
    if not (
        isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], bytes)
    ):
        raise UserError("invalid_workflow", "inputs is to be a list of [path, bytes]")
    name = item[0]
    pure = PurePosixPath(name)
    plain = name and not pure.is_absolute() and ".." not in pure.parts and "\\" not in name and "\0" not in name
    path = (root / pure).resolve() if plain else root
    if path == root or not path.is_relative_to(root):
        raise UserError("invalid_workflow", f"the input path {name!r} is not one below ComfyUI's input folder")
    return path


class Sweeper:
    """Removes what jobs leave in some folders: everything that was not there when it was made.

    ComfyUI lists what a prompt has saved only as far as the nodes tell it, and some tell nothing, so going by that list
    would leave files of one job to the next.
    """

    def __init__(self, *folders: Path):
        self._folders = folders
        self._keep = {
            Path(base, name) for folder in folders for base, dirs, files in os.walk(folder) for name in dirs + files
        }

    def sweep(self) -> None:
        """Removes what is new. What cannot be removed is left and logged; OSError is not raised."""
        for folder in self._folders:
            self._sweep(folder)

    def _sweep(self, folder: Path) -> None:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return
        for entry in entries:
            try:
                self._remove(entry)
            except OSError as e:  # it must not stand in place of the job's result
                log.warning("a file of the job cannot be removed: %s", e)

    def _remove(self, entry: os.DirEntry) -> None:
        path = Path(entry.path)
        directory = entry.is_dir(follow_symlinks=False)
        if path in self._keep:
            if directory:
                self._sweep(path)
        elif directory:
            shutil.rmtree(path, onerror=_left)  # the rest of it is removed
        else:
            path.unlink(missing_ok=True)


def _left(_: object, path: str, error: tuple) -> None:
    if not isinstance(error[1], FileNotFoundError):
        log.warning("a file of the job cannot be removed: %s", error[1])
