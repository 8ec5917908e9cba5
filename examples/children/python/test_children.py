"""Against a comfyd that runs: scripts/children.sh starts one and sets COMFYD_URL, COMFYD_API_KEY, TEMPORAL_ADDRESS."""

import asyncio
import json
import os
import time
import urllib.error
import urllib.parse
import uuid

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowFailureError

import files
from graphs import broken, clouds, poster
from main import ORDER, TASK_QUEUE, new_worker
from workflows import Fan, Pipeline, Single, failure_of

PHOTO = os.path.join(os.path.dirname(__file__), "..", "go", "testdata", "photo.png")


@pytest_asyncio.fixture
async def client():
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    async with new_worker(client):
        yield client


async def start(client, workflow, argument):
    return await client.start_workflow(workflow.run, argument, id=f"python-{uuid.uuid4()}", task_queue=TASK_QUEUE)


def status(job, query=""):
    return json.loads(files.call("GET", "/status/" + urllib.parse.quote(job, safe="") + query))


def ended(job):
    """The status of a job whose end we know of: without wait=, it may be one that comfyd has told a moment before."""
    return status(job, "?wait=30")


async def children(handle):
    return [
        e.start_child_workflow_execution_initiated_event_attributes.workflow_id
        async for e in handle.fetch_history_events()
        if e.HasField("start_child_workflow_execution_initiated_event_attributes")
    ]


async def slow():
    """A job that takes far longer than it is looked for here; ComfyUI caches what it has run, so each is another."""
    with open(PHOTO, "rb") as photo:
        image = await asyncio.to_thread(files.upload, "picked.png", photo.read())
    return {"workflow": poster(500 + int(time.time() * 1000) % 500, steps=300), "images": [image]}


async def running(handle):
    """The ID of a run's only child, once ComfyUI has it; one that has ended is in no phase."""
    for _ in range(6000):  # ten minutes: a ComfyUI on a busy CPU takes its time
        for job in await children(handle):
            try:
                st = await asyncio.to_thread(status, job)
            except urllib.error.HTTPError as e:
                if e.code != 404:  # its parent has asked for it, and it is not there yet
                    raise
                continue
            assert st["status"] == "RUNNING", f"it has ended, and was not seen running: {st}"
            if st.get("phase") == "running":
                return job
        await asyncio.sleep(0.1)
    pytest.fail("it is never seen running")


@pytest.mark.asyncio
async def test_pipeline(client):
    handle = await start(client, Pipeline, ORDER)
    made = await handle.result()
    branches = {b["name"]: b for b in made["branches"]}
    assert branches["x512"]["made"]["width"] == 512
    assert branches["print"]["made"]["width"] == 768
    assert branches["print"]["tries"] == 2
    posters = [b for name, b in branches.items() if name.startswith("poster")]
    canceled = [b for b in posters if b["made"] is None]
    assert canceled, "no poster was canceled"
    for b in canceled:
        assert b["error"]["code"] == "canceled"
        assert (await asyncio.to_thread(ended, b["job"]))["code"] == "canceled"
    assert len(await children(handle)) == ORDER["candidates"] + 3 + ORDER["posters"]  # one branch took two
    raw = await asyncio.to_thread(files.read, branches["x512"]["made"])
    assert raw.startswith(b"\x89PNG")


@pytest.mark.asyncio
async def test_many_at_once(client):
    assert await (await start(client, Fan, 20)).result() == 20


@pytest.mark.asyncio
async def test_cancel_through_the_parent(client):
    handle = await start(client, Single, await slow())
    job = await running(handle)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert failure_of(caught.value.cause)["code"] == "canceled"
    assert (await asyncio.to_thread(ended, job))["code"] == "canceled"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "request_, code, node",
    [
        ({"workflow": broken()}, "node_failed", "4"),
        ({"workflow": {"1": {"class_type": "Nowhere", "inputs": {}}}}, "invalid_workflow", None),
        ({"workflow": clouds(1, 0.5), "timeout_seconds": "soon"}, "invalid_workflow", None),
        (
            {"workflow": clouds(1, 0.5), "images": [{"name": "a.png", "ref": "inputs/somebody/" + "0" * 64}]},
            "invalid_workflow",
            None,
        ),
    ],
)
async def test_failures(client, request_, code, node):
    with pytest.raises(WorkflowFailureError) as caught:
        await (await start(client, Single, request_)).result()
    failure = failure_of(caught.value.cause)
    assert failure["code"] == code
    assert failure.get("node_id") == node
    assert failure["message"]


@pytest.mark.asyncio
async def test_a_large_graph(client):
    graph = {"9": {"class_type": "PrimitiveString", "inputs": {"value": "long " * 400_000}}, **clouds(9, 0.3)}
    ref = (await asyncio.to_thread(files.upload, "graph.json", json.dumps(graph).encode()))["ref"]
    result = await client.execute_workflow(
        "ComfyUIWorkflow", {"workflow_ref": ref}, id=f"python-{uuid.uuid4()}", task_queue="comfyui", result_type=dict
    )
    assert len(result["images"]) == 1
