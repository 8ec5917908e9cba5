"""Downloads models to the Volume: in parallel, resumable, verified, and with a sentence for each failure.

Not with huggingface_hub: 2.4.0 writes to a file with a random name and begins again after a crash (file_download.py,
tmp_path), its Xet transfer keeps no part at all, and it takes no addresses outside Hugging Face. Plain HTTP with Range
does all three.
"""

import errno
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from . import models, transfer
from .committer import FLOOR, CommitFailed, Committer
from .models import Model, Record
from .transfer import Changed, Interrupted, Refused, Request, host

SECRET = "HUGGINGFACE_ACCESS_TOKEN"  # the Modal Secret's name, and its only key
PARALLEL = 8
SHOWN = 15.0  # seconds between two lines about one download


class DownloadError(Exception):
    """A model could not be downloaded. The message is for the operator: what happened and what to do about it."""


@dataclass(frozen=True)
class Patience:
    """How long a transfer is tried for. Seconds."""

    connect: float = 20.0
    silence: float = 60.0  # without a byte
    tries: int = 5  # in a row that bring nothing new
    pause: float = 2.0  # before the second try; twice as long before each further one


@dataclass
class Downloader:
    """Downloads into one models folder.

    `commit` makes durable what has been written; less than 5 % of a large download are ever at risk. The token goes to
    the origins of `hub` (and hosts below) only. Of a model's address nothing is kept or said that may be a secret.
    """

    models_dir: Path
    token: str = ""
    commit: Callable[[], None] = lambda: None
    say: Callable[[str], None] = print
    patience: Patience = field(default_factory=Patience)
    hub: tuple[str, ...] = ("https://huggingface.co", "https://hf.co")
    floor: int = FLOOR  # see Committer

    def all(self, wanted: Iterable[Model]) -> list[Record]:
        """Downloads what is not there, PARALLEL at a time. If some fail, the others end before DownloadError."""
        todo = list(wanted)
        with Committer(self.commit, self.floor) as committer, ThreadPoolExecutor(PARALLEL, "download") as pool:
            results = list(pool.map(lambda model: self._attempt(model, committer), todo))
        failures = [str(r) for r in results if isinstance(r, DownloadError)]
        if failures:
            raise DownloadError(
                "\n".join([f"{len(failures)} of {len(todo)} models could not be downloaded:", *failures])
            )
        return [r for r in results if isinstance(r, Record)]

    def one(self, model: Model) -> Record:
        """Downloads one model unless it is there."""
        with Committer(self.commit, self.floor) as committer:
            return self._ensure(model, committer)

    def _attempt(self, model: Model, committer: Committer) -> Record | DownloadError:
        try:
            return self._ensure(model, committer)
        except DownloadError as e:
            self.say(f"FAILED: {e}")  # now, not when the largest model is complete
            return e

    def _ensure(self, model: Model, committer: Committer) -> Record:
        try:
            record = self._there(model)
            if record is None:
                record = self._download(model, committer)
                models.write_record(self.models_dir, model, record)
                committer.flush()
                self.say(f"{model.path}: complete, {record.size} bytes, SHA-256 {record.sha256}")
            return record
        except OSError as e:
            raise DownloadError(f"{model.path}: {disk_sentence(e)}") from e
        except CommitFailed as e:
            raise DownloadError(f"{model.path}: the Volume did not take what was written: {e}") from e

    def _there(self, model: Model) -> Record | None:
        target = self.models_dir / model.path
        record = models.read_record(self.models_dir, model)
        size = transfer.length(target)
        if (
            record
            and (record.url, record.size) == (transfer.identity(model.url), size)
            and model.sha256 in ("", record.sha256)
        ):
            self.say(f"{model.path}: is there")
            return record
        models.record_path(self.models_dir, model).parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if size and size == model.size and transfer.file_hash(target).hexdigest() == model.sha256:  # put there by hand
            record = Record(transfer.identity(model.url), size, model.sha256)
            models.write_record(self.models_dir, model, record)
            return record
        return None

    def _download(self, model: Model, committer: Committer) -> Record:
        partial = models.partial_path(self.models_dir, model)
        again = False
        while True:
            fetched = self._fetch(model, committer)
            wrong = _mismatch(model, fetched)
            if not wrong:
                os.replace(partial, self.models_dir / model.path)
                transfer.discard(partial)
                return Record(transfer.identity(model.url), fetched.size, fetched.sha256)
            transfer.discard(partial)
            if again or not fetched.resumed:
                raise DownloadError(
                    f"{model.path}: {wrong} The file was removed. Run the download again; if that does not help, "
                    "the file at the source has changed: check it, and correct models.toml."
                )
            again = True  # the fault may be in the part that lay here

    def _fetch(self, model: Model, committer: Committer) -> transfer.Fetched:
        partial = models.partial_path(self.models_dir, model)
        mine = is_of(model.url, self.hub)
        request = Request(model.url, partial, self.token if mine else "", self.patience.connect, self.patience.silence)
        progress = _Progress(model.path, committer, self.say)
        tries = changes = 0
        while True:
            before = transfer.length(partial)
            try:
                return transfer.fetch(request, progress.expect, progress.wrote)
            except Refused as e:
                raise DownloadError(f"{model.path}: {refusal(e.status, model.url, mine, bool(self.token))}") from e
            except Changed as e:
                transfer.discard(partial)
                changes += 1
                if changes >= self.patience.tries:
                    raise DownloadError(f"{model.path}: {host(model.url)} gives another file each time.") from e
            except (Interrupted, requests.RequestException) as e:
                why = str(e) if isinstance(e, Interrupted) else f"no connection ({type(e).__name__})"
                tries = 1 if transfer.length(partial) > before else tries + 1
                if tries >= self.patience.tries:
                    raise DownloadError(
                        f"{model.path}: {host(model.url)} stalls: {why}, and {tries} tries in a row brought nothing. "
                        f"{transfer.length(partial)} bytes are kept; run the download again to go on from there."
                    ) from None  # requests' own words have the whole address
                pause = self.patience.pause * 2 ** (tries - 1)
                self.say(f"{model.path}: {why}; going on in {pause:g} s")
                time.sleep(pause)


class _Progress:
    def __init__(self, path: str, committer: Committer, say: Callable[[str], None]):
        self._path, self._committer, self._say = path, committer, say
        self._bytes, self._since = 0, time.monotonic()
        self._expected = 0

    def expect(self, size: int) -> None:
        self._committer.expect(size - self._expected)  # not again for each try
        self._expected = size

    def wrote(self, size: int) -> None:
        self._committer.wrote(size)
        self._bytes += size
        elapsed = time.monotonic() - self._since
        if elapsed > SHOWN:
            self._say(f"{self._path}: {self._bytes / 1e6:.0f} MB more, {self._bytes / 1e6 / elapsed:.0f} MB/s")
            self._bytes, self._since = 0, time.monotonic()


def refusal(status: int, url: str, hub: bool, with_token: bool) -> str:
    """What a status means for the operator, and what to do. hub: the address is Hugging Face's."""
    page, url = model_page(url), transfer.public(url)
    if status == 200:
        return f"{url} is a web page, not a file; give the address that the download button has."
    if not hub and status in (401, 403):
        return f"{host(url)} wants a login ({status}) for {url}; comfyd has one for https://huggingface.co only."
    if status == 401 and with_token:
        return (
            f"Hugging Face does not accept the token in the Modal Secret {SECRET} (401). Make a new one at "
            f"https://huggingface.co/settings/tokens, then: modal secret create --force {SECRET} {SECRET}=hf_..."
        )
    if status == 401:
        return (
            f"Hugging Face wants a token for {url} (401), and the Modal Secret {SECRET} has none. Make one at "
            f"https://huggingface.co/settings/tokens, then: modal secret create --force {SECRET} {SECRET}=hf_..."
        )
    if status == 403:
        return (
            f"Hugging Face keeps it back (403): its licence has not been accepted. Open {page} as the token's owner, "
            "accept it there, and run the download again. A fine-grained token must also be allowed to read gated "
            "repositories."
        )
    if status in (404, 410):
        return f"there is no such file ({status}): {url}. It was moved or removed; look at {page}, correct the address."
    return f"{host(url)} answers {status} for {url}."


def model_page(url: str) -> str:
    """The page of the repository that an address of Hugging Face is of; its licence is accepted there."""
    return transfer.public(url).split("/resolve/")[0]


def disk_sentence(e: OSError) -> str:
    """What an error in writing means for the operator."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "the Volume is full. `modal volume ls` shows what is on it, `modal volume rm` removes what is not needed; "
            "run the download again, and it goes on where it was."
        )
    return f"the Volume cannot be written: {e}."


def token_from_env() -> str:
    """The token that Modal puts into the container from the Secret, "" for none."""
    return os.environ.get(SECRET, "").strip()


def _mismatch(model: Model, fetched: transfer.Fetched) -> str:
    if model.size and fetched.size != model.size:
        return f"it has {fetched.size} bytes, and should have {model.size}."
    wanted = model.sha256 or fetched.published
    if wanted and fetched.sha256 != wanted:
        return f"its SHA-256 is {fetched.sha256}, and should be {wanted}."
    return ""


def is_of(url: str, origins: tuple[str, ...]) -> bool:
    """Whether an address is at one of these origins, or at a host below one: https://huggingface.co."""
    scheme, name = urlsplit(url).scheme, host(url)
    return any(scheme == urlsplit(o).scheme and (name == host(o) or name.endswith(f".{host(o)}")) for o in origins)
