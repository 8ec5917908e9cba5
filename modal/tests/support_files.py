"""A file server that misbehaves on demand, for the tests of downloads."""

import hashlib
import random
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that are the same for the same seed."""
    return random.Random(seed).randbytes(size)


@dataclass
class File:
    """What a path answers. The faults come in the order in which they are named."""

    data: bytes = b""
    status: int = 200  # other than 200: nothing else counts
    type: str = "application/octet-stream"
    linked: bool = False  # as Hugging Face: sent on to /storage, with the size and SHA-256 in X-Linked-*
    published: str = ""  # another SHA-256 in X-Linked-Etag than the file has
    ranges: bool = True
    etag: str = ""
    size_told: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers are cut off
    stalls: list[int] = field(default_factory=list)  # bytes after which the next answers say no more
    slow: threading.Event | None = None  # half is sent, and the rest when this is set
    busy: int = 0  # so many 503 first


class FileServer:
    """Serves `files` by path on 127.0.0.1. `sent` counts the bytes of bodies, `requests` are the paths and headers."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.sent: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for file in self.files.values():
            if file.slow:
                file.slow.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """The address of a path."""
        return f"http://{host}:{self._server.server_port}{path}"

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of the requests for a path."""
        return [headers for p, headers in self.requests if p == path]


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            file = self._note()
            self.send_response(302 if file.linked and file.status == 200 else file.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            file = self._note()
            if file.busy:
                file.busy -= 1
                self._plain(503)
            elif file.status != 200:
                self._plain(file.status)
            elif file.linked and not self.path.startswith("/storage"):
                self.send_response(302)
                # Another host, so that a client may not send its token along.
                self.send_header("Location", server.url("/storage" + self.path, "localhost"))
                self.send_header("X-Linked-Size", str(len(file.data)))
                digest = file.published or hashlib.sha256(file.data).hexdigest()
                self.send_header("X-Linked-Etag", f'"{digest}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._body(file)

        def _note(self) -> File:
            server.requests.append((self.path, dict(self.headers)))
            return server.files.get(self.path.removeprefix("/storage"), File(status=404))

        def _plain(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self, file: File) -> None:
            start = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and file.ranges:
                start = int(asked[1])
                if start >= len(file.data):
                    return self._plain(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", file.type)
            if file.etag:
                self.send_header("ETag", f'"{file.etag}"')
            if file.size_told:
                self.send_header("Content-Length", str(len(file.data) - start))
            self.end_headers()
            self._send(file, file.data[start:])

        def _send(self, file: File, rest: bytes) -> None:
            if file.cuts:
                self._write(rest[: file.cuts.pop(0)])
                self.close_connection = True
            elif file.stalls:
                self._write(rest[: file.stalls.pop(0)])
                server.stopping.wait(300)
                self.close_connection = True
            elif file.slow:
                self._write(rest[: len(rest) // 2])
                file.slow.wait(300)
                self._write(rest[len(rest) // 2 :])
            else:
                self._write(rest)

        def _write(self, data: bytes) -> None:
            for at in range(0, len(data), 1 << 16):
                piece = data[at : at + (1 << 16)]
                try:
                    self.wfile.write(piece)
                except OSError:
                    return
                server.sent[self.path.removeprefix("/storage")] += len(piece)

    return Handler
