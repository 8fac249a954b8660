"""--per_row: a sentence's logits are the same, to the bit, whatever else is in its batch."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dynamic_models import CONFIG, HEADS, float_backend, tensors_of  # noqa: E402
from tiny_bert import make_batch  # noqa: E402

from backends.pytorch.dynamic import DynamicModel, DynamicSettings  # noqa: E402
from backends.pytorch.dynamic_rows import RowwiseLinear  # noqa: E402
from backends.pytorch.dynamic_torch import PackedLinear, available_engines, quantize_weight  # noqa: E402
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING  # noqa: E402

LENGTHS = [20, 7, 13, 1, 16]
BATCH = make_batch(CONFIG, LENGTHS, 24)


@pytest.fixture(params=[1, 3], ids=["1_thread", "3_threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def rows(batch, indexes, padded):
    return {name: np.ascontiguousarray(array[indexes, :padded]) for name, array in batch.items()}


def assert_independent(model):
    whole = model.predict(BATCH)
    for indexes, padded in (([0], 20), ([1], 7), ([3], 1), ([2, 1], 13), ([4, 3, 1, 1], 24), ([4, 2, 0], 22)):
        part = model.predict(rows(BATCH, indexes, padded))
        for name, logits in part.items():
            for row, index in enumerate(indexes):
                size = LENGTHS[index] if model.head == QUESTION_ANSWERING else None
                np.testing.assert_array_equal(logits[row][:size], whole[name][index][:size])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("engine", available_engines())
@pytest.mark.parametrize("head", HEADS)
def test_neighbours_and_padding_do_not_matter(head, engine):
    settings = DynamicSettings(engine, per_channel=True, per_row=True)
    assert_independent(DynamicModel.from_backend(float_backend(head), settings))


@pytest.mark.parametrize("head", HEADS)
def test_neighbours_and_padding_do_not_matter_to_torchao(head):
    pytest.importorskip("torchao")
    assert_independent(DynamicModel.from_backend(float_backend(head), DynamicSettings(library="torchao", per_row=True)))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("activation", ["gelu_new", "silu", "tanh", "relu"])
def test_every_activation(activation):
    """An odd width, so that vectorized functions end with single elements."""
    config = dataclasses.replace(CONFIG, hidden_act=activation, intermediate_size=45)
    tensors = tensors_of(CLASSIFICATION)
    rng = np.random.default_rng(0)
    for layer in ("layer_0", "layer_1"):
        for name, shape in (("intermediate/dense/kernel", (32, 45)), ("output/dense/kernel", (45, 32))):
            tensors[f"bert/encoder/{layer}/{name}"] = rng.standard_normal(shape).astype(np.float32)
        tensors[f"bert/encoder/{layer}/intermediate/dense/bias"] = rng.standard_normal(45).astype(np.float32)
    settings = DynamicSettings("fbgemm", per_row=True)
    assert_independent(DynamicModel.from_tensors(config, CLASSIFICATION, 3, tensors, settings))


def test_one_scale_per_batch_does_depend_on_the_neighbours():
    """What the flag is for."""
    model = DynamicModel.from_backend(float_backend(CLASSIFICATION), DynamicSettings())
    whole, alone = model.predict(BATCH)["logits"], model.predict(rows(BATCH, [1], 7))["logits"]
    assert np.abs(whole[1] - alone[0]).max() > 1e-4


def test_a_row_is_quantized_by_its_own_range():
    """Against NumPy: 7 bits from the row's minimum to its maximum; rows of any size, constant rows too."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((6, 40)) * np.array([[1e-3], [1.0], [1e3], [1.0], [0.0], [0.0]])).astype(np.float32)
    x[3] += 50.0
    x[5] = -2.5
    kernel, bias = rng.standard_normal((9, 40)).astype(np.float32), rng.standard_normal(9).astype(np.float32)
    weight = quantize_weight(torch.from_numpy(kernel), per_channel=True)
    inner = PackedLinear([weight], None, "fbgemm")
    found = RowwiseLinear(inner, torch.from_numpy(bias))(torch.from_numpy(x)).numpy()

    lowest, span = x.min(1, keepdims=True), np.ptp(x, 1, keepdims=True)
    levels = np.rint((x - lowest) / np.where(span == 0.0, 1.0, span) * 127)
    rounded = lowest + levels * span / 127
    expected = rounded.astype(np.float64) @ (weight.integers.numpy() * weight.scale.numpy()[:, None]).T + bias
    assert (np.abs(found - expected) <= 1e-5 * (np.abs(x).max(1, keepdims=True) * 40 + 1.0)).all()


def test_padding_gets_logits_that_no_answer_can_start_at():
    model = DynamicModel.from_backend(float_backend(QUESTION_ANSWERING), DynamicSettings(per_row=True))
    logits = model.predict(BATCH)["start_logits"]
    assert (logits[BATCH["input_mask"] == 0] == -10000.0).all() and (logits[BATCH["input_mask"] == 1] > -100.0).all()


@pytest.mark.parametrize(("outputs", "count", "padded"), [(8, 3, 33), (256, 1, 2), (257, 1, 1), (8, 40, 40)])
def test_small_products_are_padded(outputs, count, padded):
    """On a CPU with AMX oneDNN rounds products of at most 256 outputs otherwise, whatever the CPU of this test."""
    kernel, bias = torch.randn(outputs, 6), torch.randn(outputs)
    packed = PackedLinear([quantize_weight(kernel, per_channel=True)], None, "fbgemm")
    seen = []

    class Inner:
        weights = staticmethod(packed.weights)

        def __call__(self, x):
            seen.append(len(x))
            return packed(x)

    x = torch.randn(count, 6)
    found = RowwiseLinear(Inner(), bias)(x)
    assert seen == [padded] and found.shape == (count, outputs)
    np.testing.assert_allclose(found.numpy(), (x @ kernel.T + bias).numpy(), atol=0.15)
