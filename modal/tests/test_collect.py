"""What a prompt has made, read out of its history."""

import aiohttp
import pytest
from support_server import Server

from comfyd_modal import collect
from comfyd_modal.client import Client
from comfyd_modal.payload import Blobs


async def test_a_listed_file_that_cannot_be_read_is_told() -> None:
    outputs = {
        "1": {"gifs": [{"filename": "a.gif"}, {"source": "websocket"}, "text", 7], "n": 5},
        "2": None,
        "3": {"x": [{"filename": ""}]},
    }
    async with Server().up() as server, aiohttp.ClientSession() as session:
        blobs = Blobs()
        found = await collect.files(Client(session, server.url), outputs, blobs)
        assert found == [
            {
                "folder": "output",
                "subfolder": "",
                "filename": "a.gif",
                "missing": "ComfyUI answers 404 for it: it is not there",
            }
        ]
        (lost,) = await collect.files(Client(session, "http://127.0.0.1:9"), outputs, blobs)
        assert "did not send it whole" in lost["missing"] and blobs.parts == []


@pytest.mark.parametrize(
    ("message", "broken"),
    [("CUDA error: an illegal memory access", True), ("CUDA error: out of memory", False), ("division by zero", False)],
)
def test_a_gpu_that_is_broken_for_the_process(message: str, broken: bool) -> None:
    messages = [
        ["execution_start", {"timestamp": 5}],
        ["execution_error", {"exception_message": message, "timestamp": 9}],
    ]
    history = {"status": {"messages": messages}}
    assert collect.broken_gpu(history) is broken
    assert collect.times(history) == (5, 9) and collect.times({"status": {}}) == (0, 0)
