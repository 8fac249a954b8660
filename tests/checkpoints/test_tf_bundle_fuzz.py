"""Damaged bundles give a UserError or, where the damage hits unused bytes, the right tensors; never anything else."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.protobuf_wire import bytes_field, varint_field
from checkpoints.table_format import TableError, read_table, write_table
from checkpoints.tf_bundle import BundleReader, write_bundle
from twinquant.errors import UserError

TENSORS = {f"layer_{index}/kernel": np.full((index % 3, 2), index, np.float32) for index in range(150)}
# About two seconds in all; the time limit per example is what would show a hang.
FUZZ = settings(max_examples=60, deadline=2000, database=None)


@pytest.fixture(scope="module")
def intact() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(f"{folder}/m", TENSORS)
        return Path(f"{folder}/m.index").read_bytes(), Path(f"{folder}/m.data-00000-of-00001").read_bytes()


def read_all(index: bytes, data: bytes) -> dict[str, np.ndarray] | UserError:
    with tempfile.TemporaryDirectory() as folder:
        Path(f"{folder}/m.index").write_bytes(index)
        Path(f"{folder}/m.data-00000-of-00001").write_bytes(data)
        try:
            reader = BundleReader(f"{folder}/m")
            return {name: reader.read(name) for name in reader.entries}
        except UserError as error:
            return error


def check(result: dict[str, np.ndarray] | UserError) -> None:
    if isinstance(result, UserError):
        assert "/m." in str(result)
        return
    assert result.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(result[name], array)


@FUZZ
@given(cut=st.integers(1, 20000), of_index=st.booleans())
def test_truncation_is_always_noticed(intact, cut, of_index):
    index, data = intact
    files = (index[: -min(cut, len(index))], data) if of_index else (index, data[: -min(cut, len(data))])
    assert isinstance(read_all(*files), UserError)


@FUZZ
@given(
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4),
    of_index=st.booleans(),
)
def test_flipped_bytes(intact, flips, of_index):
    files = [bytearray(file) for file in intact]
    target = files[0] if of_index else files[1]
    for position, value in flips:
        target[position % len(target)] ^= value
    check(read_all(bytes(files[0]), bytes(files[1])))


@FUZZ
@given(message=st.binary(max_size=40))
def test_any_entry_behind_a_right_checksum(message):
    index = write_table([(b"", varint_field(1, 1)), (b"x", message)])
    result = read_all(index, bytes(64))
    assert isinstance(result, UserError) or result["x"].nbytes <= 128


@FUZZ
@given(sizes=st.lists(st.integers(0, (1 << 64) - 1), max_size=70))
def test_any_shape_behind_a_right_checksum(sizes):
    shape = b"".join(bytes_field(2, varint_field(1, size)) for size in sizes)
    index = write_table([(b"", varint_field(1, 1)), (b"x", varint_field(1, 1) + bytes_field(2, shape))])
    result = read_all(index, bytes(64))
    assert isinstance(result, UserError) or result["x"].size <= 16


@FUZZ
@given(keys=st.sets(st.binary(max_size=30), max_size=80), value=st.binary(max_size=200))
def test_tables_keep_any_keys_and_values(keys, value):
    entries = {key: value[: len(key)] * 3 for key in sorted(keys)}
    assert read_table(write_table(entries.items())) == entries


def test_names_that_grow_with_every_entry_are_refused():
    """Each shares all of the one before: the file is small, the names together would be of its size squared."""
    name = b"x" * 4096
    assert read_table(write_table([(name, b"")])) == {name: b""}
    with pytest.raises(TableError, match="is damaged: a name has 4097 bytes, expected at most 4096"):
        read_table(write_table((b"x" * length, b"") for length in range(1, 5000)))


@FUZZ
@given(content=st.binary(max_size=200))
def test_foreign_tables(content):
    with pytest.raises(TableError):
        read_table(content + bytes(40) + bytes.fromhex("57fb808b247547db"))
