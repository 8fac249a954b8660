"""How much a training model's quantizers clip: both backends against a forward pass in NumPy; and nothing changes."""

import numpy as np
import pytest
from numpy_bert import NumpyBert, ranges_of
from tiny_bert import ToyFeatures, make_backend, make_batch, tiny_config, tiny_tensors

from quantization.clipping import ClippingCounter
from quantization.modes import get_mode, q8bert_mode
from quantization.ranges import select_ranges

CONFIG = tiny_config(num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=24)
TENSORS = tiny_tensors(CONFIG)
LENGTHS = np.array([11, 4, 8])
BATCH = make_batch(CONFIG, LENGTHS.tolist())


def real_values(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    keep = np.ones(x.shape, bool)
    for axis in axes:
        shape = [len(LENGTHS)] + [1] * (x.ndim - 1)
        shape[axis] = x.shape[axis]
        keep &= (np.arange(x.shape[axis]) < LENGTHS[:, None]).reshape(shape)
    return x[keep]


def expected_fractions(mode, ranges: dict[str, np.ndarray]) -> dict[str, float]:
    """From what the quantizers of the NumPy model saw, in float64."""
    reference = NumpyBert(CONFIG, TENSORS, mode, ranges)
    reference(BATCH)
    found = {}
    for scope in reference.enabled:
        seen = reference.seen[scope]
        amax = 1.0 if scope not in ranges else ranges[scope]  # a fixed scale of 1/255
        if not scope.endswith("kernel_quantizer"):
            seen = real_values(seen, (2, 3) if "softmax_input" in scope or "matmul_a" in scope else (1,))
        found[scope] = float((np.abs(seen) > amax).mean())
    return found


@pytest.mark.parametrize("mode_name", ["ft1", "ft3", "ort"])
def test_both_backends_count_as_numpy_does(backend_name: str, mode_name: str) -> None:
    mode = get_mode(mode_name)
    floating = NumpyBert(CONFIG, TENSORS)
    floating(BATCH)
    ranges = select_ranges(ranges_of(floating.seen, mode, 1, share=0.3), TENSORS, mode, "test")
    kernel = "bert/encoder/layer_0/intermediate/dense/kernel_quantizer"
    ranges[kernel] = (np.asarray(ranges[kernel]) * np.float32(0.5)).astype(np.float32)  # training moved the weights on
    backend = make_backend(backend_name, CONFIG, TENSORS)
    backend.set_quantization(mode, ranges)
    found, expected = backend.clipped_fractions(BATCH), expected_fractions(mode, ranges)
    assert sorted(found) == sorted(expected)
    for scope, fraction in expected.items():
        # The model's own float32 may put one value on the other side, where quantized values before it did.
        assert found[scope] == pytest.approx(fraction, abs=0.01), scope
    assert 0 < found[kernel] < 1 and sum(fraction > 0.01 for fraction in found.values()) > 5


def test_nothing_is_counted_while_quantization_is_off(backend_name: str) -> None:
    assert make_backend(backend_name, CONFIG, TENSORS).clipped_fractions(BATCH) == {}


@pytest.mark.parametrize("mode", [get_mode("ft2"), q8bert_mode(start_step=2)], ids=["ft2", "q8bert"])
def test_training_goes_on_with_the_same_bits(backend_name: str, mode) -> None:
    """With dropout, whose random numbers must not be used up, and with averages, which must not move."""
    floating = NumpyBert(CONFIG, TENSORS)
    floating(BATCH)
    ranges = {} if mode.learns_ranges else select_ranges(ranges_of(floating.seen, mode, 1), TENSORS, mode, "test")
    features = ToyFeatures(CONFIG, 8)
    results = []
    for counts in (False, True):
        backend = make_backend(backend_name, CONFIG, TENSORS)
        backend.set_quantization(mode, ranges)
        losses = []
        for step in range(5):
            losses.append(backend.train_step([features.batch(range(4)), features.batch(range(4, 8))], 1e-3, step))
            fractions = backend.clipped_fractions(BATCH) if counts else {}
            if counts and mode.learns_ranges:
                assert bool(fractions) == (step >= 2)  # from the first quantized step on
        logits = backend.predict(BATCH)["start_logits"]
        results.append((losses, backend.tensors() | backend.ranges() | backend.optimizer_state(), logits))
    (losses, state, logits), (found_losses, found_state, found_logits) = results
    assert found_losses == losses
    np.testing.assert_array_equal(found_logits, logits)
    for name, array in state.items():
        np.testing.assert_array_equal(found_state[name], array, err_msg=name)


def test_the_counter() -> None:
    counter = ClippingCounter({"a": np.float32(1.0), "b": np.float32(2.0), "k": np.array([1.0, 3.0], np.float32)})
    x = np.array([[[1.0, -1.5], [3.0, 0.0]], [[-9.0, 2.0], [9.0, 9.0]]], np.float32)
    counter.observe(["a", "b", "unknown"], x, np.array([2, 1]))
    counter.observe(["a"], np.ones((1, 2, 2), np.float32))
    counter.observe_weight("k", np.array([[2.0, 2.0], [-0.5, 4.0], [1.0, -3.0]], np.float32), 1)
    # a: 1.5, 3, 9 and 2 of 6, then none of 4; b: 3 and 9 of 6, since 2 is not above 2; k: 2 and 4 of 6.
    assert counter.fractions() == {"a": 0.4, "b": 2 / 6, "k": 2 / 6}
