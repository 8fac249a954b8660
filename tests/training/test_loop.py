"""The training loop: broken off and resumed it ends with the same bits, and it stops when it must."""

import logging
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from tiny_bert import ToyFeatures, make_backend, tiny_tensors
from toy_loops import CONFIG, FEATURES, FINGERPRINT, SETTINGS, TENSORS, Recorder, Runner, Stop, loop, signal_at

from backends.loss_scale import LossScale
from checkpoints.checkpoint import Checkpoint
from training.interruption import Interrupted
from training.resume import DEVICE, find_resume_point
from training.saves import RunFolder, TrainingState
from training.schedule import LearningRateSchedule
from twinquant.errors import UserError


def stop_at(step):
    def on_step(number):
        if number == step:
            raise Stop

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
    loop(backend, folder, replace(SETTINGS, save_per_epoch=True)).run()
    assert folder.steps() == [2, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"evaluate_per_epoch": True}, [2, 3, 5, 6, 7], id="epochs"),
        pytest.param({"evaluate_steps": 3}, [3, 6, 7], id="steps"),
        pytest.param({}, [], id="none"),
    ],
)
def test_evaluations_are_at_the_ends_of_epochs(tmp_path, settings, expected):
    """An epoch of 9 rows, 6 a step, ends within steps 2, 3, 5, 6; the last step is always evaluated."""
    steps = []
    training = loop(Recorder(), RunFolder(tmp_path, "pytorch", 2), replace(SETTINGS, epoch_rows=9, **settings))
    training.evaluate = steps.append
    training.run()
    assert steps == expected


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


def test_batches_of_like_length_hold_less_padding(tmp_path):
    """Every row once per epoch all the same, and a resumed run goes on with the rest."""
    features = ToyFeatures(CONFIG, 64)
    settings = replace(SETTINGS, batch_size=2, global_batch=2, total_steps=64, pad_to_max_length=False, save_steps=64)
    cells = {}
    for grouped in (False, True):
        backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 1)
        loop(backend, folder, replace(settings, group_by_length=grouped), features=features).run()
        batches = [batch for parts, *_ in backend.calls for batch in parts]
        cells[grouped] = sum(batch["input_ids"].size for batch in batches)
        assert sum(int(batch["input_mask"].sum()) for batch in batches) == 2 * features.lengths.sum()
    assert cells[True] < 0.9 * cells[False]
    resumed = Recorder()
    loop(resumed, folder, replace(settings, group_by_length=True), features=features).run(first_step=40)
    for (found, *_), (expected, *_) in zip(resumed.calls, backend.calls[40:], strict=True):
        assert_equal(found[0], expected[0])


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
    # A run of the time before rows could be grouped had them drawn.
    drawn, grouped = more | {"group_by_length": False}, more | {"group_by_length": True}
    assert find_resume_point(folder, lambda started_with: {"seed": 3, "processes": 1} | drawn) == (10, 1)
    with pytest.raises(UserError, match=r"another run \(group_by_length: False there, True here\)"):
        find_resume_point(folder, lambda started_with: {"seed": 3, "processes": 1} | grouped)
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
