"""Where quantizers sit: every backend against a forward pass written from the table of quantized tensors.

A float32 product a hair away from a border between two integers may round to the other one than the float64 reference.
The tests therefore search for a batch that keeps clear of all borders, by more than float32's errors.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy_bert import NumpyBert, ranges_of
from tiny_bert import make_backend, make_batch, pad_batch, tiny_config, tiny_tensors

from quantization.modes import LAYER_ROWS, MODE_NAMES, MODEL_ROWS, Mode, custom_mode, get_mode
from quantization.ranges import select_ranges

CONFIG = tiny_config(num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=24)
TENSORS = tiny_tensors(CONFIG)
LENGTHS = (5, 3)
CLEAR = 2e-4  # of a step; float32 is wrong by less than 1e-4 of one here
TOLERANCE = 1e-4
ROWS = [row.scope for row in LAYER_ROWS + MODEL_ROWS]
EVERYTHING = custom_mode()


@cache
def clear_case(mode: Mode):
    """A batch without near ties, its ranges, and the reference's logits."""
    for seed in range(100):
        batch = make_batch(CONFIG, LENGTHS, seed=seed)
        floating = NumpyBert(CONFIG, TENSORS)
        floating(batch)
        ranges = select_ranges(ranges_of(floating.seen, mode, 1), TENSORS, mode, "test")
        reference = NumpyBert(CONFIG, TENSORS, mode, ranges)
        logits = reference(batch)
        if reference.margin > CLEAR:
            return batch, ranges, logits
    raise AssertionError(f"no batch keeps clear of ties in mode {mode.name}")


def largest_difference(found, expected):
    return max(np.abs(found[name] - expected[name]).max() for name in ("start_logits", "end_logits"))


@pytest.fixture
def backend(backend_name):
    return make_backend(backend_name, CONFIG, TENSORS)


@pytest.mark.parametrize("mode_name", MODE_NAMES)
def test_quantized_logits_equal_the_reference(backend, mode_name):
    batch, ranges, expected = clear_case(get_mode(mode_name))
    floating = backend.predict(batch)
    backend.set_quantization(get_mode(mode_name), ranges)
    assert largest_difference(backend.predict(batch), expected) < TOLERANCE
    assert largest_difference(floating, expected) > 100 * TOLERANCE  # or the comparison says nothing


def test_switching_quantization_off_gives_the_float_model(backend):
    batch, ranges, _ = clear_case(get_mode("ft3"))
    floating = backend.predict(batch)
    backend.set_quantization(get_mode("ft3"), ranges)
    assert largest_difference(backend.predict(batch), floating) > TOLERANCE
    backend.set_quantization(None, {})
    assert largest_difference(backend.predict(batch), floating) == 0
    assert largest_difference(floating, NumpyBert(CONFIG, TENSORS)(batch)) < TOLERANCE


def test_new_ranges_replace_the_old_ones(backend):
    mode = get_mode("ft2")
    batch, ranges, _ = clear_case(mode)
    backend.set_quantization(mode, {scope: amax * np.float32(0.5) for scope, amax in ranges.items()})
    backend.predict(batch)
    backend.set_quantization(mode, ranges)
    fresh = make_backend(backend.name, CONFIG, TENSORS)
    fresh.set_quantization(mode, ranges)
    assert largest_difference(backend.predict(batch), fresh.predict(batch)) == 0


@pytest.mark.parametrize("mode_name", ["ft1", "ft3", "ort"])
def test_quantized_backends_agree_on_any_batch(both_backends, mode_name):
    """Without keeping clear of ties, over several layers: predictions go through the same integers everywhere."""
    config, mode = tiny_config(), get_mode(mode_name)
    tensors, reference = tiny_tensors(config), NumpyBert(config, tiny_tensors(config))
    data = [make_batch(config, [20, 11, 15, 7], padded, seed=seed) for seed, padded in enumerate((None, 32, 24))]
    reference(data[0])
    ranges = select_ranges(ranges_of(reference.seen, mode, 2), tensors, mode, "test")
    results = []
    for name in both_backends:
        backend = make_backend(name, config, tensors)
        backend.set_quantization(mode, ranges)
        results.append([backend.predict(batch) for batch in data])
    for first, second in zip(*results, strict=True):
        assert largest_difference(first, second) < 1e-5


def test_quantized_logits_do_not_depend_on_padding(backend_name):
    config, mode = tiny_config(), get_mode("ft3")
    tensors, batch = tiny_tensors(config), make_batch(config, [20, 11, 15, 7])
    reference = NumpyBert(config, tensors)
    reference(batch)
    backend = make_backend(backend_name, config, tensors)
    backend.set_quantization(mode, select_ranges(ranges_of(reference.seen, mode, 2), tensors, mode, "test"))
    tight, wide = backend.predict(batch), backend.predict(pad_batch(batch, 40))
    real = batch["input_mask"] == 1
    for name in tight:
        assert np.abs(wide[name][:, :20] - tight[name])[real].max() < 1e-5


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("per_channel", [False, True], ids=["per-tensor", "per-channel"])
def test_every_single_quantizer_sits_at_its_tensor(backend, per_channel):
    """Also those that every mode leaves off (the sum before LayerNorm)."""
    for scope in [row for row in ROWS if row.endswith("kernel_quantizer") or not per_channel]:
        mode = replace(EVERYTHING, name=f"only {scope}", enabled=frozenset([scope]), per_channel=per_channel)
        batch, ranges, expected = clear_case(mode)
        backend.set_quantization(mode, ranges)
        assert largest_difference(backend.predict(batch), expected) < TOLERANCE, scope
        assert largest_difference(NumpyBert(CONFIG, TENSORS)(batch), expected) > 2 * TOLERANCE, scope


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("mode_name", MODE_NAMES)
def test_turning_off_any_one_quantizer_shows(backend, mode_name):
    mode = get_mode(mode_name)
    batch, ranges, _ = clear_case(mode)
    backend.set_quantization(mode, ranges)
    whole = backend.predict(batch)
    quantizers = backend.quantization.quantizers
    for scope in list(quantizers):
        quantizer = quantizers.pop(scope)
        assert largest_difference(backend.predict(batch), whole) > TOLERANCE, scope
        quantizers[scope] = quantizer
    assert largest_difference(backend.predict(batch), whole) == 0


@pytest.mark.usefixtures("without_graphs")
def test_quantizers_of_every_layer_work(backend_name):
    """One quantizer of the last layer off changes the logits, in a model of three layers."""
    config = replace(CONFIG, num_hidden_layers=3)
    tensors = tiny_tensors(config)
    batch = make_batch(config, LENGTHS)
    reference = NumpyBert(config, tensors)
    reference(batch)
    mode = get_mode("ft3")
    ranges = select_ranges(ranges_of(reference.seen, mode, 3), tensors, mode, "test")
    backend = make_backend(backend_name, config, tensors)
    backend.set_quantization(mode, ranges)
    whole = backend.predict(batch)
    for layer in range(3):
        changed = f"bert/encoder/layer_{layer}/intermediate/dense/input_quantizer"
        backend.set_quantization(mode, ranges | {changed: ranges[changed] * np.float32(0.5)})
        assert largest_difference(backend.predict(batch), whole) > TOLERANCE, changed
