import logging

import numpy as np
import pytest

from checkpoints.tf_bundle import BundleReader, write_bundle
from checkpoints.tf_checkpoint import read_tf_checkpoint, write_tf_checkpoint
from twinquant.errors import UserError

QUERY = "bert/encoder/layer_0/attention/self/query"


def write_variables(prefix, checkpoint, extra):
    write_bundle(prefix, checkpoint.tensors | {name: np.asarray(value) for name, value in extra.items()})


def test_a_round_trip_keeps_everything(tmp_path, squad_checkpoint, assert_same_arrays):
    write_tf_checkpoint(tmp_path / "model.ckpt-5", squad_checkpoint, global_step=5)
    found = read_tf_checkpoint(tmp_path / "model.ckpt-5")
    assert_same_arrays(found.tensors, squad_checkpoint.tensors)
    assert_same_arrays(found.ranges, squad_checkpoint.ranges)
    assert found.config == squad_checkpoint.config
    assert found.metadata == {"global_step": "5"}
    assert found.vocab_file == tmp_path / "vocab.txt"
    assert found.vocab_file.read_bytes() == squad_checkpoint.vocab_file.read_bytes()
    assert found.unused == []


def test_ranges_are_stored_as_the_original_stores_them(tmp_path, squad_checkpoint):
    write_tf_checkpoint(tmp_path / "m", squad_checkpoint)
    listed = BundleReader(tmp_path / "m").entries
    kernel, final_input = (
        listed[f"{name}/quant_max"] for name in (f"{QUERY}/kernel_quantizer", "bert/final_input_quantizer")
    )
    assert (kernel.dtype, kernel.shape) == ("float32", (8,))
    assert (final_input.dtype, final_input.shape) == ("float32", ())
    pairs = [name for name in listed if name.endswith("/quant_min")]
    assert len(pairs) == len(squad_checkpoint.ranges)


def test_kernel_ranges_of_the_original_are_signed(tmp_path, make_checkpoint, caplog):
    extra = {
        f"{QUERY}/kernel_quantizer/quant_min": np.array([-3, 1, -0.5], np.float32),
        f"{QUERY}/kernel_quantizer/quant_max": np.array([2, 4, 0.25], np.float32),
        f"{QUERY}/input_quantizer/quant_min": np.float32(-1.5),
        f"{QUERY}/input_quantizer/quant_max": np.float32(1.5),
    }
    write_variables(tmp_path / "m", make_checkpoint(), extra)
    ranges = read_tf_checkpoint(tmp_path / "m").ranges
    np.testing.assert_array_equal(ranges[f"{QUERY}/kernel_quantizer"], np.array([3, 4, 0.5], np.float32), strict=True)
    np.testing.assert_array_equal(ranges[f"{QUERY}/input_quantizer"], np.array(1.5, np.float32), strict=True)
    assert not caplog.records


@pytest.mark.parametrize(
    ("quantizer", "low", "high"),
    [
        ("input_quantizer", -0.25, 0.75),
        ("matmul_q_input_quantizer", 0.5, -0.5),
        ("kernel_quantizer", 0.7, -0.1),
        ("kernel_quantizer", [-1, 2], [1, 1]),
    ],
    ids=["asymmetric", "negative", "kernel", "kernel-per-channel"],
)
def test_random_ranges_are_dropped_with_a_warning(tmp_path, make_checkpoint, caplog, quantizer, low, high):
    extra = {
        "bert/final_input_quantizer/quant_min": np.float32(-1),
        "bert/final_input_quantizer/quant_max": np.float32(1),
        f"{QUERY}/{quantizer}/quant_min": np.array(low, np.float32),
        f"{QUERY}/{quantizer}/quant_max": np.array(high, np.float32),
    }
    write_variables(tmp_path / "m", make_checkpoint(), extra)
    with caplog.at_level(logging.WARNING, logger="twinquant"):
        checkpoint = read_tf_checkpoint(tmp_path / "m")
    assert checkpoint.ranges == {}
    assert "the 2 quantizer ranges are dropped because the checkpoint was never calibrated" in caplog.text
    assert f"{QUERY}/{quantizer}" in caplog.text
    assert not checkpoint.unused


def test_ranges_that_are_not_finite_stay_for_the_quantizer_to_report(tmp_path, make_checkpoint):
    extra = {
        "bert/final_input_quantizer/quant_min": np.float32("nan"),
        "bert/final_input_quantizer/quant_max": np.float32("nan"),
    }
    write_variables(tmp_path / "m", make_checkpoint(), extra)
    assert np.isnan(read_tf_checkpoint(tmp_path / "m").ranges["bert/final_input_quantizer"])


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"bert/final_input_quantizer/quant_min": np.float32(-1)}, "bert/final_input_quantizer/quant_max is missing"),
        (
            {
                f"{QUERY}/input_quantizer/quant_min": -np.ones(8, np.float32),
                f"{QUERY}/input_quantizer/quant_max": np.ones(8, np.float32),
            },
            r"quant_min \(8,\) and quant_max \(8,\) of .*query/input_quantizer",
        ),
        ({"bert/encoder/layer_0/amaxList": np.ones(7, np.float32)}, "kernels were packed to INT8"),
        ({"output_bias": np.zeros(3, np.int32)}, "the tensor output_bias of .* is int32, expected floats"),
    ],
    ids=["half", "per-channel activation", "packed", "integers"],
)
def test_checkpoints_that_cannot_be_used(tmp_path, make_checkpoint, extra, sentence):
    write_variables(tmp_path / "m", make_checkpoint(), extra)
    with pytest.raises(UserError, match=sentence):
        read_tf_checkpoint(tmp_path / "m")


def test_optimizer_slots_and_other_heads_are_unused_and_not_read(tmp_path, make_checkpoint, assert_same_arrays):
    checkpoint = make_checkpoint()
    slots = {
        f"{QUERY}/kernel/adam_m": np.ones((8, 8), np.float32),
        f"{QUERY}/kernel/adam_v": np.ones((8, 8), np.float32),
        "zz/cls/predictions/output_bias": np.zeros(30, np.float32),
    }
    write_variables(tmp_path / "m", checkpoint, slots)
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-4])  # damages the last tensor, which is one of the unused
    found = read_tf_checkpoint(tmp_path / "m")
    assert found.unused == sorted(slots)
    assert_same_arrays(found.tensors, checkpoint.tensors)


def test_a_bundle_of_another_model_is_refused(tmp_path):
    write_bundle(tmp_path / "m", {"resnet/conv1/kernel": np.ones(1, np.float32)})
    with pytest.raises(UserError, match="holds no BERT tensors: .* found resnet/conv1/kernel"):
        read_tf_checkpoint(tmp_path / "m")


def test_the_missing_data_of_a_real_checkpoint_is_said(shared_data):
    prefix = shared_data / "models" / "tf_index" / "uncased_L-8_H-512_A-8" / "bert_model.ckpt"
    with pytest.raises(UserError, match=r"the data file .*bert_model\.ckpt\.data-00000-of-00001 is missing"):
        read_tf_checkpoint(prefix)


def test_object_based_checkpoints_are_read_if_their_names_are_canonical(tmp_path, make_checkpoint, assert_same_arrays):
    tf = pytest.importorskip("tensorflow")
    checkpoint = make_checkpoint()
    variables = {name: tf.Variable(tensor) for name, tensor in checkpoint.tensors.items()}
    tf.train.Checkpoint(**variables).write(str(tmp_path / "named"))
    found = read_tf_checkpoint(tmp_path / "named")
    assert_same_arrays(found.tensors, checkpoint.tensors)
    assert found.unused == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    tf.train.Checkpoint(model=tf.Variable(1.0)).write(str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"is an object-based TensorFlow 2 checkpoint .*model/\.ATTRIBUTES"):
        read_tf_checkpoint(tmp_path / "other")
