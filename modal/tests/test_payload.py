"""The payload that run returns."""

import json
import math

import pytest

from comfyd_modal.payload import Blobs, pack, read, unpack


def test_files_are_found_by_their_offsets() -> None:
    blobs = Blobs()
    contents = [b"first\n", b"", b"\n\x00third"]
    manifest, body = unpack(pack({"end": "history", "files": [blobs.add(c) for c in contents]}, blobs.parts))
    assert manifest["v"] == 1
    assert [bytes(body[f["offset"] : f["offset"] + f["size"]]) for f in manifest["files"]] == contents
    assert bytes(body) == b"".join(contents)


def test_the_manifest_is_one_line_of_ascii_json_that_go_can_read() -> None:
    payload = pack(
        {"end": "history", "history": {"text": "Grüße\n\u2028", "n": [math.nan, -math.inf, (1.5, 2**60 + 1)]}}, []
    )
    line, rest = payload.split(b"\n", 1)
    assert rest == b"" and line.isascii()
    assert json.loads(line)["history"] == {"text": "Grüße\n\u2028", "n": [None, None, [1.5, 2**60 + 1]]}


@pytest.mark.parametrize("payload", [b"", b'{"v":1}', b'{"v":2}\n', b"[]\n", b"no json\n"])
def test_what_is_no_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(payload)


def test_a_file_that_was_changed_is_refused() -> None:
    blobs = Blobs()
    entry = blobs.add(b"data")
    payload = pack({"end": "history"}, blobs.parts)
    assert read(payload, entry) == b"data"
    with pytest.raises(ValueError, match="not those"):
        read(payload[:-1] + b"!", entry)
