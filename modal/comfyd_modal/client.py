"""ComfyUI's HTTP API, as far as one prompt needs it (server.py of 0.3.75)."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Answer:
    """What POST /prompt has answered."""

    status: int
    body: dict[str, Any]

    @property
    def taken(self) -> bool:
        """Whether ComfyUI has queued the prompt, perhaps only in part."""
        return self.status == 200

    @property
    def whole(self) -> bool:
        """Whether it has queued all of it: where some outputs are refused it queues the others and says 200."""
        return self.taken and not self.body.get("node_errors")


class Client:
    """Calls of one ComfyUI. All raise aiohttp.ClientError or TimeoutError when it does not answer as it should."""

    def __init__(self, session: aiohttp.ClientSession, url: str, patience: float = 10.0):
        self._session = session
        self.url = url
        self.patience = patience  # seconds for an ordinary answer

    async def post_prompt(self, body: dict[str, Any], seconds: float) -> Answer:
        """Hands a prompt over."""
        limit = aiohttp.ClientTimeout(total=seconds)
        async with self._session.post(f"{self.url}/prompt", data=json.dumps(body, allow_nan=False), timeout=limit) as r:
            raw = await r.read()
            try:
                answer = loads(raw)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                # 413 and 500 come as text (aiohttp.web's own pages).
                words = " ".join(raw.decode(errors="replace").split())[:500]
                answer = {"error": {"type": f"http_{r.status}", "message": words, "details": ""}, "node_errors": {}}
            return Answer(r.status, answer)

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The entry of a prompt that has ended; None for any other."""
        everything = await self._get(f"/history/{prompt_id}")
        return everything.get(prompt_id)

    async def queue(self) -> tuple[list[str], list[str]]:
        """The IDs of the prompts that run and of those that wait."""
        q = await self._get("/queue")
        return [str(item[1]) for item in q["queue_running"]], [str(item[1]) for item in q["queue_pending"]]

    async def dequeue(self, prompt_id: str) -> None:
        """Takes a waiting prompt out of the queue; no error where it is not there."""
        await self._post("/queue", {"delete": [prompt_id]})

    async def interrupt(self, prompt_id: str) -> None:
        """Asks a running prompt to stop, which it does when its node ends or ticks."""
        await self._post("/interrupt", {"prompt_id": prompt_id})

    async def forget(self, prompt_id: str) -> None:
        """Removes the history entry of a prompt."""
        await self._post("/history", {"delete": [prompt_id]})

    async def view(self, folder: str, subfolder: str, filename: str) -> bytes:
        """The bytes of a file in one of ComfyUI's folders."""
        query = {"type": folder, "subfolder": subfolder, "filename": filename}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self.patience, sock_read=60)
        async with self._session.get(f"{self.url}/view", params=query, timeout=limit) as r:
            r.raise_for_status()
            return await r.read()

    async def _get(self, path: str) -> Any:
        limit = aiohttp.ClientTimeout(total=self.patience)
        async with self._session.get(self.url + path, timeout=limit) as r:
            r.raise_for_status()
            try:
                return loads(await r.read())
            except ValueError as e:
                raise aiohttp.ClientPayloadError(f"{path} is not JSON: {e}") from None

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        limit = aiohttp.ClientTimeout(total=self.patience)
        async with self._session.post(self.url + path, json=body, timeout=limit) as r:
            r.raise_for_status()


def loads(raw: bytes | str) -> Any:
    """JSON, with null for the bare NaN and Infinity that ComfyUI writes."""
    return json.loads(raw, parse_constant=lambda _: None)
