"""Histograms: exact counts, the same whatever the order, the splitting and the layout of the data."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantization.histogram import BINS, CHUNK, MIN_EXPONENT, Histogram, Observer
from twinquant.errors import UserError


def histogram_of(*arrays):
    histogram = Histogram()
    for array in arrays:
        histogram.update(np.asarray(array, np.float32))
    return histogram


def assert_same(left, right):
    assert (left.exponent, left.amax, left.total) == (right.exponent, right.amax, right.total)
    assert np.array_equal(left.counts, right.counts)


def plain_counts(values, exponent):
    """Counts by the definition, in float64: bin i holds i * width < |x| <= (i + 1) * width, bin 0 zeros too."""
    counts = [0] * BINS
    for value in values:
        counts[max(math.ceil(abs(float(value)) * BINS / 2.0**exponent) - 1, 0)] += 1
    return counts


@pytest.mark.parametrize(
    ("values", "exponent"),
    [
        pytest.param([0.3, -0.9, 0.0], 0, id="below-1"),
        pytest.param([1.0, -1.0, 0.5], 0, id="exact-power"),
        pytest.param([1.0000001], 1, id="just-above-a-power"),
        pytest.param([-5.0, 1e-30, 2.0], 3, id="negative-largest"),
        pytest.param([3e38, 1.0], 128, id="largest-float32"),
        pytest.param([2.0**-30], MIN_EXPONENT, id="tiny"),
        pytest.param([2.0**-149], MIN_EXPONENT, id="smallest-subnormal"),
    ],
)
def test_hand_cases(values, exponent):
    histogram = histogram_of(values)
    assert histogram.exponent == exponent
    assert histogram.amax == np.abs(np.float32(values)).max() and histogram.amax.dtype == np.float32
    assert histogram.total == len(values)
    assert histogram.counts.dtype == np.int64
    assert histogram.counts.tolist() == plain_counts(np.float32(values), exponent)


def test_top_edge_falls_in_the_last_bin():
    assert histogram_of([4.0]).counts[-1] == 1


def test_edges():
    edges = histogram_of([3.0]).edges()
    assert edges.dtype == np.float64 and len(edges) == BINS + 1
    assert edges[0] == 0 and edges[-1] == 4 and (np.diff(edges) == 4 / BINS).all()


def test_zeros_and_nothing():
    histogram = histogram_of(np.zeros((3, 4)))
    assert (histogram.amax, histogram.total, histogram.counts[0]) == (0, 12, 12)
    empty = histogram_of(np.zeros((0, 4)))
    assert (empty.amax, empty.total) == (0, 0)


def test_more_than_one_chunk():
    x = np.random.default_rng(0).standard_normal(2 * CHUNK + 123).astype(np.float32)
    histogram = histogram_of(x)
    scaled = np.ceil(np.abs(x.astype(np.float64)) / histogram.width)
    assert np.array_equal(histogram.counts, np.bincount(np.maximum(scaled.astype(int) - 1, 0), minlength=BINS))


LAYOUTS = {
    "transposed": lambda x: x.transpose(2, 0, 1),
    "sliced": lambda x: x[:, 1:, ::3],
    "reversed": lambda x: x[::-1, :, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "fortran": np.asfortranarray,
    "scalar": lambda x: x[0, 0, 0],
    "large-strided": lambda x: np.repeat(x, 40, axis=0)[:, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout):
    x = np.random.default_rng(0).standard_normal((20, 12, 17)).astype(np.float32)
    view = LAYOUTS[layout](x)
    before = view.copy()
    histogram = Histogram()
    histogram.update(view)
    assert_same(histogram, histogram_of(np.array(view).ravel()))
    assert np.array_equal(view, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype):
    x = np.random.default_rng(0).standard_normal(100).astype(dtype)
    histogram = Histogram()
    histogram.update(x)
    assert_same(histogram, histogram_of(x.astype(np.float32)))


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Powers of two and their neighbors are the cases in which merging could go wrong.
powers = st.builds(
    lambda m, e: float(np.float32(m) * np.float32(2.0**e)),
    st.sampled_from([1, -1, 3, 1.9999999]),
    st.integers(-140, 126),
)
batches = st.lists(hnp.arrays(np.float32, st.integers(0, 8), elements=finite | powers), max_size=5)


@given(batches, st.randoms(use_true_random=False))
def test_order_and_splitting_do_not_matter(arrays, random):
    at_once = histogram_of(np.concatenate([np.zeros(0, np.float32), *arrays]))
    assert at_once.counts.tolist() == plain_counts(itertools.chain(*arrays), at_once.exponent)

    shuffled = random.sample(arrays, len(arrays))
    assert_same(histogram_of(*shuffled), at_once)

    merged = Histogram()
    for array in shuffled:
        merged.merge(histogram_of(array))
    assert_same(merged, at_once)


def test_growth_by_merging_pairs_equals_everything_at_once():
    rng = np.random.default_rng(0)
    parts = [(rng.standard_normal(500) * 2.0**power).astype(np.float32) for power in (-30, -3, 0, 1, 5, 40)]
    assert_same(histogram_of(*parts), histogram_of(np.concatenate(parts)))
    assert_same(histogram_of(*parts[::-1]), histogram_of(np.concatenate(parts)))


def test_merge_leaves_the_other_alone():
    small, large = histogram_of([1.0, 0.1]), histogram_of([100.0])
    kept = small.copy()
    large.merge(small)
    assert_same(small, kept)
    assert_same(large, histogram_of([1.0, 0.1, 100.0]))


def test_dict_round_trip_through_json():
    for histogram in (Histogram(), histogram_of([0.0]), histogram_of([0.1, 7.3, 1e-9])):
        assert_same(Histogram.from_dict(json.loads(json.dumps(histogram.to_dict()))), histogram)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"counts": [1] * (BINS + 1)}, id="too-many-counts"),
        pytest.param({"counts": [-1]}, id="negative-count"),
        pytest.param({"counts": ["x"]}, id="text"),
        pytest.param({"amax": 9.0}, id="amax-beyond-range"),
        pytest.param({"amax": math.nan}, id="amax-nan"),
        pytest.param({"exponent": None}, id="no-exponent"),
    ],
)
def test_inconsistent_dict(change):
    with pytest.raises(UserError, match="^ranges.json"):
        Histogram.from_dict({**histogram_of([3.0]).to_dict(), **change}, "ranges.json")


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_not_finite(bad, word):
    x = np.ones((3, 4), np.float32)
    x[1, 2] = bad
    with pytest.raises(UserError, match=rf"layer_0/input_quantizer, of shape \(3, 4\), holds {word}"):
        Histogram().update(x, "layer_0/input_quantizer")


SHAPES = {
    "activations": ((4, 7, 5), (1,)),
    "heads": ((4, 3, 7, 5), (2,)),
    "scores": ((4, 3, 7, 7), (2, 3)),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_padding_is_left_out(kind):
    shape, axes = SHAPES[kind]
    lengths = np.array([7, 3, 0, 1])
    x = np.full(shape, np.nan, np.float32)  # padding that is read would raise
    rng = np.random.default_rng(0)
    real = []
    for b, length in enumerate(lengths):
        part = [slice(None)] * (len(shape) - 1)
        for axis in axes:
            part[axis - 1] = slice(length)
        x[b][tuple(part)] = rng.standard_normal(x[b][tuple(part)].shape)
        real.append(x[b][tuple(part)].ravel())
    observer = Observer()
    observer.observe(["q"], x, lengths, axes)
    assert_same(observer["q"], histogram_of(np.concatenate(real)))


def test_without_lengths_everything_counts():
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    observer = Observer()
    observer.observe(["q"], x)
    assert_same(observer["q"], histogram_of(x))


def test_quantizers_of_one_tensor_share_a_histogram():
    observer = Observer()
    for _ in range(2):
        observer.observe(["query", "key"], np.ones((1, 2, 3), np.float32))
    observer.observe(["context"], np.full((1, 2, 3), 9, np.float32))
    assert observer["query"] is observer["key"]
    assert observer["query"].total == 12 and observer["context"].total == 6
    assert [names for names, _ in observer.groups()] == [("query", "key"), ("context",)]
    with pytest.raises(KeyError):
        observer["value"]


def test_observers_of_two_processes_merge():
    x = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    whole, first, second = Observer(), Observer(), Observer()
    whole.observe(["a", "b"], x)
    first.observe(["a", "b"], x[:3])
    second.observe(["a", "b"], x[3:] * 1)
    second.observe(["only here"], x)
    first.merge(Observer.from_dict(json.loads(json.dumps(second.to_dict()))))
    assert_same(first["b"], whole["a"])
    assert_same(first["only here"], histogram_of(x))


def test_a_quantizer_cannot_change_its_group():
    observer = Observer()
    observer.observe(["a", "b"], np.ones((1, 1, 1), np.float32))
    with pytest.raises(ValueError, match="another group"):
        observer.observe(["a"], np.ones((1, 1, 1), np.float32))


@pytest.mark.parametrize(
    ("lengths", "axes"),
    [([1, 8], (1,)), ([1, -1], (1,)), ([1], (1,)), ([1, 2], (3,)), ([1, 2], (0,)), ([1, 4], (1, 2))],
    ids=["too-long", "negative", "too-few", "axis-too-large", "batch-axis", "longer-than-one-axis"],
)
def test_lengths_that_do_not_fit(lengths, axes):
    with pytest.raises(ValueError, match=r"\(2, 7, 3\)"):
        Observer().observe(["q"], np.ones((2, 7, 3), np.float32), np.array(lengths), axes)


@pytest.mark.parametrize(
    "value", [{}, {"groups": [{}]}, {"groups": [{"names": ["a"]}]}], ids=["empty", "no-names", "no-counts"]
)
def test_inconsistent_observer_dict(value):
    with pytest.raises(UserError, match="^ranges.json"):
        Observer.from_dict(value, "ranges.json")
