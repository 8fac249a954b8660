"""Training loops over a tiny BERT, and over a backend that only remembers what it was given."""

import signal

import numpy as np
from tiny_bert import ToyFeatures, activation_scopes, make_backend, tiny_config, tiny_tensors

from backends.base import DistillationSettings, RuntimeSettings
from backends.loss_scale import LossScale
from checkpoints.checkpoint import Checkpoint
from checkpoints.names import QUESTION_ANSWERING
from quantization.calibration import weight_amax
from quantization.modes import get_mode
from quantization.ranges import select_ranges
from training.initialization import complete_tensors
from training.loop import LoopSettings, TrainingLoop
from training.resume import find_resume_point
from training.saves import RunFolder
from training.schedule import LearningRateSchedule

CONFIG = tiny_config(num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=24)
TENSORS = tiny_tensors(CONFIG)
FEATURES = ToyFeatures(CONFIG, 13)
MODE = get_mode("ft2")
FINGERPRINT = {"seed": 3, "processes": 1}
SETTINGS = LoopSettings(
    total_steps=7,
    batch_size=3,
    global_batch=6,
    max_seq_length=24,
    pad_to_max_length=True,  # one length: TensorFlow traces its graph once
    group_by_length=False,
    seed=3,
    save_steps=2,
    epoch_rows=30,
    save_per_epoch=False,
    evaluate_per_epoch=False,
    log_steps=1,
    fingerprint=FINGERPRINT,
)


def calibrated() -> dict[str, np.ndarray]:
    ranges = {scope: np.float32(3) for scope in activation_scopes(1)}
    kernels = {name: array for name, array in TENSORS.items() if name.endswith("/kernel")}
    return ranges | {f"{name}_quantizer": weight_amax(array, MODE.per_channel) for name, array in kernels.items()}


class Stop(Exception):
    """What a test raises to break a run off."""


class Runner:
    """Starts a loop over a folder as a script would: from the newest checkpoint there, or from TENSORS."""

    def __init__(self, backend_name, folder, distilled=False) -> None:
        folder.mkdir()
        self.name = backend_name
        self.folder = RunFolder(folder, backend_name, keep=2)
        self.distillation = DistillationSettings(scale=5.0, sequence_length=24) if distilled else None

    def start(self, on_step=None, settings=SETTINGS, teacher=None, evaluate=None):
        """Returns the backend as the loop left it. `on_step(step)` is called before every train_step."""
        first, _ = find_resume_point(self.folder, lambda processes: FINGERPRINT)
        checkpoint, state = Checkpoint(TENSORS, calibrated(), CONFIG, "start"), None
        if first:
            checkpoint, state = self.folder.load(first)
        tensors = complete_tensors(checkpoint, CONFIG, QUESTION_ANSWERING, 0, new_head_allowed=False)
        backend = make_backend(self.name, CONFIG, tensors, runtime=RuntimeSettings(), distillation=self.distillation)
        if state is not None:
            backend.load_optimizer_state(state.optimizer)
        backend.set_quantization(MODE, select_ranges(checkpoint.ranges, tensors, MODE, checkpoint.source))
        if on_step is not None:
            self.watch(backend, on_step)
        self.losses, train_step = {}, backend.train_step

        def remembering(batches, learning_rate, seed, shares):
            loss = train_step(batches, learning_rate, seed, shares)
            self.losses[seed] = loss
            return loss

        backend.train_step = remembering
        loop = TrainingLoop(
            backend,
            FEATURES,
            LearningRateSchedule(1e-3, settings.total_steps, 1),
            self.folder,
            settings,
            lambda: Checkpoint(backend.tensors(), checkpoint.ranges, CONFIG, "start"),
            teacher,
            evaluate,
        )
        assert loop.run(first) == settings.total_steps
        return backend

    @staticmethod
    def watch(backend, on_step):
        train_step, count = backend.train_step, iter(range(1000))

        def watched(*arguments):
            on_step(next(count))
            return train_step(*arguments)

        backend.train_step = watched


def signal_at(step, number=signal.SIGTERM):
    def on_step(count):
        if count == step:
            signal.raise_signal(number)

    return on_step


class Recorder:
    """A backend that learns nothing and remembers what it was given; losses are given by step."""

    compiles_training = False
    length_multiple = 8

    def __init__(self, losses=None) -> None:
        self.losses, self.calls, self.loss_scale = losses or {}, [], LossScale.create(half=False, fixed=0.0)

    def train_step(self, batches, learning_rate, seed, shares):
        self.calls.append((batches, learning_rate, seed))
        return self.losses.get(len(self.calls) - 1, 1.0)

    def tensors(self):
        return dict(TENSORS)

    def optimizer_state(self):
        return {"loss_scale": np.zeros(2)}


def loop(backend, folder, settings=SETTINGS, teacher=None, features=FEATURES):
    schedule = LearningRateSchedule(1e-3, settings.total_steps, 1)
    return TrainingLoop(
        backend, features, schedule, folder, settings, lambda: Checkpoint(backend.tensors(), {}, CONFIG, "x"), teacher
    )
