"""What is heard on the WebSocket."""

import json
import struct

from support_server import ID, Server, following, until

from comfyd_modal.listener import Frame
from comfyd_modal.progress import Progress


class Shown(Progress):
    """Keeps what it is shown, and sends nothing."""

    def __init__(self) -> None:
        self.previews: list[tuple[str, str, bytes]] = []

    def event(self, kind: str, data: dict) -> None:
        pass

    def preview(self, node: str, mime: str, data: bytes) -> None:
        self.previews.append((node, mime, data))


async def test_messages_are_told_apart() -> None:
    shown = Shown()
    async with Server().up() as server, following(server, ("9",), progress=shown) as (_, heard):
        ws = server.sockets[-1]
        meta = json.dumps({"prompt_id": ID, "node_id": "9", "image_type": "image/jpeg"}).encode()
        other = json.dumps({"prompt_id": "another", "node_id": "9", "image_type": "image/png"}).encode()
        sampler = json.dumps({"prompt_id": ID, "node_id": "3", "image_type": "image/jpeg"}).encode()
        for head in (meta, other, sampler):
            await ws.send_bytes(struct.pack(">II", 4, len(head)) + head + b"image")
        for junk in (
            b"",
            b"1234567",
            struct.pack(">II", 4, 99) + b"short",
            struct.pack(">II", 4, 3) + b"{{{",
            struct.pack(">II", 3, 1),
        ):
            await ws.send_bytes(junk)
        for text in ("{", "[]", '{"type": "executing"}', '{"type": "progress", "data": 7}'):
            await ws.send_str(text)
        await server.say("execution_error", prompt_id="another", node_id="1")
        await server.say(
            "execution_error", node_id="1", exception_type="ExecutionBlocked", current_inputs=[float("nan")]
        )
        await server.say("executing", node="9")
        await ws.send_bytes(struct.pack(">II", 1, 1) + b"jpeg")
        await server.say("executing", node="3")
        await ws.send_bytes(struct.pack(">II", 1, 1) + b"preview")
        await server.say("executing", node=None, prompt_id="another")
        await server.say("execution_success")
        await until(lambda: heard.news.is_set())
        await until(lambda: len(heard.frames) == 2)
        assert heard.frames == [Frame("9", ".jpg", b"image"), Frame("9", ".jpg", b"jpeg")]
        assert [(e["node_id"], e["current_inputs"]) for e in heard.errors] == [("1", [None])]
        assert not heard.over and not heard.gap
        assert shown.previews == [("3", "image/jpeg", b"image")], "one that names no prompt may be another's"
