"""Every precision, mode, target and head under onnxruntime against the PyTorch backend.

Where no value lies within float32's errors of a border between two integers, all integers are the same and logits agree
to a few last bits. Where one does, it may go to the other side, and later layers make more of it: that must stay rare.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import make_batch, require
from tiny_exports import TASKS, int8, largest_difference, run_both, tiny_source

from checkpoints.names import QUESTION_ANSWERING
from export.check import compare_on_batches
from export.settings import ExportSettings
from quantization.modes import MODE_NAMES

FLOAT_BOUND = 1e-5
SAME_INTEGERS = 2e-5
SHAPES = ((7,), (1,), (9, 5, 12), (20, 3), (64, 64), (13, 13, 1, 6))  # lengths of a batch's rows: padded to the longest

TARGETS = {
    "contrib": {},
    "portable": {"portable": True},
    "openvino": {"target": "openvino"},
    "tensorrt": {"target": "tensorrt"},
}


@pytest.fixture(autouse=True)
def torch() -> None:
    require("pytorch")


def differences(source, settings, folder: Path) -> np.ndarray:
    """The largest difference of each batch."""
    model, reference = run_both(source, settings, folder)
    found = []
    for seed, lengths in enumerate(SHAPES):
        batch = make_batch(source.config, lengths, seed=seed)
        found.append(largest_difference(model.predict(batch), reference.predict(batch), batch["input_mask"]))
    return np.array(found)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt"])
@pytest.mark.parametrize("task", TASKS)
def test_fp32(task: str, target: str, tmp_path: Path) -> None:
    assert differences(tiny_source(task), ExportSettings(target=target), tmp_path).max() < FLOAT_BOUND


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "tanh", "silu"])
@pytest.mark.parametrize("settings", [ExportSettings(), int8("ft1")], ids=["fp32", "int8"])
def test_activations(activation: str, settings: ExportSettings, tmp_path: Path) -> None:
    source = tiny_source(mode="ft1", hidden_act=activation)
    assert np.median(differences(source, settings, tmp_path)) < SAME_INTEGERS


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("target", ["contrib", "openvino", "tensorrt"])
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_int8(mode: str, target: str, task: str, tmp_path: Path) -> None:
    if (mode, target) == ("ort", "tensorrt"):
        pytest.skip("TensorRT has no unsigned integers")
    found = differences(tiny_source(task, mode), int8(mode, **TARGETS[target]), tmp_path)
    assert (found < SAME_INTEGERS).sum() >= 4, found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_int8_portable(mode: str, task: str, tmp_path: Path) -> None:
    """Where products are not rounded, biases are: to int32, off by up to half a step of the product. That moves some
    integers, and the logits by less than quantization itself does."""
    source, settings = tiny_source(task, mode), int8(mode, portable=True)
    model, reference = run_both(source, settings, tmp_path)
    batches = [make_batch(source.config, lengths, seed=seed) for seed, lengths in enumerate(SHAPES)]
    comparison = compare_on_batches(lambda: model, lambda: reference, settings, batches)
    assert comparison.relative is not None
    assert comparison.relative < (0.01 if mode in ("ft2", "ft3") else 0.9)


@pytest.mark.parametrize(
    "settings",
    [ExportSettings(), int8("ort"), int8("ft3"), int8("ft1", target="openvino")],
    ids=ExportSettings.describe,
)
def test_int8_embeddings(settings: ExportSettings, tmp_path: Path) -> None:
    """The reference has the same rounded tables; the tables themselves differ from the float ones."""
    mode = settings.mode.name if settings.mode else None
    source, small = tiny_source(mode=mode), dataclasses.replace(settings, int8_embeddings=True)
    assert np.median(differences(source, small, tmp_path / "small")) < SAME_INTEGERS
    batch = make_batch(source.config, (30,))
    with_tables, without = run_both(source, small, tmp_path / "a")[0], run_both(source, settings, tmp_path / "b")[0]
    assert np.abs(with_tables.predict(batch)["start_logits"] - without.predict(batch)["start_logits"]).max() > 1e-3


def test_eight_bit_weights_are_exact_in_our_sessions(tmp_path: Path) -> None:
    """Also on a CPU without VNNI: the session option that the model's metadata call for."""
    found = differences(tiny_source(mode="ft1"), int8("ft1", reduce_range=False), tmp_path)
    assert (found < SAME_INTEGERS).sum() >= 4, found


def test_padding_does_not_matter(tmp_path: Path) -> None:
    source = tiny_source(mode="ft2")
    model, _ = run_both(source, int8("ft2"), tmp_path)
    short, long = make_batch(source.config, (9, 4)), make_batch(source.config, (9, 4), padded=40)
    for name, logits in model.predict(short).items():
        np.testing.assert_allclose(model.predict(long)[name][0, :9], logits[0], atol=1e-6)
        np.testing.assert_allclose(model.predict(long)[name][1, :4], logits[1, :4], atol=1e-6)


def test_ranges_of_nothing(tmp_path: Path) -> None:
    """Quantizers whose tensor was all zero, and a dead channel: zeros, no NaN."""
    source = tiny_source(mode="ft3")
    scope = "bert/encoder/layer_0/attention/self"
    for name in ("matmul_v_input_quantizer", "matmul_a_input_quantizer", "value/aftergemm_quantizer"):
        source.checkpoint.ranges[f"{scope}/{name}"] = np.zeros((), np.float32)
    assert source.head == QUESTION_ANSWERING
    for number, form in enumerate(TARGETS.values()):
        found = differences(source, int8("ft3", **form), tmp_path / str(number))
        assert (found < SAME_INTEGERS).sum() >= 4, (form, found)
    source = tiny_source(mode="ft1")
    source.tensors[f"{scope}/query/kernel"][:, 3] = 0
    source.checkpoint.ranges[f"{scope}/query/kernel_quantizer"][3] = 0
    for number, form in enumerate(TARGETS.values()):
        found = differences(source, int8("ft1", **form), tmp_path / f"dead{number}")
        assert np.isfinite(found).all() and found.max() < 1.0, (form, found)
