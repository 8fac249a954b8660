"""What a backend shows during calibration: every activation quantizer its own tensor, once, without padding."""

import numpy as np
import pytest
from numpy_bert import NumpyBert
from tiny_bert import activation_scopes, make_backend, make_batch, relative_error, tiny_config, tiny_tensors

from quantization.histogram import Observer
from quantization.modes import get_mode
from twinquant.errors import UserError

CONFIG = tiny_config()
TENSORS = tiny_tensors(CONFIG)
BATCH = make_batch(CONFIG, [11, 4, 8])
LENGTHS = BATCH["input_mask"].sum(1)


class Recorder(Observer):
    """Keeps the tensors and how they were announced."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[str, ...], np.ndarray, np.ndarray | None, tuple[int, ...]]] = []

    def observe(self, names, x, lengths=None, sequence_axes=(1,)) -> None:
        self.calls.append((tuple(names), x.copy(), lengths, tuple(sequence_axes)))
        super().observe(names, x, lengths, sequence_axes)


@pytest.fixture(scope="module")
def seen():
    reference = NumpyBert(CONFIG, TENSORS)
    reference(BATCH)
    return reference.seen


@pytest.fixture
def backend(backend_name):
    return make_backend(backend_name, CONFIG, TENSORS)


def observed(backend, include_padding):
    recorder = Recorder()
    backend.observe(BATCH, recorder, include_padding)
    return recorder


def real_values(x, axes):
    """The values at real positions, by a mask over whole arrays."""
    positions = np.arange(x.shape[axes[0]]) < LENGTHS[:, None]  # [B, S]
    keep = np.ones(x.shape, bool)
    for axis in axes:
        shape = [1] * x.ndim
        shape[0], shape[axis] = positions.shape
        keep &= positions.reshape(shape)
    return x[keep]


def test_every_activation_quantizer_is_shown_once(backend):
    scopes = [scope for names, *_ in observed(backend, False).calls for scope in names]
    assert sorted(scopes) == sorted(activation_scopes(CONFIG.num_hidden_layers))


def test_each_is_shown_its_own_tensor(backend, seen):
    for names, x, _, _ in observed(backend, False).calls:
        for scope in names:
            expected = seen[scope]
            assert relative_error(x, expected) < 1e-5, scope


def test_tensors_are_counted_without_padding(backend, seen):
    recorder = observed(backend, False)
    for scope in activation_scopes(CONFIG.num_hidden_layers):
        axes = (2, 3) if "softmax_input" in scope or "matmul_a" in scope else (1,)
        expected = real_values(seen[scope], axes)
        assert recorder[scope].total == expected.size, scope
        np.testing.assert_allclose(recorder[scope].amax, np.abs(expected).max(), rtol=1e-5, err_msg=scope)


def test_padding_counts_where_asked_for(backend, seen):
    recorder = observed(backend, True)
    without = observed(backend, False)
    grown = 0
    for scope in activation_scopes(CONFIG.num_hidden_layers):
        assert recorder[scope].total == seen[scope].size, scope
        np.testing.assert_allclose(recorder[scope].amax, np.abs(seen[scope]).max(), rtol=1e-5, err_msg=scope)
        grown += recorder[scope].amax > without[scope].amax
    assert grown > 10


def test_the_float_model_is_observed_whatever_the_quantization(backend):
    plain = observed(backend, False)
    amax = {scope: np.float32(0.01) for scope in activation_scopes(CONFIG.num_hidden_layers)}
    kernels = {f"{n}_quantizer": np.float32(0.01) for n in TENSORS if n.endswith("/kernel")}
    backend.set_quantization(get_mode("ft2"), amax | kernels)
    before = backend.predict(BATCH)
    again = observed(backend, False)
    assert again.to_dict() == plain.to_dict()
    after = backend.predict(BATCH)  # the quantization is on as before
    np.testing.assert_array_equal(before["start_logits"], after["start_logits"])


def test_observing_changes_nothing(backend):
    before = backend.predict(BATCH)
    tensors = backend.tensors()
    observed(backend, False)
    np.testing.assert_array_equal(backend.predict(BATCH)["start_logits"], before["start_logits"])
    for name, array in backend.tensors().items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_not_a_number_names_the_quantizer_and_calibration_can_go_on(backend):
    broken = TENSORS | {"bert/encoder/layer_1/intermediate/dense/bias": np.full(64, np.nan, np.float32)}
    backend.load(broken)
    with pytest.raises(UserError, match="layer_1/output/dense/input_quantizer.*NaN"):
        backend.observe(BATCH, Observer(), False)
    backend.load(TENSORS)
    assert np.isfinite(backend.predict(BATCH)["start_logits"]).all()
    observed(backend, False)
