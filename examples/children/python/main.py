"""A worker of another team, and a starter.

    python main.py worker      serve the workflows
    python main.py pipeline    generate, pick, upscale in parallel, retry one branch, cancel the rest

TEMPORAL_ADDRESS, COMFYD_URL and COMFYD_API_KEY say where everything is.
"""

import asyncio
import json
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from temporalio.client import Client
from temporalio.worker import Worker

from files import pick
from workflows import Fan, Pipeline, Single

TASK_QUEUE = "pictures-python"
# Some of the posters run before the branch that fails has found another way.
ORDER = {"candidates": 4, "posters": 6, "enough": 2}


def new_worker(client):
    return Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[Pipeline, Single, Fan],
        activities=[pick],
        activity_executor=ThreadPoolExecutor(8),
    )


async def main(what):
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233"))
    if what == "worker":
        await new_worker(client).run()
    else:
        made = await client.execute_workflow(Pipeline.run, ORDER, id=f"pipeline-{uuid.uuid4()}", task_queue=TASK_QUEUE)
        print(json.dumps(made, indent=2))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "pipeline"))
