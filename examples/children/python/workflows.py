"""Workflows of another team, whose steps are comfyd's jobs: children by name, with JSON."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, CancelledError, ChildWorkflowError, FailureError

with workflow.unsafe.imports_passed_through():
    from files import pick
    from graphs import broken, clouds, poster, upscale

MAX_INLINE_WORKFLOW = 1 << 20  # bytes; a larger graph goes to POST /inputs, and its ref into workflow_ref


async def job(name, graph, **request):
    """Runs one job and returns its result. The child's ID is its call_id: GET /status/{id} serves it, too."""
    return await workflow.execute_child_workflow(
        "ComfyUIWorkflow",
        {"workflow": graph, **request},
        id=child_id(name),
        task_queue="comfyui",  # comfyd's, not ours
        result_type=dict,
        # When this parent ends, the child is asked to end, too: its prompt leaves the GPU, and it closes as canceled.
        parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
        # A cancel counts as done when the child has stopped.
        cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        # Starts the job again when comfyd, the store or a GPU was to blame; what a workflow causes itself is final under
        # any policy. Each start is a run of its own, with prompts of its own.
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=5), maximum_attempts=3),
    )


def child_id(name):
    """Named after the parent, so that a person finds it, and a parent's repetition does not meet it."""
    info = workflow.info()
    return f"{info.workflow_id}.{name}.{info.run_id[:8]}"


def failure_of(error):
    """Why a job has failed: the error's type is the code, and its details say the rest."""
    while isinstance(error, FailureError):
        if isinstance(error, ApplicationError):
            return {"message": error.message, **(error.details[0] if error.details else {}), "code": error.type}
        if isinstance(error, CancelledError):
            return {**(error.details[0] if error.details else {}), "code": "canceled"}
        error = error.cause
    return {"code": "internal", "message": str(error)}


def as_input(output, name):
    """An output of one job as an input of the next, by reference: no byte moves."""
    return {"name": name, "ref": output["ref"]}


@workflow.defn
class Pipeline:
    """Makes some candidates, picks one, upscales it in several ways at once, tries a branch that fails in another way,
    and cancels what is left when enough are done."""

    @workflow.run
    async def run(self, order: dict) -> dict:
        results = await asyncio.gather(
            *(
                job(f"candidate.{i}", clouds(i, 0.1 + 0.2 * (i % 4)), metadata={"step": "candidate"})
                for i in range(order["candidates"])
            )
        )
        picked = await workflow.execute_activity(
            pick, [r["images"][0] for r in results], start_to_close_timeout=timedelta(minutes=1)
        )
        must = Branch("print", [broken(), upscale(768)], urgency=1)
        branches = [Branch("x512", [upscale(512)], urgency=2), must]
        branches += [Branch(f"poster-{i}", [poster(i)], urgency=5) for i in range(order["posters"])]
        running = [asyncio.create_task(b.run(picked)) for b in branches]
        try:
            await workflow.wait_condition(
                lambda: all(t.done() for t in running)
                or running[1].done()
                and sum(b.made is not None for b in branches) >= order["enough"]
            )
        finally:  # also when we are canceled ourselves
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)  # each child has stopped by then
        return {"picked": picked, "branches": [b.report() for b in branches]}


class Branch:
    """One of the upscales: graphs, the best first. The next is tried when one fails by its own fault."""

    def __init__(self, name, graphs, urgency):
        self.name, self.graphs, self.urgency = name, graphs, urgency
        self.tries, self.job, self.made, self.error = 0, None, None, None

    async def run(self, picked):
        for graph in self.graphs:
            self.tries, self.error = self.tries + 1, None
            name = f"{self.name}.{self.tries}"
            self.job = child_id(name)
            try:
                result = await job(
                    name,
                    graph,
                    images=[as_input(picked, "picked.png")],
                    priority=self.urgency,
                    metadata={"step": self.name},
                )
            except ChildWorkflowError as error:
                self.error = failure_of(error)
                if self.error["code"] == "canceled":
                    return
            else:
                self.made = result["images"][0]
                return

    def report(self):
        return {"name": self.name, "job": self.job, "tries": self.tries, "made": self.made, "error": self.error}


@workflow.defn
class Single:
    """Runs one job, whatever is asked for."""

    @workflow.run
    async def run(self, request: dict) -> dict:
        return await job("job", **{"graph": request.pop("workflow"), **request})


@workflow.defn
class Fan:
    """Runs many small jobs at once."""

    @workflow.run
    async def run(self, n: int) -> int:
        results = await asyncio.gather(*(job(f"fan.{i}", clouds(i, 0.5)) for i in range(n)))
        return sum(len(r["images"]) for r in results)
