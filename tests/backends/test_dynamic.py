"""Dynamic int8 prediction: near float32, the same as quantize_dynamic, both heads, both libraries, every engine."""

import logging
import platform
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dynamic_models import BATCH, CONFIG, HEADS, float_backend, largest_difference, tensors_of  # noqa: E402
from tiny_bert import ToyFeatures, make_batch  # noqa: E402

from backends.pytorch import dynamic_torch, dynamic_torchao  # noqa: E402
from backends.pytorch.dynamic import DynamicModel, DynamicSettings  # noqa: E402
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING  # noqa: E402
from training.prediction import predict_all  # noqa: E402
from twinquant.errors import UserError  # noqa: E402


@pytest.fixture(params=["torch", "torchao"])
def library(request) -> str:
    if request.param == "torchao":
        pytest.importorskip("torchao")
    return request.param


@pytest.fixture(params=dynamic_torch.ENGINES)
def engine(request) -> str:
    if request.param not in dynamic_torch.available_engines():
        pytest.skip(f"this PyTorch has no engine {request.param}")
    return request.param


@pytest.mark.parametrize("per_row", [False, True], ids=["per_batch", "per_row"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per_tensor", "per_channel"])
@pytest.mark.parametrize("head", HEADS)
def test_logits_are_near_those_of_float32(library, head, per_channel, per_row):
    backend = float_backend(head)
    model = DynamicModel.from_backend(backend, DynamicSettings("auto", library, per_channel, per_row))
    difference = largest_difference(model.predict(BATCH), backend.predict(BATCH))
    assert 1e-5 < difference < 0.12  # quantized, and two layers of 7-bit activations


def test_engines_agree(engine):
    """They choose the same integers; qnnpack alone has 8-bit activations."""
    backend = float_backend(CLASSIFICATION)
    found = DynamicModel.from_backend(backend, DynamicSettings(engine)).predict(BATCH)
    assert largest_difference(found, backend.predict(BATCH)) < 0.12
    if engine != "qnnpack":
        expected = DynamicModel.from_backend(backend, DynamicSettings("auto")).predict(BATCH)
        assert largest_difference(found, expected) < 0.03


@pytest.mark.parametrize("per_channel", [False, True], ids=["per_tensor", "per_channel"])
def test_a_layer_is_bit_equal_to_quantize_dynamic(engine, per_channel):
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(40, 24)
    linear.weight.data = torch.randn(24, 40, generator=generator) * torch.rand(24, 1, generator=generator)
    x = torch.randn(7, 40, generator=generator) + 0.5
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        choice = torch.ao.quantization.per_channel_dynamic_qconfig if per_channel else None
        spec = {torch.nn.Linear: choice or torch.ao.quantization.default_dynamic_qconfig}
        torch.backends.quantized.engine = engine
        peer = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), spec)
        torch.backends.quantized.engine = before
        expected = peer(x)
        integers = peer[0].weight().int_repr()
    weight = dynamic_torch.quantize_weight(linear.weight.data, per_channel)
    ours = dynamic_torch.PackedLinear([weight], linear.bias.data, engine)
    assert torch.equal(weight.integers, integers)
    assert torch.equal(ours(x), expected)
    assert torch.backends.quantized.engine == before


def test_packed_weights_come_back_as_they_were(engine, per_channel=True):
    weights = [dynamic_torch.quantize_weight(torch.randn(n, 16), per_channel) for n in (8, 24)]
    found = dynamic_torch.PackedLinear(weights, torch.zeros(32), engine).weights()
    for ours, expected in zip(found, weights, strict=True):
        assert torch.equal(ours.integers, expected.integers) and torch.equal(ours.scale, expected.scale)


def test_weights_that_share_an_input_multiply_as_if_alone():
    """Queries, keys and values keep their own scale per tensor when they are one product."""
    generator = torch.Generator().manual_seed(0)
    kernels = [torch.randn(8, 16, generator=generator) * factor for factor in (0.1, 1.0, 10.0)]
    weights = [dynamic_torch.quantize_weight(kernel, per_channel=False) for kernel in kernels]
    x, bias = torch.randn(5, 16, generator=generator), torch.randn(24, generator=generator)
    together = dynamic_torch.PackedLinear(weights, bias, "fbgemm")(x)
    alone = [
        dynamic_torch.PackedLinear([weight], part, "fbgemm")(x)
        for weight, part in zip(weights, bias.split(8), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone, 1))


@pytest.mark.parametrize("quantize", [dynamic_torch.quantize_weight, dynamic_torchao.quantize_weight])
def test_scales_per_channel_lose_less(quantize):
    if quantize is dynamic_torchao.quantize_weight:
        pytest.importorskip("torchao")
    kernel = torch.from_numpy(tensors_of(QUESTION_ANSWERING)["bert/encoder/layer_0/output/dense/kernel"].T.copy())
    errors = []
    for per_channel in (False, True):
        integers, scale = quantize(kernel, per_channel)
        assert integers.dtype == torch.int8 and scale.shape == ((len(kernel),) if per_channel else ())
        errors.append(float((integers * scale.reshape(-1, 1) - kernel).square().mean()))
        assert float((integers * scale.reshape(-1, 1) - kernel).abs().max()) <= float(scale.max()) * 1.01
    assert errors[1] < errors[0]


def test_padding_at_the_tail_changes_no_answer():
    """Attention leaves it out, with and without the mask that full batches do not need."""
    full = make_batch(CONFIG, [11, 11])
    padded = {name: np.pad(array, ((0, 0), (0, 5))) for name, array in full.items()}
    model = DynamicModel.from_backend(float_backend(CLASSIFICATION), DynamicSettings(per_row=False))
    found, expected = model.predict(padded)["logits"], model.predict(full)["logits"]
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_predict_all_takes_a_dynamic_model():
    features = ToyFeatures(CONFIG, 9)
    model = DynamicModel.from_backend(float_backend(CLASSIFICATION), DynamicSettings(per_row=True))
    found = predict_all(model, features, batch_size=4, longest=24, quiet=True)
    for row in range(len(features)):
        batch = features.batch([row])
        np.testing.assert_array_equal(found["logits"][row], model.predict(batch)["logits"][0])


def test_the_backend_is_left_as_it_was():
    backend = float_backend(QUESTION_ANSWERING)
    before, tensors = backend.predict(BATCH), backend.tensors()
    DynamicModel.from_backend(backend, DynamicSettings(per_channel=True)).predict(BATCH)
    np.testing.assert_array_equal(backend.predict(BATCH)["start_logits"], before["start_logits"])
    assert all(np.array_equal(array, tensors[name]) for name, array in backend.tensors().items())


@pytest.mark.parametrize("tiles, narrow", [(False, "fbgemm"), (True, "onednn")], ids=["plain", "amx"])
def test_auto_is_a_rule_of_the_width_and_the_processor(monkeypatch, tiles, narrow):
    monkeypatch.setattr(dynamic_torch, "has_int8_tiles", lambda: tiles)
    monkeypatch.setattr(dynamic_torch, "available_engines", lambda: ["qnnpack", "onednn", "x86", "fbgemm"])
    assert [dynamic_torch.choose_engine("auto", size) for size in (128, 384, 768, 1024)] == [
        narrow,
        narrow,
        "onednn",
        "onednn",
    ]
    monkeypatch.setattr(dynamic_torch, "available_engines", lambda: ["qnnpack"])  # as on Arm
    assert dynamic_torch.choose_engine("auto", 768) == "qnnpack"


def test_an_engine_that_is_not_there(monkeypatch):
    monkeypatch.setattr(dynamic_torch, "available_engines", lambda: ["qnnpack"])
    with pytest.raises(UserError, match=r"^--quantized_engine fbgemm: this PyTorch offers qnnpack on this processor$"):
        dynamic_torch.choose_engine("fbgemm", 768)


def test_qnnpack_is_said_to_be_slow_on_x86(monkeypatch, caplog):
    monkeypatch.setattr(dynamic_torch, "available_engines", lambda: ["qnnpack"])
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    dynamic_torch._warn_of_qnnpack.cache_clear()
    with caplog.at_level(logging.WARNING, "twinquant"):
        for _ in range(2):  # to quantize, and to read the saved model again
            assert dynamic_torch.choose_engine("qnnpack", 768) == "qnnpack"
    assert len(caplog.records) == 1 and "slower than float32" in caplog.text
    dynamic_torch._warn_of_qnnpack.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    dynamic_torch.choose_engine("qnnpack", 768)
    assert len(caplog.records) == 1


def test_pytorchs_own_warnings_are_one_line_of_ours(caplog, capfd, recwarn):
    dynamic_torch._announce_removal.cache_clear()
    with caplog.at_level(logging.INFO, "twinquant"):
        for engine in dynamic_torch.available_engines():
            DynamicModel.from_backend(float_backend(CLASSIFICATION), DynamicSettings(engine)).predict(BATCH)
    said = [record.getMessage() for record in caplog.records if "removal" in record.getMessage()]
    assert len(said) == 1 and "\n" not in said[0] and "--dynamic_engine torchao" in said[0]
    assert not list(recwarn) and "Warning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"engine": "avx"}, "--quantized_engine: found 'avx', expected one of auto, x86, onednn, fbgemm, qnnpack"),
        ({"library": "jax"}, "--dynamic_engine: found 'jax', expected one of torch, torchao"),
        (
            {"library": "torchao", "engine": "fbgemm"},
            "--quantized_engine=fbgemm contradicts --dynamic_engine=torchao, which has no engines to choose from; "
            "leave one of the two out.",  # as the flags say it
        ),
    ],
    ids=["engine", "library", "engine_of_torchao"],
)
def test_wrong_settings(keywords, sentence):
    with pytest.raises(UserError) as error:
        DynamicSettings(**keywords)
    assert str(error.value) == sentence


def test_torchao_that_is_not_installed(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr(dynamic_torchao, "_torchao", dynamic_torchao._torchao.__wrapped__)
    monkeypatch.setattr(dynamic_torchao, "require_torchao", dynamic_torchao.require_torchao.__wrapped__)
    with pytest.raises(UserError) as error:
        DynamicModel.from_backend(float_backend(CLASSIFICATION), DynamicSettings(library="torchao"))
    wanted = "--dynamic_engine torchao: torchao is not installed; pip install '.[torchao]' installs the right one"
    assert str(error.value) == wanted


def test_a_tensor_that_is_not_finite():
    tensors = tensors_of(CLASSIFICATION)
    tensors["bert/pooler/dense/kernel"][0, 0] = np.nan
    with pytest.raises(UserError, match="^the tensor bert/pooler/dense/kernel holds NaN or infinity"):
        DynamicModel.from_tensors(CONFIG, CLASSIFICATION, 3, tensors, DynamicSettings())
