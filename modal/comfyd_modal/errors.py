"""What can go wrong in a container, apart from what is wrong with a workflow.

User errors travel as data in the payload (see payload.py). The classes here are raised out of `ComfyUI.run`; Modal
hands their repr to the caller, which tells them apart by the class's name.
"""

LOG_MARK = "\n--- log ---\n"
STARTS_MARK = "\n--- starts ---\n"


class InfraError(Exception):
    """Not the workflow's fault. The message is for people; after LOG_MARK stands the end of ComfyUI's log.

    At the very end, after STARTS_MARK, stands how often Modal has begun the call, where that is more than once.
    """

    def __init__(self, message: str, log: str = ""):
        super().__init__(message + (LOG_MARK + log if log else ""))

    def tell_starts(self, starts: int) -> None:
        """Notes how often Modal has begun the call, this time included."""
        if starts > 1:
            self.args = (f"{self}{STARTS_MARK}{starts}",)


class StartFailed(InfraError):
    """ComfyUI did not come up, or the call could not begin for another reason. Nothing of the prompt has run."""


class LedgerAway(InfraError):
    """The ledger of prompts did not answer. Nothing of the prompt has run, and its container is sound."""


class BackendLost(InfraError):
    """ComfyUI died or forgot the prompt, which may have run in part."""


class Stalled(InfraError):
    """The prompt showed no sign of life for its stall_timeout; ComfyUI has been killed and started anew."""


class UserError(Exception):
    """A fault of the call's arguments, answered as end=failed. `code` is one of comfy/code.go."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message
