"""What the app's functions without a GPU do about models, in a container with the Volume and the token."""

import json

import modal

from . import models
from .download import DownloadError, Downloader, token_from_env
from .volume import reload


def download_listed(entries: list[dict], volume: str) -> None:
    """Downloads the models that are not on the Volume yet; `entries` as of models.to_entries. DownloadError."""
    wanted = models.from_entries(entries)
    _downloader(volume).all(wanted)
    print(f"all {len(wanted)} models are on the Volume {volume}")


def add_model(url: str, folder: str, name: str, sha256: str, volume: str) -> str:
    """Downloads one more model; JSON {"path", "size", "sha256"}. DownloadError, also for impossible arguments."""
    try:
        model = models.load().one(url, folder, name, sha256)
    except models.ModelError as e:
        raise DownloadError(str(e)) from None
    record = _downloader(volume).one(model)
    return json.dumps({"path": model.path, "size": record.size, "sha256": record.sha256})


def _downloader(volume: str) -> Downloader:
    reload(volume)
    return Downloader(models.folder(), token_from_env(), modal.Volume.from_name(volume).commit)
