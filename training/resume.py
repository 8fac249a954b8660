"""Where a run goes on: from the newest checkpoint of the same run in its folder, whatever the number of processes."""

from collections.abc import Callable

from training.saves import RunFolder, describe_difference
from twinquant.errors import UserError

PROCESSES = "processes"
"""The name in a fingerprint of the number of processes that the run was started with. It shapes the result through the
rows of a step and the learning rate, and both stay when the run goes on with another number."""


def find_resume_point(folder: RunFolder, fingerprint: Callable[[int], dict], processes: int = 1) -> tuple[int, int]:
    """The step to resume from, 0 for a fresh run, and the number of processes that the run was started with.

    Args:
        fingerprint: of this run, were it started with so many processes.
        processes: how many there are now.

    Raises:
        UserError: the folder holds checkpoints of another run.
    """
    resumable = [step for step in folder.steps() if folder.has_state(step)]
    if not resumable:
        if folder.steps():
            raise UserError(
                f"--output_dir {folder.folder} holds model.ckpt-{folder.steps()[-1]} without its training state, so "
                "this run cannot resume from it; choose another folder, or --overwrite_output_dir to start anew"
            )
        return 0, processes
    newest = resumable[-1]
    found = {PROCESSES: 1} | folder.fingerprint(newest)
    expected = fingerprint(found[PROCESSES])
    if found != expected:
        raise UserError(
            f"--output_dir {folder.folder} holds {folder.path(newest).name} of another run "
            f"({describe_difference(found, expected)}); choose another folder, or --overwrite_output_dir to start "
            "anew"
        )
    return newest, found[PROCESSES]


def describe_change(started_with: int, processes: int, global_batch: int) -> str:
    """What is the same and what is not when a run goes on with another number of processes."""
    return (
        f"the run was started with {started_with} process(es) and goes on with {processes}: every step still takes "
        f"{global_batch} rows, at the same learning rate; the processes' shares of them, and so the dropout and the "
        "last bits of sums, are others than in an unbroken run"
    )
