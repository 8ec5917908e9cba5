import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from comfyd_modal import models, transfer
from comfyd_modal.download import DownloadError, Downloader, Patience, is_of
from comfyd_modal.models import Model
from support_files import File, FileServer, content

QUICK = Patience(connect=60, silence=60, tries=3, pause=0.01)
# For stalls: a server that is only held up a while does not count as one.
STALLED = Patience(connect=60, silence=3, tries=2, pause=0.01)
MB = 1 << 20


@pytest.fixture
def server():
    with FileServer() as s:
        yield s


@pytest.fixture
def said():
    return []


@pytest.fixture
def downloader(tmp_path, said):
    return Downloader(tmp_path, "hf_secret", say=said.append, patience=QUICK, hub=("http://127.0.0.1",))


def model(server, path="/org/repo/resolve/main/a.safetensors", **more):
    return Model("vae", path.rsplit("/", 1)[1], server.url(path), **more)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def left(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_file_arrives_verified_and_nothing_else_is_left(server, downloader, tmp_path, said):
    data = content(3 * MB)
    m = model(server)
    server.files["/org/repo/resolve/main/a.safetensors"] = File(data, linked=True)
    record = downloader.one(m)
    assert (record.size, record.sha256) == (len(data), sha256(data))
    assert (tmp_path / "vae/a.safetensors").read_bytes() == data
    assert left(tmp_path) == [".comfyd/vae/a.safetensors.json", "vae/a.safetensors"]
    asked = len(server.requests)
    assert downloader.one(m) == record and len(server.requests) == asked, "what is there is not asked for again"


def test_the_token_goes_to_the_hub_and_not_to_its_storage_or_to_others(server, downloader):
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(content(10), linked=True)
    server.files["/b.safetensors"] = File(content(10))
    downloader.one(model(server))
    assert server.asked(path)[0]["Authorization"] == "Bearer hf_secret"
    assert "Authorization" not in server.asked("/storage" + path)[0]
    downloader.one(Model("vae", "b.safetensors", server.url("/b.safetensors", "localhost")))
    assert "Authorization" not in server.asked("/b.safetensors")[0]


def test_the_token_goes_by_https_only(server, tmp_path, said):
    assert is_of("https://huggingface.co/a/b", Downloader.hub) and is_of("https://cdn.hf.co/a", Downloader.hub)
    for url in ("http://huggingface.co/a", "https://nothuggingface.co/a", "https://huggingface.co.evil.com/a"):
        assert not is_of(url, Downloader.hub), url
    server.files["/b.safetensors"] = File(content(10))
    strict = Downloader(tmp_path, "hf_secret", say=said.append, patience=QUICK, hub=("https://127.0.0.1",))
    strict.one(model(server, "/b.safetensors"))
    assert "Authorization" not in server.asked("/b.safetensors")[0]


@pytest.mark.parametrize(
    ("status", "token", "words"),
    [
        (401, "", ["wants a token", "modal secret create --force HUGGINGFACE_ACCESS_TOKEN", "settings/tokens"]),
        (401, "hf_wrong", ["does not accept the token", "HUGGINGFACE_ACCESS_TOKEN (401)", "settings/tokens"]),
        (403, "hf_right", ["licence has not been accepted", "/org/repo as the token's owner", "accept it there"]),
        (404, "hf_right", ["no such file (404)", "resolve/main/a.safetensors", "moved", "/org/repo"]),
        (410, "hf_right", ["no such file (410)"]),
        (400, "hf_right", ["answers 400"]),
    ],
)
def test_a_refusal_is_one_plain_sentence_and_is_not_tried_again(server, downloader, status, token, words):
    server.files["/org/repo/resolve/main/a.safetensors"] = File(status=status)
    downloader.token = token
    with pytest.raises(DownloadError) as e:
        downloader.one(model(server))
    message = str(e.value)
    assert message.startswith("vae/a.safetensors: ") and "\n" not in message
    assert all(w in message for w in words), message
    assert len(server.requests) == 1 and "hf_" not in message.replace("=hf_...", "")


def test_a_login_at_another_host_is_not_taken_for_hugging_face(server, downloader):
    server.files["/b.safetensors"] = File(status=403)
    with pytest.raises(DownloadError, match="localhost wants a login"):
        downloader.one(Model("vae", "b.safetensors", server.url("/b.safetensors", "localhost")))


def test_a_web_page_is_not_saved_as_a_model(server, downloader, tmp_path):
    server.files["/org/repo/resolve/main/a.safetensors"] = File(b"<html>", type="text/html; charset=utf-8")
    with pytest.raises(DownloadError, match="is a web page"):
        downloader.one(model(server))
    assert left(tmp_path) == []


def test_cuts_stalls_and_503_are_taken_up_where_they_ended(server, downloader, tmp_path, said):
    data = content(4 * MB)
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(data, linked=True, busy=1, cuts=[MB, 200_000], stalls=[300_000])
    downloader.patience = STALLED
    assert downloader.one(model(server)).sha256 == sha256(data)
    assert server.sent[path] == len(data), "each byte was sent once"
    assert any("cut" in s for s in said) and any("nothing came for 3 s" in s for s in said)
    assert any("answers 503" in s for s in said)


def test_a_server_without_ranges_is_asked_for_the_whole_again(server, downloader):
    data = content(2 * MB)
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(data, ranges=False, etag="x", cuts=[MB])
    assert downloader.one(model(server)).sha256 == sha256(data)


def test_a_connection_that_brings_nothing_is_given_up_with_what_came_kept(server, downloader, tmp_path):
    data = content(2 * MB)
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(data, linked=True, stalls=[MB, 0, 0])
    downloader.patience = STALLED
    with pytest.raises(DownloadError) as e:
        downloader.one(model(server))
    assert "stalls: nothing came for 3 s" in str(e.value) and f"{MB} bytes are kept" in str(e.value)
    server.files[path].stalls.clear()
    downloader.one(model(server))
    assert server.sent[path] == len(data)


def test_no_connection_at_all(downloader):
    with pytest.raises(DownloadError, match="no connection"):
        downloader.one(Model("vae", "a.safetensors", "http://127.0.0.1:9/a.safetensors"))


def test_a_file_that_changed_at_the_source_is_begun_again(server, downloader, tmp_path):
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(content(2 * MB, 1), linked=True, cuts=[MB, 0, 0])
    with pytest.raises(DownloadError):
        downloader.one(model(server))
    new = content(3 * MB, 2)
    server.files[path] = File(new, linked=True)
    assert downloader.one(model(server)).sha256 == sha256(new)
    assert (tmp_path / "vae/a.safetensors").read_bytes() == new


@pytest.mark.parametrize(
    ("more", "file", "words"),
    [
        ({"sha256": "0" * 64}, {}, "and should be " + "0" * 64),
        ({"size": 7}, {}, f"{MB} bytes, and should have 7"),
        ({}, {"published": "1" * 64}, "and should be " + "1" * 64),
    ],
)
def test_a_wrong_hash_or_size_leaves_no_file(server, downloader, tmp_path, more, file, words):
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(content(MB), linked=True, **file)
    with pytest.raises(DownloadError) as e:
        downloader.one(model(server, **more))
    assert words in str(e.value) and "removed" in str(e.value)
    assert left(tmp_path) == []


def test_a_spoilt_part_is_thrown_away_once_and_the_file_still_comes(server, downloader, tmp_path):
    path = "/org/repo/resolve/main/a.safetensors"
    data = content(2 * MB)
    server.files[path] = File(data, linked=True, cuts=[MB, 0, 0])
    with pytest.raises(DownloadError):
        downloader.one(model(server))
    partial = models.partial_path(tmp_path, model(server))
    partial.write_bytes(b"\0" * partial.stat().st_size)
    assert downloader.one(model(server)).sha256 == sha256(data)


def test_killed_after_the_last_byte_nothing_is_fetched_again(server, downloader, tmp_path):
    path = "/org/repo/resolve/main/a.safetensors"
    data = content(MB)
    m = model(server)
    server.files[path] = File(data, linked=True)
    partial = models.partial_path(tmp_path, m)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data)
    known = {"url": m.url, "etag": sha256(data), "size": len(data)}
    transfer.identity_path(partial).write_text(json.dumps(known))
    assert downloader.one(m).sha256 == sha256(data) and not server.requests


def test_a_file_put_there_by_hand_is_verified_and_kept(server, downloader, tmp_path):
    data = content(MB)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/a.safetensors").write_bytes(data)
    m = model(server, size=len(data), sha256=sha256(data))
    assert downloader.one(m).sha256 == sha256(data) and not server.requests
    (tmp_path / "vae/a.safetensors").write_bytes(content(MB, 9))
    models.record_path(tmp_path, m).unlink()
    server.files["/org/repo/resolve/main/a.safetensors"] = File(data, linked=True)
    assert downloader.one(m).sha256 == sha256(data) and server.requests


def test_a_full_volume_is_said_so(server, downloader, tmp_path):
    server.files["/org/repo/resolve/main/a.safetensors"] = File(content(MB), linked=True)
    partial = models.partial_path(tmp_path, model(server))
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")  # takes every write for one on a full disk
    with pytest.raises(DownloadError, match="vae/a.safetensors: the Volume is full.*modal volume rm"):
        downloader.one(model(server))


def test_a_volume_that_cannot_be_committed_stops_the_download(server, downloader):
    server.files["/org/repo/resolve/main/a.safetensors"] = File(content(MB), linked=True)

    def refuse():
        raise RuntimeError("volume is gone")

    downloader.commit = refuse
    with pytest.raises(DownloadError, match="did not take what was written: volume is gone"):
        downloader.one(model(server))


def test_many_come_at_the_same_time_and_one_failure_does_not_stop_the_others(server, downloader, tmp_path, said):
    together = threading.Barrier(4)
    names = [f"m{i}.safetensors" for i in range(4)]
    for name in names:
        server.files["/" + name] = File(content(MB), linked=True, slow=threading.Event())

    def release(name):
        together.wait(120)
        while not said and not server.stopping.wait(0.01):  # or another might be complete before the failure is told
            pass
        server.files["/" + name].slow.set()

    waiting = [threading.Thread(target=_when_half, args=(server, n, release)) for n in names]
    for thread in waiting:
        thread.start()
    server.files["/gone.safetensors"] = File(status=404)
    wanted = [Model("vae", n, server.url("/" + n)) for n in [*names, "gone.safetensors"]]
    with pytest.raises(DownloadError) as e:
        downloader.all(wanted)
    for thread in waiting:
        thread.join()
    assert "1 of 5 models could not be downloaded:\nvae/gone.safetensors: there is no such file" in str(e.value)
    assert sorted(p.name for p in (tmp_path / "vae").iterdir()) == names
    assert said[0].startswith("FAILED: vae/gone.safetensors"), "it is told at once, not at the end"


def _when_half(server, name, then):
    while server.sent["/" + name] < MB // 2:
        if server.stopping.wait(0.01):
            return
    then(name)


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {app!r})
    from comfyd_modal.download import Downloader
    from comfyd_modal.models import Model
    from committing import commit
    Downloader(Path("live"), commit=commit, floor=1 << 16).one(Model("vae", "a.safetensors", {url!r}))
"""

# What is in `live` when `commit` is called is what survives, as on a Volume; it takes a while, as there.
COMMITTING = """
    import shutil, time
    def commit():
        shutil.copytree("live", "new"); time.sleep(0.05)
        shutil.rmtree("durable", ignore_errors=True); shutil.move("new", "durable")
"""


@pytest.mark.parametrize("survives", ["live", "durable"])
def test_killed_half_way_at_most_5_percent_is_fetched_again(server, tmp_path, survives):
    """live: the process is killed. durable: the container is lost, and with it what was not committed."""
    data = content(40 * MB)
    path = "/org/repo/resolve/main/a.safetensors"
    server.files[path] = File(data, linked=True, slow=threading.Event())
    app = str(Path(__file__).resolve().parent.parent)
    (tmp_path / "committing.py").write_text(textwrap.dedent(COMMITTING))
    script = textwrap.dedent(KILLED.format(app=app, url=server.url(path)))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    partial = models.partial_path(tmp_path / survives, model(server))
    try:
        deadline = threading.Event()
        for _ in range(2400):
            if partial.is_file() and partial.stat().st_size > 0.45 * len(data) and server.sent[path] >= len(data) // 2:
                break
            deadline.wait(0.05)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    server.files[path].slow.set()
    kept = partial.stat().st_size
    assert kept > 0.45 * len(data)
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    before = server.sent[path]
    record = Downloader(tmp_path / survives, patience=QUICK).one(model(server))
    assert record.sha256 == sha256(data)
    assert server.asked("/storage" + path)[-1]["Range"] == f"bytes={kept}-"
    again = len(data) // 2 - kept  # the server had sent half when the process died
    assert again <= 0.05 * len(data), f"{again / len(data):.1%} fetched again"
    assert len(data) - kept <= server.sent[path] - before
