"""The training loop: broken off and resumed it ends with the same bits, and it stops when it must."""

import hashlib
import logging
import os
import re
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from tiny_bert import ToyFeatures, activation_scopes, make_backend, tiny_config, tiny_tensors

from backends.base import DistillationSettings, RuntimeSettings
from backends.loss_scale import LossScale
from checkpoints.checkpoint import Checkpoint
from checkpoints.names import QUESTION_ANSWERING
from quantization.calibration import weight_amax
from quantization.modes import get_mode
from quantization.ranges import select_ranges
from training.initialization import complete_tensors
from training.interruption import Interrupted
from training.loop import LoopSettings, TrainingLoop
from training.resume import DEVICE, find_resume_point
from training.saves import RunFolder, TrainingState
from training.schedule import LearningRateSchedule
from twinquant.errors import UserError

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
    seed=3,
    save_steps=2,
    steps_per_epoch=0,
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


def stop_at(step):
    def on_step(number):
        if number == step:
            raise Stop

    return on_step


def signal_at(step, number=signal.SIGTERM):
    def on_step(count):
        if count == step:
            signal.raise_signal(number)

    return on_step


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_run_broken_off_ends_with_the_same_bits(backend_name, tmp_path):
    """QAT with dropout and two micro batches; broken off once by an error between two saves, then by SIGTERM."""
    unbroken = Runner(backend_name, tmp_path / "unbroken").start()
    assert any((array != TENSORS[name]).any() for name, array in unbroken.tensors().items())
    runner = Runner(backend_name, tmp_path / "broken")
    with pytest.raises(Stop):
        runner.start(stop_at(3))
    assert runner.folder.steps() == [2]
    with pytest.raises(Interrupted) as caught:
        runner.start(signal_at(2))  # the third step from step 2 on
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert f"saved {runner.folder.path(5)} after step 5 of 7" in str(caught.value)
    assert runner.folder.steps() == [4, 5]
    resumed = runner.start()
    assert_equal(resumed.tensors(), unbroken.tensors())
    assert_equal(resumed.optimizer_state(), unbroken.optimizer_state())
    assert len(runner.losses) == 2
    for folder in (runner.folder, RunFolder(tmp_path / "unbroken", backend_name, 2)):
        assert_equal(folder.load(7)[0].tensors, unbroken.tensors())
    assert find_resume_point(runner.folder, lambda processes: FINGERPRINT) == (7, 1)


def test_checkpoints_are_saved_when_due(tmp_path):
    backend = Recorder()
    folder = RunFolder(tmp_path, "pytorch", keep=99)
    loop(backend, folder, replace(SETTINGS, steps_per_epoch=5)).run()
    assert folder.steps() == [2, 4, 5, 6, 7]


class Recorder:
    """A backend that learns nothing and remembers what it was given; losses are given by step."""

    compiles_training = False

    def __init__(self, losses=None) -> None:
        self.losses, self.calls, self.loss_scale = losses or {}, [], LossScale.create(half=False, fixed=0.0)

    def train_step(self, batches, learning_rate, seed, shares):
        self.calls.append((batches, learning_rate, seed))
        return self.losses.get(len(self.calls) - 1, 1.0)

    def tensors(self):
        return dict(TENSORS)

    def optimizer_state(self):
        return {"loss_scale": np.zeros(2)}


def loop(backend, folder, settings=SETTINGS, teacher=None):
    schedule = LearningRateSchedule(1e-3, settings.total_steps, 1)
    return TrainingLoop(
        backend, FEATURES, schedule, folder, settings, lambda: Checkpoint(backend.tensors(), {}, CONFIG, "x"), teacher
    )


def test_steps_that_float16_skips_are_told_with_the_loss(tmp_path, caplog):
    """A skipped step has a finite loss and changes nothing; in the log it looked like any other."""
    backend = Recorder()
    backend.loss_scale = LossScale.create(half=True, fixed=0.0)
    Runner.watch(backend, lambda step: backend.loss_scale.update(finite=step not in (2, 4)))
    with caplog.at_level("INFO", "twinquant"):
        loop(backend, RunFolder(tmp_path, "pytorch", 2)).run()
    lines = [line for line in caplog.messages if "loss" in line]
    assert ["skipped" in line for line in lines] == [False] * 2 + [True] * 5
    assert lines[-1].endswith(", 2 steps skipped: gradients overflowed in float16")


def test_every_step_gets_its_rows_rate_and_seed(tmp_path):
    backend = Recorder()
    loop(backend, RunFolder(tmp_path, "pytorch", 1)).run()
    schedule = LearningRateSchedule(1e-3, 7, 1)
    assert [rate for _, rate, _ in backend.calls] == [schedule(step) for step in range(7)]
    assert len({seed for *_, seed in backend.calls}) == 7
    assert all(len(batches) == 2 for batches, *_ in backend.calls)
    rows = np.concatenate([batch["input_ids"] for batches, *_ in backend.calls for batch in batches])
    assert rows.shape == (42, 24)
    known = [tuple(row) for row in np.pad(FEATURES.data["input_ids"], ((0, 0), (0, 4)))]
    counts = [sum(tuple(row) == each for row in rows[:39]) for each in known]
    assert counts == [3] * 13  # three whole epochs of 13 rows
    # A resumed run goes on with the rest.
    resumed = Recorder()
    loop(resumed, RunFolder(tmp_path, "pytorch", 1)).run(first_step=5)
    assert [call[1:] for call in resumed.calls] == [call[1:] for call in backend.calls[5:]]
    for (found, *_), (expected, *_) in zip(resumed.calls, backend.calls[5:], strict=True):
        for first, second in zip(found, expected, strict=True):
            assert_equal(first, second)


def test_batches_are_padded_to_their_own_rows(tmp_path):
    backend = Recorder()
    loop(backend, RunFolder(tmp_path, "pytorch", 1), replace(SETTINGS, pad_to_max_length=False)).run()
    widths = {batch["input_ids"].shape[1] for batches, *_ in backend.calls for batch in batches}
    assert widths <= {8, 16, 24} and len(widths) > 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("step", "good"), [(1, "nothing was saved yet"), (5, "the last good checkpoint is .*ckpt-4")])
def test_a_bad_loss_ends_the_run_with_the_last_good_checkpoint(tmp_path, bad, step, good):
    folder = RunFolder(tmp_path, "pytorch", 2)
    with pytest.raises(UserError, match=rf"not finite \({bad}\) at step {step + 1}; {good}.*lower --learning_rate"):
        loop(Recorder({step: bad}), folder).run()
    assert folder.steps() == ([2, 4] if step == 5 else [])


def test_weights_that_overflowed_are_not_saved(tmp_path):
    backend = Recorder()
    backend.tensors = lambda: TENSORS | {"cls/squad/output_bias": np.float32([np.inf, 0])}
    with pytest.raises(UserError, match="cls/squad/output_bias is not finite after step 2"):
        loop(backend, RunFolder(tmp_path, "pytorch", 2)).run()
    assert RunFolder(tmp_path, "pytorch", 2).steps() == []


def test_the_teachers_logits_come_with_every_batch(both_backends, tmp_path):
    """The teacher may be of the other framework; it sees no labels."""
    teacher = make_backend(both_backends[0], CONFIG, tiny_tensors(CONFIG, seed=5))
    backend = Recorder()
    loop(backend, RunFolder(tmp_path, "pytorch", 2), replace(SETTINGS, total_steps=1), teacher).run()
    for batch in backend.calls[0][0]:
        expected = teacher.predict({name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")})
        for name, logits in expected.items():
            np.testing.assert_allclose(batch[f"teacher_{name}"], logits, rtol=1e-5, atol=1e-5)
    student = Runner(both_backends[1], tmp_path / "student", distilled=True)
    student.start(settings=replace(SETTINGS, total_steps=2), teacher=teacher)
    assert all(np.isfinite(loss) for loss in student.losses.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_save_and_leave(tmp_path, number):
    before = signal.getsignal(number)
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, signal_at(2, number))
    with pytest.raises(Interrupted, match=f"{number.name} received: saved .*ckpt-3 after step 3 of 7"):
        loop(backend, folder).run()
    assert folder.steps() == [2, 3]
    assert signal.getsignal(number) is before


@pytest.fixture
def usual_interrupt():
    """Ctrl-C as on a terminal; a process that a shell started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_at_once(tmp_path, usual_interrupt):
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, lambda step: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        loop(backend, folder).run()
    assert backend.calls == [] and folder.steps() == []


def during_one_long_call(*numbers):
    """Sends the signals, a tenth of a second apart, while no Python handler can run; returns when that began and ended.

    It takes a second or so, and like a framework's product it frees the GIL.
    """
    senders = [threading.Timer(0.1 * i, os.kill, (os.getpid(), number)) for i, number in enumerate(numbers, 1)]
    begin = time.time()
    for sender in senders:
        sender.start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_500_000)
    return begin, time.time()


def test_a_signal_is_acknowledged_when_it_comes(tmp_path, caplog):
    times = []
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, lambda step: times.extend(during_one_long_call(signal.SIGTERM)) if step == 2 else None)
    with caplog.at_level(logging.INFO, "twinquant"), pytest.raises(Interrupted):
        loop(backend, folder).run()
    told = [record for record in caplog.records if "SIGTERM" in record.message]
    assert [record.message for record in told] == ["SIGTERM: finishing this step and saving; again stops at once"]
    assert told[0].created < sum(times) / 2, "told after the call that was interrupted"
    assert folder.steps() == [2, 3]


def test_two_signals_in_one_long_call_are_two(tmp_path, usual_interrupt):
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, lambda step: during_one_long_call(signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        loop(backend, folder).run()
    assert backend.calls == [] and folder.steps() == []


@pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "not compiled"])
def test_the_log_tells_a_slow_start_and_the_speed_without_it(tmp_path, caplog, compiles):
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    backend.compiles_training = compiles
    with caplog.at_level(logging.INFO, "twinquant"):
        loop(backend, folder, replace(SETTINGS, total_steps=3)).run()
        loop(backend, folder, replace(SETTINGS, total_steps=3)).run(first_step=3)  # nothing is left to do
    assert [message for message in caplog.messages if "compiling" in message] == ["compiling the first step"] * compiles
    assert [message for message in caplog.messages if "trained" in message] == [caplog.messages[-1]]
    assert re.fullmatch(r"trained 3 steps in \d+\.\d s; [\d.]+ steps/s without the first step", caplog.messages[-1])


def test_resume_points(tmp_path):
    folder = RunFolder(tmp_path, "pytorch", 2)

    def find(folder=folder, processes=1, seed=3):
        return find_resume_point(folder, lambda started_with: {"seed": seed, "processes": started_with}, processes)

    assert find() == (0, 1) and find(processes=4) == (0, 4)
    loop(Recorder(), folder).run()
    assert find() == (7, 1)
    assert find(processes=4) == (7, 1)  # the number it was started with, which its steps go on with
    with pytest.raises(UserError, match=r"holds model.ckpt-7 of another run \(seed: 3 there, 4 here\)"):
        find(seed=4)
    folder.save(9, Checkpoint(dict(TENSORS), {}, CONFIG, "x"))  # without a state: not of a training run
    assert find() == (7, 1)
    # What earlier versions did not tell; and where it was computed, which may change.
    more = {"loss_scale": 128.0, "scale_learning_rate": True}
    assert find_resume_point(folder, lambda started_with: {"seed": 3, "processes": 1} | more) == (7, 1)
    folder.save(
        10,
        Checkpoint(dict(TENSORS), {}, CONFIG, "x"),
        TrainingState(10, {"seed": 3} | more | {DEVICE: "cpu, float32"}, {}),
    )
    assert find_resume_point(folder, lambda started_with: {"seed": 3, "processes": 1} | more) == (10, 1)
    with pytest.raises(UserError, match=r"another run \(loss_scale: 128.0 there, 64.0 here\)"):
        find_resume_point(folder, lambda started_with: {"seed": 3, "processes": 1} | more | {"loss_scale": 64.0})
    other = RunFolder(tmp_path / "other", "pytorch", 2)
    (tmp_path / "other").mkdir()
    other.save(9, Checkpoint(dict(TENSORS), {}, CONFIG, "x"))
    with pytest.raises(UserError, match="holds model.ckpt-9 without its training state"):
        find(other)


def test_evaluation_every_few_steps_and_after_the_last(backend_name, tmp_path):
    seen = []
    Runner(backend_name, tmp_path / "run").start(settings=replace(SETTINGS, evaluate_steps=3), evaluate=seen.append)
    assert seen == [3, 6, 7]
