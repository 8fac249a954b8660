"""One optimizer step as a whole: loss, gradient, accumulation, dropout's seed, and what a bad loss leaves behind."""

from functools import cache

import numpy as np
import pytest
from numpy_bert import NumpyBert, ranges_of
from test_losses import expected_distillation_loss, expected_span_loss
from tiny_bert import make_backend, make_batch, pad_batch, tiny_config, tiny_tensors

from backends.base import DistillationSettings, OptimizerSettings, RuntimeSettings
from quantization.modes import get_mode
from quantization.ranges import select_ranges

CONFIG = tiny_config(num_hidden_layers=1, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
TENSORS = tiny_tensors(CONFIG)
LENGTHS = [9, 4, 6]  # as in test_losses.py
NO_DROPOUT = RuntimeSettings(dropout=False)
DROPOUT = RuntimeSettings()
BERT = OptimizerSettings()
PLAIN_STEP = OptimizerSettings(epsilon=1.0)  # w -= about 0.1 * learning rate * gradient
UNCLIPPED = OptimizerSettings(epsilon=1.0, max_grad_norm=1e9)


@cache
def build(name, runtime, distillation, optimizer):
    return make_backend(name, CONFIG, TENSORS, runtime=runtime, distillation=distillation, optimizer=optimizer)


def make(name, runtime=NO_DROPOUT, distillation=None, optimizer=BERT):
    """A backend as new. Those with equal settings are one and the same, since tracing a graph anew takes seconds."""
    backend = build(name, runtime, distillation, optimizer)
    backend.load(TENSORS)
    return backend


@pytest.fixture(scope="module", autouse=True)
def no_backends_left():
    yield
    build.cache_clear()


def batches(count, lengths=LENGTHS, padded=None):
    return [make_batch(CONFIG, lengths, padded, seed=seed, labels=True) for seed in range(count)]


def with_teacher(batch, seed=9):
    rng = np.random.default_rng(seed)
    shape = batch["input_ids"].shape
    logits = {f"teacher_{n}_logits": 3 * rng.standard_normal(shape).astype(np.float32) for n in ("start", "end")}
    return batch | logits


def snapshot(backend):
    return backend.tensors() | backend.optimizer_state()


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def largest_difference(found, expected):
    """As a share of the value where that is above 1."""
    shares = (np.abs(found[name] - array) / np.maximum(1, np.abs(array)) for name, array in expected.items())
    return max(float(share.max()) for share in shares)


def span(batch):
    return batch["start_positions"], batch["end_positions"]


def test_the_loss_is_that_of_the_prediction(backend_name):
    backend, (batch,) = make(backend_name), batches(1)
    expected = expected_span_loss(tuple(backend.predict(batch).values()), span(batch))
    assert backend.train_step([batch], 0.0, 0) == pytest.approx(expected, rel=1e-5)
    assert backend.train_step([pad_batch(batch, 16)], 0.0, 0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["tf", "pytorch"])
def test_distillation_adds_the_scaled_divergence(backend_name, loss):
    settings = DistillationSettings(loss, scale=70.0, sequence_length=12)
    backend, batch = make(backend_name, distillation=settings), with_teacher(batches(1)[0])
    logits = tuple(backend.predict(batch).values())
    teacher = (batch["teacher_start_logits"], batch["teacher_end_logits"])
    expected = expected_span_loss(logits, span(batch)) + 70.0 * expected_distillation_loss(logits, teacher, settings)
    assert backend.train_step([batch], 1e-3, 0) == pytest.approx(expected, rel=1e-5)
    for step in range(4):
        later = backend.train_step([batch], 1e-3, step)
    assert later < expected  # the gradient is that of the sum, so it falls


@pytest.mark.parametrize("distillation", [None, DistillationSettings("tf", scale=10.0)], ids=["span", "distillation"])
def test_both_backends_take_the_same_five_steps(both_backends, distillation):
    data = [with_teacher(batch) for batch in batches(5)]
    ends, losses = [], []
    for name in both_backends:
        backend = make(name, distillation=distillation)
        losses.append([backend.train_step([batch], 2e-4, step) for step, batch in enumerate(data)])
        ends.append(backend.tensors())
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert largest_difference(*ends) < 1e-5
    assert largest_difference(ends[0], TENSORS) > 1e-3


@pytest.mark.parametrize("mode_name", ["ft1", "ft3", "ort"])
def test_both_backends_take_the_same_quantized_step(both_backends, mode_name):
    """Half of every activation's range is clipped, so that gradients are cut off in many places."""
    mode, (batch,) = get_mode(mode_name), batches(1)
    reference = NumpyBert(CONFIG, TENSORS)
    reference(batch)
    ranges = select_ranges(ranges_of(reference.seen, mode, 1, share=0.5), TENSORS, mode, "test")
    ends = []
    for name in both_backends:
        backend = make_backend(name, CONFIG, TENSORS, runtime=NO_DROPOUT, optimizer=PLAIN_STEP)
        backend.set_quantization(mode, ranges)
        backend.train_step([batch], 1.0, 0)
        ends.append(backend.tensors())
    assert largest_difference(*ends) < 1e-5
    floating = make(both_backends[0], optimizer=PLAIN_STEP)
    floating.train_step([batch], 1.0, 0)
    assert largest_difference(floating.tensors(), ends[0]) > 1e-3


@pytest.mark.parametrize(("optimizer", "rate"), [(BERT, 2e-4), (UNCLIPPED, 1e-2)], ids=["clipped", "not-clipped"])
def test_two_micro_batches_equal_one_batch_of_the_double_size(backend_name, optimizer, rate):
    """Not clipped, so that a sum in place of the mean shows."""
    data = make_batch(CONFIG, LENGTHS + [9, 5, 2], labels=True)
    halves = [{name: array[rows] for name, array in data.items()} for rows in (slice(0, 3), slice(3, 6))]
    ends, losses = [], []
    for parts in ([data], halves):
        backend = make(backend_name, optimizer=optimizer)
        losses.append([backend.train_step(parts, rate, step) for step in range(2)])
        ends.append(backend.tensors())
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert largest_difference(*ends) < 1e-6
    assert largest_difference(ends[0], TENSORS) > 2e-4


@pytest.mark.parametrize("bad", ["teacher-logit", "weight"])
def test_a_loss_that_is_not_finite_changes_nothing(backend_name, bad):
    backend = make(backend_name, distillation=DistillationSettings("tf", scale=1.0))
    good = with_teacher(batches(1)[0])
    backend.train_step([good], 1e-3, 0)
    before = snapshot(backend)
    broken = dict(good)
    if bad == "teacher-logit":
        broken["teacher_start_logits"] = good["teacher_start_logits"].copy()
        broken["teacher_start_logits"][1, 2] = np.nan
    else:
        tensors = backend.tensors()
        tensors["cls/squad/output_bias"][0] = np.inf
        state = backend.optimizer_state()
        backend.load(tensors)
        backend.load_optimizer_state(state)
        before = snapshot(backend)
    assert not np.isfinite(backend.train_step([broken], 1e-3, 1))
    assert_equal(snapshot(backend), before)
    if bad == "teacher-logit":
        # As if it had never been: the next step equals that of a run without it.
        backend.train_step([good], 1e-3, 2)
        after = snapshot(backend)
        backend.load(TENSORS)
        for step in (0, 2):
            backend.train_step([good], 1e-3, step)
        assert_equal(after, snapshot(backend))


def test_dropout_depends_on_the_steps_seed_alone(backend_name):
    (batch,) = batches(1)
    runs = []
    for seed in (1, 1, 2):
        backend = make(backend_name, DROPOUT)
        losses = [backend.train_step([batch], 1e-3, seed), backend.train_step([batch], 1e-3, seed + 10)]
        runs.append((losses, snapshot(backend)))
    assert runs[0][0] == runs[1][0]
    assert_equal(runs[0][1], runs[1][1])
    assert runs[0][0][0] != runs[2][0][0]
    assert largest_difference(runs[0][1], runs[2][1]) > 0


def test_micro_batches_of_a_step_have_masks_of_their_own(backend_name):
    (batch,) = batches(1)
    once = make(backend_name, DROPOUT).train_step([batch], 0.0, 1)
    twice = make(backend_name, DROPOUT).train_step([batch, batch], 0.0, 1)
    assert once != twice


def test_dropout_is_off_in_prediction(backend_name):
    (batch,) = batches(1)
    backend, without = make(backend_name, DROPOUT), make(backend_name)
    expected = without.predict(batch)
    assert_equal(backend.predict(batch), expected)
    assert backend.train_step([batch], 0.0, 3) != without.train_step([batch], 0.0, 3)
    assert_equal(backend.predict(batch), expected)  # nor did training switch it on


def test_dropout_zeroes_its_share_and_keeps_the_mean(backend_name):
    """Each of the model's dropouts has a mask of its own."""
    settings = make(backend_name, DROPOUT).settings
    settings.training = True
    if backend_name == "pytorch":
        import torch

        torch.manual_seed(0)
        ones = torch.ones(200, 200)
    else:
        import tensorflow as tf

        settings.seed, ones = tf.constant([4, 0]), tf.ones((200, 200))
    first, second = (settings.dropout(ones, 0.25).numpy() for _ in range(2))
    assert abs((first == 0).mean() - 0.25) < 0.01
    np.testing.assert_allclose(first[first != 0], 1 / 0.75, rtol=1e-6)
    assert 0.3 < ((first == 0) != (second == 0)).mean() < 0.45  # 2 * 0.25 * 0.75 where independent


def test_state_and_weights_carry_a_run_on_exactly(backend_name):
    data = batches(4)
    whole = make(backend_name, DROPOUT)
    for step, batch in enumerate(data):
        whole.train_step([batch], 1e-3, step)
        if step == 1:
            tensors, state = whole.tensors(), whole.optimizer_state()
    expected = snapshot(whole)
    resumed = make(backend_name, DROPOUT)
    resumed.load(tensors)
    resumed.load_optimizer_state(state)
    for step in (2, 3):
        resumed.train_step([data[step]], 1e-3, step)
    assert_equal(snapshot(resumed), expected)


def test_loading_weights_forgets_the_optimizer(backend_name):
    (batch,) = batches(1)
    backend, ends = make(backend_name), []
    for _ in range(2):
        backend.load(TENSORS)
        backend.train_step([batch], 1e-3, 0)
        ends.append(snapshot(backend))
    assert_equal(*ends)


def test_the_average_over_processes_is_taken_before_clipping(backend_name):
    """The hook gets every gradient in the order of the parameters; what it returns is what is applied."""
    seen = []
    backend, (batch,) = make(backend_name), batches(1)

    def nothing(gradients):
        seen.extend(tuple(gradient.shape) for gradient in gradients)
        return [gradient * 0.0 for gradient in gradients]

    backend.sum_gradients = nothing
    try:
        backend.train_step([batch], 1.0, 0)
    finally:
        backend.sum_gradients = None
    own = [a.shape[::-1] if backend_name == "pytorch" and n.endswith("kernel") else a.shape for n, a in TENSORS.items()]
    assert seen == own
    for name, array in backend.optimizer_state().items():
        if "adam" in name:
            np.testing.assert_array_equal(array, 0, err_msg=name)
