"""One HTTP request for a file, from where the part that is there ends."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

CHUNK = 1 << 20  # bytes


class Interrupted(Exception):
    """The transfer broke; asked again, it goes on."""


class Changed(Exception):
    """The file at the source is not the one that the part here is of."""


class Refused(Exception):
    """The source will not give the file, now or later. status is the HTTP status; 200 means a web page."""

    def __init__(self, status: int):
        super().__init__(f"refused with {status}")
        self.status = status


@dataclass(frozen=True)
class Request:
    """What to get, and where to. Times are in seconds."""

    url: str
    partial: Path  # appended to; `<partial>-of` beside it says what file it is a part of
    token: str = ""  # not sent along to another host
    connect: float = 20.0
    silence: float = 60.0  # longest time without a byte


@dataclass(frozen=True)
class Fetched:
    """A complete file. published is the SHA-256 that the source tells of it, "" if it does not."""

    size: int
    sha256: str
    published: str
    resumed: bool


def fetch(request: Request, expect: Callable[[int], None], wrote: Callable[[int], None]) -> Fetched:
    """Gets the rest of a file. `expect` is told the whole size once it is known, `wrote` each piece written.

    Interrupted and requests.RequestException can be tried again, and so can Changed after the part was removed. Refused
    cannot. OSError is the disk's.
    """
    have = length(request.partial)
    known = _known(request)
    if have and have == known.get("size"):  # it was killed after the last byte
        return Fetched(have, file_hash(request.partial).hexdigest(), _published(known["etag"]), True)
    headers = {"Accept-Encoding": "identity", "User-Agent": "comfyd"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if request.token:
        headers["Authorization"] = f"Bearer {request.token}"
    with requests.Session() as session:
        session.trust_env = False  # a .netrc would replace the token
        limits = (request.connect, request.silence)
        with session.get(request.url, headers=headers, stream=True, timeout=limits) as answer:
            _check(answer, have)
            size, etag = _described(answer)
            now = {"url": identity(request.url), "etag": etag, "size": size}
            if have and now != known:
                raise Changed
            if answer.status_code == 200:
                have = 0  # the source knows no Range
            expect(size)
            identity_path(request.partial).write_text(json.dumps(now), "utf-8")
            sha256 = _write(answer, request, have, wrote)
    got = length(request.partial)
    if size and got < size:
        raise Interrupted(f"the connection ended at byte {got} of {size}")
    return Fetched(got, sha256, _published(etag), have > 0)


def identity_path(partial: Path) -> Path:
    """Where it stands what a part is a part of."""
    return partial.with_name(partial.name + "-of")


def discard(partial: Path) -> None:
    """Removes a part and what it is of."""
    partial.unlink(missing_ok=True)
    identity_path(partial).unlink(missing_ok=True)


def file_hash(path: Path) -> "hashlib._Hash":
    """The SHA-256 of a file, to go on with."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256")


def length(path: Path) -> int:
    """A file's size in bytes, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def host(url: str) -> str:
    """The host in an address."""
    return urlsplit(url).hostname or ""


def public(url: str) -> str:
    """An address for people and for files: without what may be a secret, such as ?token= (Civitai's) or a password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def identity(url: str) -> str:
    """Which address it is, to be compared and kept: the public one, and a hash in place of the rest."""
    shown = public(url)
    return shown if shown == url else f"{shown}#{hashlib.sha256(url.encode()).hexdigest()}"


def _check(answer: requests.Response, have: int) -> None:
    status = answer.status_code
    if status == 416 and have:
        raise Changed
    if status == 429 or status >= 500:
        raise Interrupted(f"{host(answer.url)} answers {status}")
    if status not in (200, 206) or answer.headers.get("Content-Type", "").startswith("text/html"):
        raise Refused(status)


def _write(answer: requests.Response, request: Request, have: int, wrote: Callable[[int], None]) -> str:
    digest = file_hash(request.partial) if have else hashlib.sha256()
    with open(request.partial, "ab" if have else "wb", buffering=0) as file:
        while chunk := _read(answer, request):
            file.write(chunk)
            digest.update(chunk)
            wrote(len(chunk))
    return digest.hexdigest()


def _read(answer: requests.Response, request: Request) -> bytes:
    # read1 hands out what has come; iter_content would keep up to a whole piece back, and lose it with the connection.
    try:
        return answer.raw.read1(CHUNK)
    except urllib3.exceptions.ReadTimeoutError as e:
        raise Interrupted(f"nothing came for {request.silence:g} s") from e
    except (urllib3.exceptions.HTTPError, OSError) as e:
        raise Interrupted("the connection was cut") from e


def _described(answer: requests.Response) -> tuple[int, str]:
    """The whole file's size (0 if not told) and its ETag.

    Hugging Face tells them in its own answer, before it sends the client on to its storage: X-Linked-Size, and
    X-Linked-Etag, which is the SHA-256 of a file in LFS.
    """
    for step in [*answer.history, answer]:
        if "X-Linked-Size" in step.headers:
            return int(step.headers["X-Linked-Size"]), step.headers.get("X-Linked-Etag", "").strip('"')
    ranged = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    size = ranged[1] if ranged else answer.headers.get("Content-Length", "0")
    return int(size), answer.headers.get("ETag", "").strip('"')


def _published(etag: str) -> str:
    return etag if re.fullmatch("[0-9a-f]{64}", etag) else ""


def _known(request: Request) -> dict:
    try:
        return json.loads(identity_path(request.partial).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
