"""Saves checkpoints in processes that are killed, each a little later than the last: the tool of test_kill_points.

    python killed_saves.py <folder> <backend>

The run number n works in <folder>/<n> and dies by SIGKILL just before its n-th operation there that creates, renames or
removes something. The last one comes to its end. In a process of its own, without a framework, so that it can fork.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from checkpoints.config import BertConfig  # noqa: E402
from checkpoints.names import QUESTION_ANSWERING, expected_tensors  # noqa: E402
from checkpoints.value import Checkpoint  # noqa: E402
from training.saves import RunFolder, TrainingState  # noqa: E402

STEPS = (2, 4)
KEEP = 1
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "ctypes.call_function")
CONFIG = BertConfig(
    vocab_size=8,
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=4,
    max_position_embeddings=4,
)


def checkpoint_at(step: int) -> Checkpoint:
    """A model whose every number is the step."""
    shapes = expected_tensors(CONFIG, QUESTION_ANSWERING)
    return Checkpoint({name: np.full(shape, step, np.float32) for name, shape in shapes.items()}, config=CONFIG)


def state_at(step: int) -> TrainingState:
    return TrainingState(step, {"seed": 42}, {"adam_m": np.full(3, step, np.float32)})


def save_all(folder: Path, backend: str) -> None:
    """What a run does: calibrate, then save every few steps; `progress` records what it was told is saved."""
    saves = RunFolder(folder, backend, KEEP)
    saves.save("calibrated", checkpoint_at(0))
    for step in STEPS:
        saves.save(step, checkpoint_at(step), state_at(step))
        os.close(os.open(folder.parent / f"{folder.name}.saved-{step}", os.O_CREAT | os.O_WRONLY))


def _die_before_operation(number: int, folder: Path) -> None:
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in OPERATIONS or not any(str(folder) + os.sep in str(argument) for argument in arguments):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    os.fsync = lambda descriptor: None  # a kill, unlike a loss of power, loses nothing that was written
    root, backend = Path(sys.argv[1]), sys.argv[2]
    number, killed = 0, True
    while killed:
        number += 1
        folder = root / str(number)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            _die_before_operation(number, folder)
            save_all(folder, backend)
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
