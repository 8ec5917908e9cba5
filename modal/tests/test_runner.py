"""Calls of run against a real ComfyUI: what comes back, and what stays behind."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from modal._runtime import execution_context
from support_bench import PNG, Bench
from support_graphs import Channel, node, slow, solid, tag

from comfyd_modal.errors import BackendLost
from comfyd_modal.payload import read, unpack

pytest_plugins = ["support_runner"]


@contextlib.contextmanager
def called(call_id: str) -> Iterator[None]:
    """Within it modal.current_function_call_id() is call_id, as in a container."""
    reset = execution_context._set_current_context_ids(["in-1"], [call_id], [""])
    try:
        yield
    finally:
        reset()


def test_a_batch(bench: Bench) -> None:
    before = int(time.time() * 1000)
    manifest, payload = bench.run(solid(batch=3))
    assert manifest["v"] == 1 and manifest["end"] == "history"
    assert manifest["container"]["gpu"] == "cpu" and manifest["container"]["id"] == "local"
    assert before <= manifest["started_ms"] <= manifest["ended_ms"] <= time.time() * 1000
    assert set(manifest["history"]) == {"outputs", "status"}
    listed = manifest["history"]["outputs"]["2"]["images"]
    assert [{k: f[k] for k in ("filename", "subfolder", "folder")} for f in manifest["files"]] == [
        {"filename": i["filename"], "subfolder": "suite", "folder": "output"} for i in listed
    ]
    assert len(listed) == 3 and all(read(payload, f).startswith(PNG) for f in manifest["files"])
    assert manifest["errors"] == manifest["frames"] == [] and manifest["frames_gap"] is False
    bench.assert_clean()


def test_the_cold_start_is_told_once(bench: Bench) -> None:
    bench.runner._cold_start_ms = 4321
    assert json.loads(asyncio.run(bench.runner.warm()))["cold_start_ms"] == 4321
    assert [bench.run(solid())[0]["container"]["cold_start_ms"] for _ in range(2)] == [4321, 0]


def test_files_of_every_kind_and_texts(bench: Bench) -> None:
    graph = {
        "1": node("EmptyImage", width=64, height=64, batch_size=4, color=255),
        "2": node("PreviewImage", images=["1", 0], **tag()),
        "3": node(
            "SaveAnimatedWEBP",
            images=["1", 0],
            filename_prefix="a",
            fps=4,
            lossless=True,
            quality=80,
            method="default",
            **tag(),
        ),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node("SaveLatent", samples=["4", 0], filename_prefix="b/c/latent", **tag()),
        "6": node("EmptyAudio", duration=0.1, sample_rate=8000, channels=1),
        "7": node("SaveAudio", audio=["6", 0], filename_prefix="audio", **tag()),
        "8": node("CreateVideo", images=["1", 0], fps=4.0),
        "9": node("SaveVideo", video=["8", 0], filename_prefix="video", format="mp4", codec="h264", **tag()),
        "10": node("PrimitiveInt", value=1125899906842624007),
        "11": node("PreviewAny", source=["10", 0], **tag()),
        "12": node("SaveImage", images=["1", 0], filename_prefix="ä &+%#?x", **tag()),
    }
    manifest, payload = bench.run(graph)
    assert manifest["history"]["status"]["status_str"] == "success", manifest["history"]["status"]
    kinds = sorted((f["folder"], f["subfolder"], f["filename"].rpartition(".")[2]) for f in manifest["files"])
    assert kinds == sorted(
        [("temp", "", "png")] * 4
        + [("output", "", "png")] * 4
        + [("output", "", "webp"), ("output", "b/c", "latent"), ("output", "", "flac"), ("output", "", "mp4")]
    )
    assert all(len(read(payload, f)) == f["size"] > 0 for f in manifest["files"])
    assert manifest["history"]["outputs"]["11"]["text"] == ["1125899906842624007"], "no digit is lost"
    bench.assert_clean()


def test_images_that_come_by_socket(bench: Bench) -> None:
    graph = {
        "1": node("EmptyImage", width=32, height=32, batch_size=3, color=255),
        "9": node("SaveImageWebsocket", images=["1", 0]),
    }
    manifest, payload = bench.run(graph, sockets=["9"])
    assert [(f["node"], f["ext"]) for f in manifest["frames"]] == [("9", ".png")] * 3
    assert all(read(payload, f).startswith(PNG) for f in manifest["frames"])
    assert manifest["frames_gap"] is False and manifest["files"] == []
    assert bench.run(graph)[0]["frames"] == [], "previews, unless the node is named"


def test_inputs(bench: Bench) -> None:
    manifest, payload = bench.run(solid(16, 16))
    image = read(payload, manifest["files"][0])
    name = "comfyd/job-1/0123456789ab_é.png"
    graph = {"1": node("LoadImage", image=name), "2": node("SaveImage", images=["1", 0], filename_prefix="in")}
    manifest, _ = bench.run(graph, [[name, image]])
    assert manifest["history"]["status"]["status_str"] == "success"
    manifest, _ = bench.run(graph)
    assert (manifest["end"], manifest["status"]) == ("refused", 400), "the input has gone with its job"


@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "a/../../x.png", "", ".", "a\\..\\x.png", "x\0.png", 7])
def test_an_input_path_that_leaves_the_folder(bench: Bench, path: Any) -> None:
    manifest, _ = bench.run(solid(), [["fine.png", b"x"], [path, b"x"]])
    assert (manifest["end"], manifest["code"]) == ("failed", "invalid_workflow")
    assert "input" in manifest["message"] and manifest["started_ms"] == 0
    assert bench.left() == [] and bench.ask("/history") == {}


@pytest.mark.parametrize(
    ("workflow", "options", "code"),
    [
        ("not json", "{}", "invalid_workflow"),
        ("[1]", "{}", "invalid_workflow"),
        ('{"1": {"class_type": "X", "inputs": {"n": NaN}}}', "{}", "invalid_workflow"),
        ('{"1": {"class_type": "X", "inputs": {"n": 1e999}}}', "{}", "invalid_workflow"),
        ("{}", "not json", "internal"),
        ("{}", '{"prompt_id": "ABC"}', "internal"),
        ("{}", '{"prompt_id": "6D0B7C0C-0B5E-4F0E-9C53-3A1F4D2F5C11"}', "internal"),
        ("{}", '{"stall_timeout": -1}', "internal"),
        ("{}", '{"extra_pnginfo": []}', "internal"),
    ],
)
def test_arguments_that_cannot_be_meant(bench: Bench, workflow: str, options: str, code: str) -> None:
    manifest, _ = unpack(asyncio.run(bench.runner.run(workflow, "job-1", options)))
    assert (manifest["end"], manifest["code"]) == ("failed", code)


def test_containers_that_end_in_the_midst_of_it_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt_id = str(uuid.uuid4())
    seen = []
    with called("fc-again"):
        for n in range(5):
            monkeypatch.setenv("MODAL_TASK_ID", f"ta-{n}")
            manifest, _ = bench.run(solid(), prompt_id=prompt_id)
            seen.append((manifest["end"], manifest["starts"]))
    assert seen == [("history", 1), ("history", 2), ("history", 3), ("failed", 3), ("failed", 3)]
    assert manifest["code"] == "backend_lost" and "COMFYD_MODAL_MEMORY" in manifest["message"]


def test_every_end_of_a_call_that_was_begun_again_tells_its_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*args: Any) -> tuple[str, int]:
        prompt_id = str(uuid.uuid4())
        bench.book.put(prompt_id, "fc-1 ta-1")
        monkeypatch.setenv("MODAL_TASK_ID", "ta-2")
        with called("fc-1"):
            manifest, _ = bench.run(*args, prompt_id=prompt_id)
        return manifest["end"], manifest["starts"]

    assert again(solid()) == ("history", 2)
    assert again({"1": node("NoSuchNode")}) == ("refused", 2)
    assert again(solid(), [["/x", b""]]) == ("failed", 2)

    def lost() -> None:
        raise BackendLost("gone\nfor good", "its last words")

    monkeypatch.setattr("comfyd_modal.job.write_inputs", lambda *_: lost())
    with pytest.raises(BackendLost) as e:
        again(solid())
    assert str(e.value) == "gone\nfor good\n--- log ---\nits last words\n--- starts ---\n2"
    assert repr(e.value) == f"BackendLost({str(e.value)!r})", "Go reads the repr"
    with pytest.raises(BackendLost) as e:
        bench.run(solid())
    assert "starts" not in str(e.value)


def test_a_graph_that_is_refused(bench: Bench) -> None:
    manifest, _ = bench.run({"1": node("NoSuchNode")})
    assert (manifest["end"], manifest["status"]) == ("refused", 400)
    assert manifest["answer"]["error"]["type"] in ("invalid_prompt", "missing_node_type")
    manifest, _ = bench.run({"1": node("SaveImage", filename_prefix="x")})
    assert "1" in manifest["answer"]["node_errors"]
    bench.assert_clean()


def test_a_graph_that_comfyui_cannot_read(bench: Bench) -> None:
    manifest, _ = bench.run({"last_node_id": 3, "nodes": [], "links": []})  # the format of the editor
    assert (manifest["end"], manifest["status"]) == ("refused", 500)
    assert manifest["answer"]["error"]["type"] == "http_500"
    bench.assert_clean()


def test_a_graph_that_is_refused_in_part_does_not_run(bench: Bench) -> None:
    graph = slow() | {"5": node("SaveImage", filename_prefix="x")}
    began = time.monotonic()
    manifest, _ = bench.run(graph)
    assert (manifest["end"], manifest["status"]) == ("refused", 200)
    assert list(manifest["answer"]["node_errors"]) == ["5"]
    assert time.monotonic() - began < 20, "it would run for half a minute"
    bench.assert_clean()


def test_a_node_that_fails(bench: Bench) -> None:
    graph = solid() | {"3": node("SaveImage", images=["1", 0], filename_prefix="../../../outside")}
    manifest, _ = bench.run(graph)
    assert manifest["end"] == "history" and manifest["history"]["status"]["status_str"] == "error"
    assert [e["node_id"] for e in manifest["errors"]] == ["3"]
    assert manifest["errors"][0]["exception_message"]
    assert 0 < manifest["started_ms"] <= manifest["ended_ms"]
    bench.assert_clean()


def test_what_comfyui_has_in_its_cache_gives_outputs_again(bench: Bench) -> None:
    graph = solid(color=0xABCDEF)
    bench.run(graph)
    graph["2"]["inputs"] |= tag()
    manifest, payload = bench.run(graph)
    cached = dict(manifest["history"]["status"]["messages"])["execution_cached"]["nodes"]
    assert cached == ["1"] and len(read(payload, manifest["files"][0])) > 0
    manifest, _ = bench.run(graph)
    assert "404" in manifest["files"][0]["missing"], "the very same graph: run's docstring says so"
    assert "sha256" not in manifest["files"][0]


def test_two_calls_one_after_the_other_share_no_file(bench: Bench) -> None:
    first, second = bench.run(solid())[0], bench.run(solid())[0]
    assert [len(m["files"]) for m in (first, second)] == [1, 1]
    bench.assert_clean()


def test_extra_pnginfo_is_in_the_image(bench: Bench) -> None:
    manifest, payload = bench.run(solid(), extra_pnginfo={"workflow": {"mark": "🦊"}})
    assert b'{"mark": "\\ud83e\\udd8a"}' in read(payload, manifest["files"][0])


def test_the_prompt_id_of_a_job_is_always_the_same(bench: Bench) -> None:
    first, _ = unpack(asyncio.run(bench.runner.run(json.dumps(solid()), "job-7")))
    again, _ = unpack(asyncio.run(bench.runner.run(json.dumps(solid()), "job-7")))
    other, _ = unpack(asyncio.run(bench.runner.run(json.dumps(solid()), "job-8")))
    ids = [m["history"]["status"]["messages"][0][1]["prompt_id"] for m in (first, again, other)]
    assert ids[0] == ids[1] != ids[2] and str(uuid.UUID(ids[0])) == ids[0]


def test_a_prompt_runs_in_one_call_only(bench: Bench) -> None:
    prompt_id = str(uuid.uuid4())
    with called("fc-1"):
        assert bench.run(solid(), prompt_id=prompt_id)[0]["end"] == "history"
    with called("fc-2"):
        manifest, _ = bench.run(solid(), prompt_id=prompt_id)
        assert (manifest["end"], manifest["call_id"]) == ("duplicate", "fc-1")
    with called("fc-1"):
        assert bench.run(solid(), prompt_id=prompt_id)[0]["end"] == "history", "preempted, and started again by Modal"
    barred = str(uuid.uuid4())
    bench.book.put(barred, "")
    with called("fc-3"):
        assert bench.run(solid(), prompt_id=barred)[0]["end"] == "barred"


def test_progress(bench: Bench) -> None:
    channel = bench.use(Channel())
    prompt_id = str(uuid.uuid4())
    bench.run(slow(1600, 1), prompt_id=prompt_id, progress=True)
    items = channel.items[prompt_id]
    assert [i["seq"] for i in items] == list(range(len(items))) and len(items) >= 2
    assert items[0]["container"]["gpu"] == "cpu" and items[0]["running"] is False
    assert any(i["running"] is True for i in items)
    events = [e for i in items for e in i["events"]]
    assert [e["type"] for e in events][:2] == ["execution_start", "execution_cached"]
    assert any(e["type"] == "progress" and e["data"]["node"] == "3" and e["data"]["value"] > 0 for e in events)
    assert all(e["data"]["prompt_id"] == prompt_id for e in events)


@pytest.mark.parametrize("hang", [True, False])
def test_a_channel_that_is_lost_harms_no_job(bench: Bench, hang: bool) -> None:
    async def pause() -> None:
        if hang:
            await asyncio.sleep(600)
        raise ConnectionError("no way")

    bench.use(Channel(pause))
    began = time.monotonic()
    assert bench.run(solid(), progress=True)[0]["history"]["status"]["status_str"] == "success"
    assert time.monotonic() - began < 30


def test_the_log_names_the_job_in_one_line_for_each_end(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    prompt_id = str(uuid.uuid4())
    with caplog.at_level("INFO", "comfyd"):
        bench.run(solid(), prompt_id=prompt_id)
        bench.run(solid(), [["/x", b""]], prompt_id=prompt_id)
    label = f"job_id=job-1 prompt_id={prompt_id} "
    mine = [r for r in caplog.records if r.name == "comfyd"]
    assert [r.getMessage().partition("s: ")[2] for r in mine][0] == "history"
    assert all(r.getMessage().startswith(label) and "\n" not in r.getMessage() and r.exc_info is None for r in mine)
    assert len(mine) == 2 and "invalid_workflow" in mine[1].getMessage()
    assert any(r.getMessage() == f"{label}got prompt" for r in caplog.records if r.name == "comfyd.comfyui")
