"""Training in q8bert mode: its averages and losses against NumPy, the delayed start, exact resume, both backends."""

from dataclasses import replace

import numpy as np
import pytest
from numpy_q8bert import CONFIG, HEADS, clear_batches, head_tensors, labeled_batch
from scipy.special import log_softmax
from tiny_bert import make_backend

from backends.base import OptimizerSettings, RuntimeSettings
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from quantization.modes import OUTER_ROWS, all_quantizers, q8bert_mode

NO_DROPOUT = RuntimeSettings(dropout=False)
DECAY = 0.75  # moves far in a few steps
INPUT = "bert/encoder/layer_0/attention/self/query/input_quantizer"


def mode(start_step=0, head_start=0, decay=DECAY):
    """q8bert, with a head that starts within the few steps of a test."""
    starts = tuple((row.scope, head_start) for row in OUTER_ROWS if "output_" in row.scope)
    return replace(q8bert_mode(start_step, decay), own_starts=starts)


def make(name, head=CLASSIFICATION, quantized=None, ranges=None, step=0, tensors=None, **keywords):
    keywords = {"runtime": NO_DROPOUT, "optimizer": OptimizerSettings(epsilon=1e-3)} | keywords
    tensors = head_tensors(head) if tensors is None else tensors
    backend = make_backend(name, CONFIG, tensors, head=head, num_labels=HEADS[head], **keywords)
    if quantized is not None:
        backend.set_quantization(quantized, ranges or {}, step)
    return backend


def snapshot(backend):
    return backend.tensors() | backend.optimizer_state() | backend.ranges()


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def head_of_ranges(scopes):
    return [scope for scope in scopes if "output_input" in scope]


def expected_loss(logits, batch):
    if "labels" in batch:
        return -log_softmax(logits["logits"], -1)[np.arange(len(batch["labels"])), batch["labels"]].mean()
    losses = []
    for end in ("start", "end"):
        real = np.where(batch["input_mask"] == 1, logits[f"{end}_logits"], -np.inf)
        losses.append(-log_softmax(real, -1)[np.arange(len(real)), batch[f"{end}_positions"]].mean())
    return sum(losses) / 2


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_losses_and_ranges_follow_the_numpy_reference(backend_name, head):
    """Four micro batches in three steps: each moves the averages, in order, and is quantized with what it moved to."""
    batches, results = clear_batches(head, 4, DECAY)
    backend = make(backend_name, head, mode())
    losses = [expected_loss(logits, batch) for batch, (_, logits) in zip(batches, results, strict=True)]
    for number, (micro_batches, seen) in enumerate([(batches[:1], 1), (batches[1:3], 3), (batches[3:], 4)]):
        loss = backend.train_step(micro_batches, 0.0, number)  # the weights stay
        assert loss == pytest.approx(np.mean(losses[seen - len(micro_batches) : seen]), rel=1e-4)
        expected = results[seen - 1][0]
        found = backend.ranges()
        assert found.keys() == expected.keys()
        for scope, amax in found.items():
            assert amax.dtype == np.float32 and amax.shape == ()
            assert float(amax) == pytest.approx(expected[scope], rel=2e-5), scope


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_before_its_start_training_is_float(backend_name, head):
    data = [labeled_batch(head, seed) for seed in range(4)]
    floating, delayed = make(backend_name, head), make(backend_name, head, mode(start_step=2))
    for step in range(2):
        assert delayed.train_step([data[step]], 1e-3, step) == floating.train_step([data[step]], 1e-3, step)
    assert_equal(delayed.tensors(), floating.tensors())
    # Two runs that differ before the start only: the first quantized step begins the averages.
    other = make(backend_name, head, mode(), tensors=floating.tensors())
    other.load_optimizer_state(floating.optimizer_state())
    assert delayed.train_step([data[2]], 1e-3, 2) == other.train_step([data[2]], 1e-3, 2)
    assert floating.train_step([data[2]], 1e-3, 2) != delayed.train_step([data[3]], 1e-3, 3)
    other.train_step([data[3]], 1e-3, 3)
    assert_equal(snapshot(delayed), snapshot(other))


@pytest.mark.usefixtures("without_graphs")
def test_the_head_starts_later_but_has_a_range_before(backend_name):
    data = [labeled_batch(CLASSIFICATION, seed) for seed in range(3)]
    quantized, waiting = make(backend_name, quantized=mode()), make(backend_name, quantized=mode(head_start=2))
    first, second = quantized.train_step([data[0]], 0.0, 0), waiting.train_step([data[0]], 0.0, 0)
    assert first != second  # the head's product is a float one
    assert_equal(waiting.ranges(), quantized.ranges())
    assert_equal(waiting.predict(data[0]), quantized.predict(data[0]))  # which is quantized throughout
    (scope,) = head_of_ranges(waiting.ranges())
    seen, average = [], waiting.quantization.averages[scope]
    average.move = lambda largest, move=average.move: (seen.append(float(largest)), move(largest))
    for step in (1, 2):  # looking on, and the first quantized step: neither keeps anything of what went before
        waiting.train_step([data[step]], 0.0, step)
        quantized.train_step([data[step]], 0.0, step)
        assert len(seen) == step and waiting.ranges()[scope] == np.float32(seen[-1])
    waiting.train_step([data[0]], 0.0, 3)
    assert waiting.ranges()[scope] == pytest.approx(DECAY * seen[1] + (1 - DECAY) * seen[2], rel=1e-6)
    assert waiting.ranges()[scope] != quantized.ranges()[scope]


@pytest.mark.usefixtures("without_graphs")
def test_weights_are_quantized_anew_as_they_change(backend_name):
    """Training and prediction see the current weights, not those that the quantization was switched on with."""
    batch = labeled_batch(CLASSIFICATION)
    backend = make(backend_name, quantized=mode())
    for step in range(3):
        backend.train_step([batch], 3e-2, step)
    moved = backend.tensors()
    for name in ("bert/embeddings/word_embeddings", "bert/encoder/layer_0/output/dense/kernel", "output_weights"):
        assert np.abs(moved[name]).max() != np.abs(head_tensors(CLASSIFICATION)[name]).max()
    fresh = make(backend_name, quantized=mode(), ranges=backend.ranges(), step=3, tensors=moved)
    fresh.load_optimizer_state(backend.optimizer_state())
    assert_equal(fresh.predict(batch), backend.predict(batch))
    assert fresh.train_step([batch], 3e-2, 3) == backend.train_step([batch], 3e-2, 3)


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_embeddings_learn_through_their_quantizer(backend_name, head):
    """The gradient of a row is that of its fake-quantized value: rows that occur move, those that do not stay."""
    batch = labeled_batch(head)
    plain = OptimizerSettings(epsilon=1e6, weight_decay=0.0, max_grad_norm=1e9)  # an update in the gradient's direction
    backend = make(backend_name, head, mode(), optimizer=plain)
    before = backend.tensors()
    backend.train_step([batch], 1e5, 0)
    after = backend.tensors()
    words, positions = "bert/embeddings/word_embeddings", "bert/embeddings/position_embeddings"
    moved = (after[words] != before[words]).any(1)
    assert moved[np.unique(batch["input_ids"][batch["input_mask"] == 1])].all()
    assert not moved[np.setdiff1d(np.arange(len(moved)), batch["input_ids"])].any()
    np.testing.assert_array_equal((after[positions] != before[positions]).any(1), np.arange(64) < 5)
    # Where a token stands once, its row and its position's get the same gradient: both quantizers pass it on whole.
    ids, counts = np.unique(batch["input_ids"], return_counts=True)
    row, position = next((r, p) for r, p in np.argwhere(batch["input_mask"]) if p > 2)
    assert counts[ids == batch["input_ids"][row, position]] == 1
    token = batch["input_ids"][row, position]
    changes = after[words][token] - before[words][token], after[positions][position] - before[positions][position]
    np.testing.assert_allclose(*changes, rtol=1e-2, atol=1e-6)


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("broken_off", [1, 2, 4])
def test_a_resumed_run_equals_an_unbroken_one(backend_name, head, broken_off):
    """Broken off before the encoder's start, before the head's, and after both; with dropout and micro batches."""
    data = [[labeled_batch(head, 2 * step + part) for part in range(2)] for step in range(5)]
    quantized, runtime = mode(start_step=2, head_start=3), RuntimeSettings()
    whole, losses = make(backend_name, head, quantized, runtime=runtime), []
    for step, batches in enumerate(data):
        losses.append(whole.train_step(batches, 1e-2, step))
        if step + 1 == broken_off:
            saved = whole.tensors(), whole.optimizer_state(), whole.ranges()
    tensors, state, ranges = saved
    resumed = make(backend_name, head, quantized, ranges, broken_off, tensors, runtime=runtime)
    resumed.load_optimizer_state(state)
    assert_equal(resumed.ranges(), ranges)
    for step in range(broken_off, 5):
        assert resumed.train_step(data[step], 1e-2, step) == losses[step]
    assert_equal(snapshot(resumed), snapshot(whole))


@pytest.mark.usefixtures("without_graphs")
def test_predictions_in_between_change_nothing(backend_name):
    data, ends = [labeled_batch(CLASSIFICATION, seed) for seed in range(3)], []
    for evaluated in (False, True):
        backend = make(backend_name, quantized=mode(head_start=1))
        for step, batch in enumerate(data):
            backend.train_step([batch], 1e-2, step)
            if evaluated:
                backend.predict(labeled_batch(CLASSIFICATION, 9))
        ends.append(snapshot(backend))
    assert_equal(*ends)


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("first", [True, False], ids=["first-step", "later-step"])
def test_a_step_that_is_not_finite_leaves_the_averages(backend_name, first):
    good = [labeled_batch(QUESTION_ANSWERING, seed) for seed in range(2)]
    backend, expected = (make(backend_name, QUESTION_ANSWERING, mode()) for _ in range(2))
    for one in (backend, expected):
        if not first:
            one.train_step([good[0]], 1e-3, 0)
    before, tensors = backend.ranges(), backend.tensors()
    state = None if first else backend.optimizer_state()
    spoilt = dict(tensors)
    spoilt["cls/squad/output_bias"] = np.full(2, np.nan, np.float32)
    backend.load(spoilt)
    assert not np.isfinite(backend.train_step([good[1]], 1e-3, 1))
    assert_equal(backend.ranges(), before)
    backend.load(tensors)
    if state is not None:
        backend.load_optimizer_state(state)
    assert backend.train_step([good[1]], 1e-3, 1) == expected.train_step([good[1]], 1e-3, 1)
    assert_equal(snapshot(backend), snapshot(expected))


def test_both_backends_take_the_same_steps(both_backends):
    """In graphs, which change when a quantizer starts. Float sums differ in their last bits, so do the averages."""
    data = [labeled_batch(CLASSIFICATION, seed) for seed in range(3)]
    runs = []
    for name in both_backends:
        backend = make(name, quantized=mode(start_step=1, head_start=1))
        losses = [backend.train_step([batch], 1e-3, step) for step, batch in enumerate(data)]
        runs.append((losses, backend.ranges(), backend.tensors()))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-4)
    activations = {s for s, row in all_quantizers(1, CLASSIFICATION).items() if not row.is_weight}
    assert runs[0][1].keys() == runs[1][1].keys() < activations
    for scope, amax in runs[0][1].items():
        np.testing.assert_allclose(amax, runs[1][1][scope], rtol=1e-4, err_msg=scope)
    for name, array in runs[0][2].items():
        np.testing.assert_allclose(array, runs[1][2][name], atol=5e-4, err_msg=name)


@pytest.mark.slow
def test_compiled_models_take_the_same_steps(backend_name):
    """XLA and torch.compile must move the averages too, and notice when a quantizer starts."""
    data = [labeled_batch(CLASSIFICATION, seed) for seed in range(3)]
    runs = []
    for compiled in (False, True):
        runtime = RuntimeSettings(compile=compiled, dropout=False)
        backend = make(backend_name, quantized=mode(start_step=1, head_start=2), runtime=runtime)
        losses = [backend.train_step([batch], 1e-3, step) for step, batch in enumerate(data)]
        runs.append((losses, backend.ranges(), backend.predict(data[0])["logits"]))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-5)
    np.testing.assert_allclose(runs[0][2], runs[1][2], atol=1e-4)
    for scope, amax in runs[0][1].items():
        np.testing.assert_allclose(runs[1][1][scope], amax, rtol=1e-5, err_msg=scope)
