"""The int8 file of q8bert: what it holds, against NumPy; what reading gives back; damaged and foreign files."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from checkpoints.q8bert_file import FILE_NAME, read_q8bert, write_q8bert
from quantization.modes import all_quantizers, enabled_quantizers, q8bert_mode
from quantization.numerics import ZERO_AMAX, scale_of
from training.initialization import random_checkpoint
from twinquant.errors import UserError

MODE = q8bert_mode()
HEADS = {QUESTION_ANSWERING: None, CLASSIFICATION: 3}
QUERY = "bert/encoder/layer_0/attention/self/query"
WORDS = "bert/embeddings/word_embeddings"


@pytest.fixture
def trained(make_checkpoint, tmp_path):
    """Makes a checkpoint with a head and the ranges of a training."""

    def make(head=CLASSIFICATION, **config_changes):
        checkpoint = make_checkpoint(head, num_labels=HEADS[head])
        labels = ["no", "yes", "maybe"]
        checkpoint.config = replace(checkpoint.config.with_labels(labels), **config_changes)
        rows = all_quantizers(checkpoint.config.num_hidden_layers, head)
        scopes = [
            s for s in enabled_quantizers(checkpoint.config.num_hidden_layers, MODE, head) if not rows[s].is_weight
        ]
        ranges = np.random.default_rng(1).uniform(0.1, 9, len(scopes)).astype(np.float32)
        checkpoint.ranges = dict(zip(scopes, ranges, strict=True))
        checkpoint.vocab_file = tmp_path / "words.txt"
        checkpoint.vocab_file.write_text("[PAD]\nword\n")
        checkpoint.metadata = {"do_lower_case": "false"}
        return checkpoint

    return make


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    return folder / FILE_NAME


def weight_names(head):
    rows = all_quantizers(2, head)
    return [s.removesuffix("_quantizer") for s in enabled_quantizers(2, MODE, head) if rows[s].is_weight]


def contents(path):
    """Arrays and metadata, by the safetensors library alone."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def rewrite(path, change):
    """Writes the file again with changed arrays or metadata."""
    arrays, metadata = contents(path)
    change(arrays, metadata)
    path.write_bytes(safetensors.numpy.save(arrays, metadata))


@pytest.mark.parametrize("head", HEADS)
def test_weights_are_int8_biases_int32_and_the_rest_float32(path, trained, head):
    checkpoint = trained(head)
    write_q8bert(path, checkpoint, MODE)
    arrays, metadata = contents(path)
    scales = {name.removesuffix("/scale") for name in arrays if name.endswith("/scale")}
    assert scales == set(enabled_quantizers(2, MODE, head))
    kinds = {name: array.dtype.name for name, array in arrays.items() if not name.endswith("/scale")}
    assert kinds.keys() == checkpoint.tensors.keys()
    assert {name for name, kind in kinds.items() if kind == "int8"} == set(weight_names(head))
    int32 = {name for name, kind in kinds.items() if kind == "int32"}
    assert int32 == {name for name in kinds if name.endswith("bias")}
    floats = {name for name, kind in kinds.items() if kind == "float32"}
    assert floats == {name for name in kinds if "LayerNorm" in name or "token_type" in name}
    for name in floats:
        np.testing.assert_array_equal(arrays[name], checkpoint.tensors[name])
    assert metadata["format"] == "twinquant q8bert" and metadata["version"] == "1" and metadata["head"] == head
    assert json.loads(metadata["labels"]) == ["no", "yes", "maybe"]


def test_integers_and_scales_are_those_of_the_formulae(path, trained):
    checkpoint = trained()
    write_q8bert(path, checkpoint, MODE)
    arrays, _ = contents(path)
    kernel, bias = checkpoint.tensors[f"{QUERY}/kernel"], checkpoint.tensors[f"{QUERY}/bias"]
    weight_scale = np.float32(np.abs(kernel).max() / np.float32(127))
    input_scale = np.float32(checkpoint.ranges[f"{QUERY}/input_quantizer"] / np.float32(127))
    assert arrays[f"{QUERY}/kernel_quantizer/scale"] == weight_scale
    assert arrays[f"{QUERY}/input_quantizer/scale"] == input_scale
    np.testing.assert_array_equal(arrays[f"{QUERY}/kernel"], np.rint(kernel / weight_scale))
    steps = bias / (float(weight_scale) * float(input_scale))
    np.testing.assert_array_equal(arrays[f"{QUERY}/bias"], np.rint(steps))


@pytest.mark.parametrize("head", HEADS)
def test_reading_gives_multiples_of_the_same_scales(path, trained, head):
    """Of the fake-quantized weights to the bit, of ranges with the same scale, and biases half a step off at most."""
    checkpoint = trained(head)
    write_q8bert(path, checkpoint, MODE)
    read = read_q8bert(path)
    arrays, _ = contents(path)
    assert read.tensors.keys() == checkpoint.tensors.keys() and read.ranges.keys() == checkpoint.ranges.keys()
    for name in weight_names(head):
        scale = arrays[f"{name}_quantizer/scale"]
        assert scale_of(np.abs(read.tensors[name]).max(), MODE.weight) == scale, name
        np.testing.assert_array_equal(np.rint(read.tensors[name] / scale), arrays[name], err_msg=name)
        inside = np.abs(arrays[name]) < 127
        np.testing.assert_array_equal(read.tensors[name][inside], (arrays[name] * scale)[inside], err_msg=name)
    for scope, amax in read.ranges.items():
        assert scale_of(amax, MODE.activation) == scale_of(checkpoint.ranges[scope], MODE.activation), scope
    for name in (name for name in read.tensors if name.endswith("bias")):
        layer = name.removesuffix("bias")
        weight, input_ = ("weights", "input") if layer.endswith("output_") else ("kernel", "input")
        step = float(arrays[f"{layer}{weight}_quantizer/scale"]) * float(arrays[f"{layer}{input_}_quantizer/scale"])
        wrong = np.abs(read.tensors[name].astype(np.float64) - checkpoint.tensors[name])
        assert (wrong <= step / 2 + np.spacing(np.abs(checkpoint.tensors[name]))).all(), name


def test_what_was_read_writes_the_same_file(path, trained):
    write_q8bert(path, trained(), MODE)
    first = contents(path)
    write_q8bert(path, read_q8bert(path.parent), MODE)
    second = contents(path)
    assert second[1] == first[1]
    for name, array in first[0].items():
        np.testing.assert_array_equal(second[0][name], array, err_msg=name)


def test_the_scale_survives_for_any_range(path, trained):
    """Also at powers of two and at the smallest range, where amax and its scale round differently."""
    checkpoint, rng = trained(), np.random.default_rng(2)
    scopes = list(checkpoint.ranges)
    values = np.float32([ZERO_AMAX, 1, 127, 128, 2**20, *np.ldexp(rng.uniform(1, 2, 400), rng.integers(-24, 24, 400))])
    values = np.concatenate([values, np.nextafter(values, np.float32(np.inf))])
    for start in range(0, len(values), len(scopes)):
        chunk = dict(zip(scopes, values[start : start + len(scopes)], strict=False))
        checkpoint.ranges |= chunk
        write_q8bert(path, checkpoint, MODE)
        read = read_q8bert(path).ranges
        for scope, amax in chunk.items():
            assert scale_of(read[scope], MODE.activation) == scale_of(amax, MODE.activation)
            assert read[scope] >= ZERO_AMAX


def test_the_file_is_a_quarter_of_fp32(path, trained):
    checkpoint = trained(vocab_size=3000, hidden_size=64, intermediate_size=256)
    checkpoint.tensors = random_checkpoint(checkpoint.config, CLASSIFICATION, 0, 3).tensors
    write_q8bert(path, checkpoint, MODE)
    assert path.stat().st_size < 0.28 * sum(array.nbytes for array in checkpoint.tensors.values())


def test_config_vocabulary_and_casing_come_along(path, trained):
    checkpoint = trained()
    write_q8bert(path, checkpoint, MODE)
    assert sorted(file.name for file in path.parent.iterdir()) == ["config.json", FILE_NAME, "vocab.txt"]
    checkpoint.vocab_file.unlink()
    read = read_q8bert(path)
    assert read.vocab_file.read_text() == "[PAD]\nword\n"
    assert read.config.label_names == ["no", "yes", "maybe"] and read.config.hidden_size == 8
    assert read.metadata == {"do_lower_case": "false"} and read.source == str(path)


def test_labels_without_names_are_numbered(path, trained):
    checkpoint = trained()
    checkpoint.config = replace(checkpoint.config, extra={})
    write_q8bert(path, checkpoint, MODE)
    assert read_q8bert(path).label_names == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize("zero", [f"{QUERY}/kernel", f"{QUERY}/input_quantizer"], ids=["weight", "input"])
def test_zeros_keep_their_bias_in_float32(path, trained, zero):
    """There are no steps to count it in."""
    checkpoint = trained()
    if zero in checkpoint.tensors:
        checkpoint.tensors[zero][:] = 0
    else:
        checkpoint.ranges[zero] = np.float32(0)
    write_q8bert(path, checkpoint, MODE)
    arrays, _ = contents(path)
    assert arrays[f"{QUERY}/bias"].dtype == np.float32
    read = read_q8bert(path)
    np.testing.assert_array_equal(read.tensors[f"{QUERY}/bias"], checkpoint.tensors[f"{QUERY}/bias"])
    assert not (read.tensors[zero] if zero in read.tensors else read.ranges[zero]).any()


def test_a_bias_of_too_many_steps_stays_float32(path, trained):
    checkpoint = trained()
    checkpoint.tensors[f"{QUERY}/bias"][0] = 1e9
    write_q8bert(path, checkpoint, MODE)
    assert contents(path)[0][f"{QUERY}/bias"].dtype == np.float32
    assert read_q8bert(path).tensors[f"{QUERY}/bias"][0] == np.float32(1e9)


@pytest.mark.parametrize("kept", [0, 7, 100, -1], ids=["empty", "in-the-length", "in-the-header", "last-byte"])
def test_a_truncated_file_is_a_user_error(path, trained, kept):
    write_q8bert(path, trained(), MODE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is truncated or is not a safetensors file"):
        read_q8bert(path)


def bad_contents():
    """Changes of a good file, and what the sentence says."""
    yield "other-format", lambda a, m: m.pop("format"), "is no int8 file of this program: its format is None"
    yield "newer", lambda a, m: m.update(version="2"), "has version '2' of its format, this program reads version '1'"
    yield "other-head", lambda a, m: m.update(head="tokens"), "the head is 'tokens'"
    yield "no-labels", lambda a, m: m.update(labels="null"), "the labels are 'null', expected a JSON list of names"
    yield "broken-labels", lambda a, m: m.update(labels='["a'), "the labels are '[\"a', expected a JSON list of names"
    yield "fewer-labels", lambda a, m: m.update(labels='["a"]'), "output_weights is int8 (3, 8), expected int8 (1, 8)"
    yield "tensor-gone", lambda a, m: a.pop(WORDS), f"lacks {WORDS}"
    yield "scale-gone", lambda a, m: a.pop(f"{WORDS}_quantizer/scale"), f"lacks {WORDS}_quantizer/scale"
    yield "foreign-tensor", lambda a, m: a.update(more=np.zeros(3)), "holds more, which is no part of a model"
    yield "float-weight", lambda a, m: a.update({WORDS: a[WORDS].astype(np.float32)}), f"{WORDS} is float32 (30, 8)"
    yield "int-layer-norm", lambda a, m: as_integers(a), "beta is int32 (8,), expected float32 (8,)"
    yield "negative-scale", lambda a, m: scale(a, -1.0), "scale is -1.0, which is not the scale of a range"
    yield "nan-scale", lambda a, m: scale(a, np.nan), "scale is nan, which is not the scale of a range"
    yield "small-integers", lambda a, m: a.update({WORDS: a[WORDS] // 2}), f"the largest integer of {WORDS} is not 127"
    yield "minus-128", lambda a, m: a.update({WORDS: np.full((30, 8), -128, np.int8)}), "is not 127"


def as_integers(arrays):
    arrays["bert/embeddings/LayerNorm/beta"] = arrays["bert/embeddings/LayerNorm/beta"].astype(np.int32)


def scale(arrays, value):
    arrays[f"{QUERY}/input_quantizer/scale"] = np.asarray(value, np.float32)


BAD = {name: (change, sentence) for name, change, sentence in bad_contents()}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD)
def test_a_foreign_or_damaged_file_is_a_user_error(path, trained, change, sentence):
    write_q8bert(path, trained(), MODE)
    rewrite(path, change)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read_q8bert(path)
    assert str(path) in str(caught.value)


def test_what_is_not_there_is_a_user_error(path, trained):
    with pytest.raises(UserError, match=f"cannot read {re.escape(str(path))}"):
        read_q8bert(path.parent)
    write_q8bert(path, trained(), MODE)
    path.with_name("config.json").unlink()
    with pytest.raises(UserError, match="config.json is missing"):
        read_q8bert(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.ranges.pop(f"{QUERY}/input_quantizer"), "was not trained in mode q8bert"),
        (lambda c: c.ranges.update({f"{QUERY}/input_quantizer": np.float32(np.nan)}), "negative or not finite"),
        (lambda c: c.tensors[WORDS].fill(np.nan), f"{WORDS}, of shape (30, 8), holds NaN or infinity"),
        (lambda c: c.tensors.pop(f"{QUERY}/kernel"), "lacks 1 tensor the model needs"),
        (lambda c: c.tensors.pop("output_weights"), "has no head"),
        (lambda c: setattr(c, "config", None), "has no config"),
    ],
    ids=["no-range", "nan-range", "nan-weight", "no-weight", "no-head", "no-config"],
)
def test_a_model_that_cannot_be_written_is_a_user_error(path, trained, change, sentence):
    checkpoint = trained()
    change(checkpoint)
    with pytest.raises(UserError, match=re.escape(sentence)):
        write_q8bert(path, checkpoint, MODE)
    assert list(path.parent.iterdir()) == []
