"""From calibration data to ranges, on real backends."""

import numpy as np
import pytest
from tiny_bert import ToyFeatures, activation_scopes, make_backend, tiny_config, tiny_tensors

from quantization.calibration import METHODS
from quantization.modes import QKV_GROUPS, all_quantizers, get_mode
from quantization.ranges import fuse_qkv_ranges, select_ranges
from training.calibration import find_ranges, observe

CONFIG = tiny_config()
TENSORS = tiny_tensors(CONFIG)
FEATURES = ToyFeatures(CONFIG, 12)
LONGEST = 24


@pytest.fixture(scope="module")
def observers():
    """Observers of the two backends by name, made once."""
    made = {}

    def get(backend_name):
        if backend_name not in made:
            made[backend_name] = observe(make_backend(backend_name, CONFIG, TENSORS), FEATURES, 4, 3, LONGEST)
        return made[backend_name]

    return get


def ranges_of(observer, mode_name="ft1", method="max", percentile=99.9):
    return find_ranges(observer, TENSORS, CONFIG, get_mode(mode_name), method, percentile)


@pytest.mark.parametrize("method", METHODS)
def test_both_backends_find_the_same_ranges(both_backends, observers, method):
    first, second = (ranges_of(observers(name), method=method)[0] for name in both_backends)
    assert list(first) == list(second) == list(all_quantizers(2))
    for scope, amax in first.items():
        np.testing.assert_allclose(second[scope], amax, rtol=1e-3, err_msg=scope)


def test_ranges_are_of_use(backend_name, observers):
    """Of every method: within the maximum, and in the same order of size."""
    maxima, _ = ranges_of(observers(backend_name))
    for method in METHODS:
        ranges, clipped = ranges_of(observers(backend_name), method=method)
        for scope in activation_scopes(2):
            assert 0 < ranges[scope] <= maxima[scope], scope
            assert ranges[scope].dtype == np.float32 and ranges[scope].shape == ()
            assert clipped[scope] <= {"max": 0.0, "percentile": 0.0011}.get(method, 0.5), (scope, clipped[scope])
        assert set(clipped) == set(activation_scopes(2))


def test_the_order_of_the_data_does_not_matter(backend_name):
    """One batch by one: the same rows in another order give the same counts."""
    backend = make_backend(backend_name, CONFIG, TENSORS)
    backward = ToyFeatures(CONFIG, 12)
    backward.lengths = backward.lengths[::-1]
    backward.data = {name: array[::-1] for name, array in backward.data.items()}
    first, second = (ranges_of(observe(backend, rows, 1, 12, LONGEST))[0] for rows in (FEATURES, backward))
    for scope, amax in first.items():
        np.testing.assert_array_equal(second[scope], amax, err_msg=scope)


def test_few_rows_repeat_from_the_start(backend_name):
    backend = make_backend(backend_name, CONFIG, TENSORS)
    rows = ToyFeatures(CONFIG, 3)
    once, twice = (observe(backend, rows, 3, batches, LONGEST) for batches in (1, 2))
    for scope in activation_scopes(2):
        np.testing.assert_array_equal(twice[scope].counts, 2 * once[scope].counts, err_msg=scope)
    # Batches larger than the data wrap around too.
    assert observe(backend, rows, 7, 1, LONGEST)["bert/final_input_quantizer"].total == 32 * (
        2 * rows.lengths.sum() + rows.lengths[0]
    )


def test_padding_counts_only_where_asked_for(backend_name, observers):
    backend = make_backend(backend_name, CONFIG, TENSORS)
    padded = observe(backend, FEATURES, 4, 3, LONGEST, include_padding=True)
    without = observers(backend_name)
    scope = "bert/final_input_quantizer"
    assert without[scope].total == FEATURES.lengths.sum() * CONFIG.hidden_size
    assert padded[scope].total == len(FEATURES) * LONGEST * CONFIG.hidden_size
    first, second = ranges_of(without)[0], ranges_of(padded)[0]
    grown = [scope for scope in activation_scopes(2) if second[scope] > first[scope]]
    assert len(grown) >= 5
    assert all(second[scope] >= first[scope] for scope in first if "kernel" not in scope)


@pytest.mark.parametrize("mode_name", ["ft1", "ft2"], ids=["per-channel", "per-tensor"])
def test_weights_take_their_maximum(observers, backend_name, mode_name):
    ranges, _ = ranges_of(observers(backend_name), mode_name, "percentile", 50.0)
    expected = {}
    for scope, row in all_quantizers(2).items():
        if row.is_weight:
            magnitude = np.abs(TENSORS[scope.removesuffix("_quantizer")])
            expected[scope] = magnitude.max(axis=0) if mode_name == "ft1" else magnitude.max()
    if mode_name == "ft2":
        expected = fuse_qkv_ranges(expected, 2)
    for scope, amax in expected.items():
        np.testing.assert_array_equal(ranges[scope], amax, err_msg=scope)


def test_query_key_and_value_are_fused_where_the_mode_says_so(backend_name, observers):
    separate, _ = ranges_of(observers(backend_name), "ft1")
    fused, _ = ranges_of(observers(backend_name), "ft3")
    for layer in range(2):
        for group in QKV_GROUPS:
            scopes = [f"bert/encoder/layer_{layer}/{scope}" for scope in group]
            assert len({float(np.max(separate[scope])) for scope in scopes}) == 3
            for scope in scopes:
                assert fused[scope] == max(np.max(separate[each]) for each in scopes), scope
    grouped = {scope for group in QKV_GROUPS for scope in group}
    others = [s for s, row in all_quantizers(2).items() if row.scope not in grouped and not row.is_weight]
    for scope in others:
        assert fused[scope] == separate[scope], scope


@pytest.mark.parametrize("mode_name", ["ft1", "ft2", "ft3", "trt", "ort"])
def test_what_was_found_can_be_used(backend_name, observers, mode_name):
    """All quantizers have a range, also those that are off."""
    mode = get_mode(mode_name)
    ranges, _ = ranges_of(observers(backend_name), mode_name)
    assert list(ranges) == list(all_quantizers(2))
    select_ranges(ranges, TENSORS, mode, "test")


def test_eight_bits_change_the_logits_a_little(backend_name, observers):
    backend = make_backend(backend_name, CONFIG, TENSORS)
    batch = FEATURES.batch(np.arange(4))
    floating = backend.predict(batch)["start_logits"]
    ranges, _ = ranges_of(observers(backend_name), "ft2")
    backend.set_quantization(get_mode("ft2"), select_ranges(ranges, TENSORS, get_mode("ft2"), "test"))
    real = batch["input_mask"] == 1
    error = np.abs(backend.predict(batch)["start_logits"] - floating)[real]
    assert 1e-4 < error.max() and error.mean() < 0.05 * np.abs(floating[real]).mean()
