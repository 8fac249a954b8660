"""The bundle format against TensorFlow's own reader and writer."""

import json
import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import numpy as np
import pytest

from checkpoints.config import BertConfig
from checkpoints.names import expected_tensors
from checkpoints.table_format import masked_crc32c, read_table, write_table
from checkpoints.tf_bundle import BundleReader, write_bundle
from twinquant.errors import UserError

REAL_INDEXES = ["chinese_wwm_L-12_H-768", "uncased_L-8_H-512_A-8"]


def list_bundle(prefix: str | os.PathLike[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every tensor, from the index alone."""
    return {name: (entry.dtype, entry.shape) for name, entry in BundleReader(prefix).entries.items()}


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def many_tensors() -> dict[str, np.ndarray]:
    """Enough names for an index of several blocks in our writer and in TensorFlow's (4 KiB and 256 KiB each)."""
    rng = np.random.default_rng(1)
    tensors = {f"scope_{i % 7}/layer_{i}/kernel": rng.normal(size=(i % 4, 3)).astype(np.float32) for i in range(9000)}
    return {
        **tensors,
        "scalar": np.array(-2.5, np.float32),
        "global_step": np.array(5474, np.int64),
        "negative": np.array([-1, 2], np.int32),
        "flags": np.array([True, False]),
        "名前": np.ones((2, 1, 3), np.float32),
    }


def save_with_tensorflow(tf, prefix, tensors):
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )


def test_tensorflow_reads_what_we_write(tf, tmp_path, many_tensors):
    prefix = tmp_path / "model.ckpt"
    write_bundle(prefix, many_tensors)
    assert sorted(os.listdir(tmp_path)) == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    reader = tf.train.load_checkpoint(str(prefix))
    assert set(reader.get_variable_to_shape_map()) == set(many_tensors)
    for name, array in many_tensors.items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)
    names = ["scalar", "scope_3/layer_3/kernel"]
    restored = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=["", ""], dtypes=[tf.float32, tf.float32]
    )
    for name, array in zip(names, restored, strict=True):
        np.testing.assert_array_equal(array, many_tensors[name])


def test_a_tensorflow_1_saver_restores_what_we_write(tf, tmp_path):
    expected = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "global_step": np.array(7, np.int64)}
    write_bundle(tmp_path / "model.ckpt-7", expected)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=np.zeros_like(array)) for name, array in expected.items()
        }
        tf.compat.v1.train.Saver(list(variables.values())).restore(session, str(tmp_path / "model.ckpt-7"))
        for name, array in expected.items():
            np.testing.assert_array_equal(session.run(variables[name]), array)


def test_we_read_what_tensorflow_writes(tf, tmp_path, many_tensors, assert_same_arrays):
    save_with_tensorflow(tf, tmp_path / "model.ckpt", many_tensors)
    reader = BundleReader(tmp_path / "model.ckpt")
    assert_same_arrays({name: reader.read(name) for name in reader.entries}, many_tensors)


def test_we_read_several_shards(tf, tmp_path, assert_same_arrays):
    parts = [{"a": np.ones(3, np.float32)}, {"b": np.full((2, 2), 5, np.float32), "c": np.array(1, np.int64)}]
    prefixes = [str(tmp_path / f"part{index}") for index in range(2)]
    for prefix, part in zip(prefixes, parts, strict=True):
        save_with_tensorflow(tf, prefix, part)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(tmp_path / "whole"))
    assert (tmp_path / "whole.data-00001-of-00002").exists()
    reader = BundleReader(tmp_path / "whole")
    assert_same_arrays({name: reader.read(name) for name in reader.entries}, parts[0] | parts[1])


def test_narrow_and_wide_floats_become_float32(tf, tmp_path):
    values = np.array([1.0, -0.15625, 65504.0, 3e-5], np.float32)
    types = [tf.float16, tf.bfloat16, tf.float64]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=["float16", "bfloat16", "float64"],
        shape_and_slices=[""] * 3,
        tensors=[tf.cast(values, dtype) for dtype in types],
    )
    reader = BundleReader(tmp_path / "m")
    for dtype in types:
        found = reader.read(dtype.name)
        np.testing.assert_array_equal(found, tf.cast(tf.cast(values, dtype), tf.float32).numpy(), strict=True)
    assert list_bundle(tmp_path / "m")["bfloat16"] == ("bfloat16", (4,))


def test_strings_are_listed_but_not_read(tf, tmp_path):
    save_with_tensorflow(tf, tmp_path / "m", {"text": np.array(["a"]), "x": np.ones(1, np.float32)})
    assert list_bundle(tmp_path / "m") == {"text": ("string", (1,)), "x": ("float32", (1,))}
    with pytest.raises(UserError, match="the tensor text of .* has the type string, expected numbers"):
        BundleReader(tmp_path / "m").read("text")


def test_partitioned_variables_are_refused_by_name(tf, tmp_path):
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=["whole", "part", "part"],
        shape_and_slices=["", "4 2 0,2:-", "4 2 2,2:-"],
        tensors=[tf.ones(1), tf.zeros((2, 2)), tf.ones((2, 2))],
    )
    assert list_bundle(tmp_path / "m")["part"] == ("float32", (4, 2))
    with pytest.raises(UserError, match="the tensor part of .* is stored in slices"):
        BundleReader(tmp_path / "m").read("part")


@pytest.mark.parametrize("model", REAL_INDEXES)
def test_real_indexes_list_their_variables_and_fit_their_config(shared_data, model):
    folder = shared_data / "models" / "tf_index" / model
    listed = list_bundle(folder / "bert_model.ckpt")
    variables = {name: tuple(shape) for name, shape in json.loads((folder / "variables.json").read_text())}
    assert {name: shape for name, (_, shape) in listed.items()} == variables
    config = BertConfig.from_json_file(folder / "bert_config.json")
    expected = expected_tensors(config, pooler=True)
    assert {name: listed.get(name) for name in expected} == {
        name: ("float32", shape) for name, shape in expected.items()
    }
    left = set(listed) - set(expected)
    assert all(name.startswith("cls/") or name == "global_step" for name in left)


@pytest.mark.parametrize("model", REAL_INDEXES)
def test_rewriting_a_real_index_changes_no_entry(shared_data, model):
    original = read_table((shared_data / "models" / "tf_index" / model / "bert_model.ckpt.index").read_bytes())
    assert read_table(write_table(original.items())) == original


@pytest.mark.parametrize("model", REAL_INDEXES)
def test_a_missing_data_file_is_named(shared_data, model):
    prefix = shared_data / "models" / "tf_index" / model / "bert_model.ckpt"
    with pytest.raises(UserError, match=r"the data file .*bert_model\.ckpt\.data-00000-of-00001 is missing"):
        BundleReader(prefix).read("bert/embeddings/word_embeddings")


@pytest.fixture
def small(tmp_path):
    write_bundle(tmp_path / "m", {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float32)})
    return tmp_path / "m"


def data_of(prefix):
    return prefix.with_name(prefix.name + ".data-00000-of-00001")


def test_truncated_data_is_named_with_its_tensor(small):
    with open(data_of(small), "r+b") as file:
        file.truncate(30)
    reader = BundleReader(small)
    assert len(reader.read("a")) == 6
    with pytest.raises(UserError, match=r"m\.data-00000-of-00001 is truncated: the tensor b ends at byte 40"):
        reader.read("b")


def test_empty_data_is_truncated_data(small):
    data_of(small).write_bytes(b"")
    with pytest.raises(UserError, match="is truncated: the tensor a"):
        BundleReader(small).read("a")


def test_damaged_data_is_named_with_its_tensor(small):
    with open(data_of(small), "r+b") as file:
        file.seek(26)
        file.write(b"\x01")
    with pytest.raises(UserError, match=r"m\.data-00000-of-00001 is damaged: the checksum of the tensor b is wrong"):
        BundleReader(small).read("b")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is truncated or is not the index"),
        (b"hello" * 100, "is truncated or is not the index"),
        (None, "cannot read"),
        (write_table([]), "has no header"),
        (write_table([(b"", b"\x10\x01")]), "big-endian"),
        (write_table([(b"", b"")]), "names 0 data files"),
        (write_table([(b"", b"\x08\x01"), (b"x", b"\x18\x05")]), "the entry of b'x' makes no sense"),
        (write_table([(b"", b"\x08\x01"), (b"x", b"\x08")]), "is damaged: a number is cut off"),
        (write_table([(b"", b"\x08\x01"), (b"\xff", b"")]), "is damaged"),
    ],
    ids=["empty", "foreign", "absent", "headless", "big-endian", "shardless", "shard", "cut", "name"],
)
def test_indexes_that_cannot_be_used(tmp_path, content, sentence):
    path = tmp_path / "m.index"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        list_bundle(tmp_path / "m")
    assert str(path) in str(caught.value)


def test_compressed_indexes_are_refused(small):
    path = small.with_name("m.index")
    data = bytearray(path.read_bytes())
    block_size = next(
        index
        for index in range(len(data))
        if masked_crc32c(bytes(data[: index + 1])) == int.from_bytes(data[index + 1 : index + 5], "little")
    )
    data[block_size] = 1
    data[block_size + 1 : block_size + 5] = masked_crc32c(bytes(data[: block_size + 1])).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"m\.index is compressed with snappy"):
        list_bundle(small)


def test_an_absent_tensor_is_named(small):
    with pytest.raises(UserError, match=r"m\.index has no tensor zzz"):
        BundleReader(small).read("zzz")


def test_a_write_error_leaves_the_old_bundle(small, monkeypatch, assert_same_arrays):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(UserError, match=r"cannot write .*m\.data-00000-of-00001: No space left on device"):
            write_bundle(small, {"other": np.ones(1, np.float32)})
    assert len(os.listdir(small.parent)) == 2
    reader = BundleReader(small)
    assert_same_arrays({"a": reader.read("a")}, {"a": np.arange(6, dtype=np.float32)})


def test_unusual_arrays_are_written_in_c_order(tmp_path, assert_same_arrays):
    arrays = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.int64)[::2],
        "big_endian": np.arange(3, dtype=">f4"),
        "empty": np.zeros((0, 4), np.float32),
    }
    write_bundle(tmp_path / "m", arrays)
    reader = BundleReader(tmp_path / "m")
    arrays["big_endian"] = arrays["big_endian"].astype(np.float32)
    assert_same_arrays({name: reader.read(name) for name in arrays}, arrays)


def test_what_was_read_outlives_the_file(small):
    array = BundleReader(small).read("a")
    shutil.rmtree(small.parent)
    array += 1
    np.testing.assert_array_equal(array, np.arange(1, 7))


def test_types_that_tensorflow_lacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the tensor x has the type <U1"):
        write_bundle(tmp_path / "m", {"x": np.array("a")})
