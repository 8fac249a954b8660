"""TensorFlow's checkpoint files (bundle, "V2" format) without TensorFlow: `<prefix>.index` and `<prefix>.data-*`.

The index is a table (table_format.py) that maps "" to a BundleHeaderProto and every variable's name to a
BundleEntryProto: dtype, shape, shard, offset, size, checksum. The data files hold the bare little-endian bytes.
Source of the format: tensorflow/core/protobuf/tensor_bundle.proto. Keys are the variables' names, as TF 1's Saver
writes them; what the names mean is not this file's business (see tf_checkpoint.py).
"""

import dataclasses
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.protobuf_wire import bytes_field, fixed32_field, read_fields, signed, varint_field
from checkpoints.table_format import TableError, masked_crc32c, read_table, write_table
from twinquant.errors import UserError
from twinquant.files import write_files_atomically

# TensorFlow's DataType numbers (tensorflow/core/framework/types.proto). bfloat16 has no NumPy type and is widened.
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
_DTYPE_NUMBERS = {name: number for number, name in _DTYPES.items() if name != "bfloat16"}
_STRING = 7


@dataclasses.dataclass(frozen=True)
class BundleEntry:
    """Where one tensor lies: dtype name ("string" and unknown types included), shape, shard, byte range, checksum."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


class BundleReader:
    """Reads single tensors of a bundle; data files are memory-mapped and touched only where a tensor is read.

    Every fault of the files (missing, truncated, damaged, foreign) is a UserError naming the file and the tensor.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fspath(prefix)
        self.index_path = f"{self.prefix}.index"
        self.num_shards, self.entries = _read_index(self.index_path)
        self._shards: dict[int, np.ndarray] = {}

    def data_path(self, shard: int) -> str:
        """The data file of a shard."""
        return f"{self.prefix}.data-{shard:05d}-of-{self.num_shards:05d}"

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` as a new array; float16, bfloat16 and float64 become float32, other types are kept."""
        entry = self.entries.get(name)
        if entry is None:
            raise UserError(f"{self.index_path} has no tensor {name}")
        where = f"the tensor {name} of {self.index_path}"
        if entry.sliced:
            raise UserError(f"{where} is stored in slices (a partitioned variable), which is not supported")
        if entry.dtype not in _DTYPE_NUMBERS and entry.dtype != "bfloat16":
            raise UserError(f"{where} has the type {entry.dtype}, expected numbers")
        stored = np.dtype("<u2" if entry.dtype == "bfloat16" else entry.dtype).newbyteorder("<")
        count = math.prod(entry.shape)
        if entry.size != count * stored.itemsize:
            raise UserError(f"{where} takes {entry.size} bytes, its shape {entry.shape} of {entry.dtype} takes others")
        shard = self._shard(entry.shard, name)
        if entry.offset + entry.size > len(shard):
            raise UserError(
                f"{self.data_path(entry.shard)} is truncated: the tensor {name} ends at byte "
                f"{entry.offset + entry.size}, the file has {len(shard)} bytes"
            )
        raw = shard[entry.offset : entry.offset + entry.size]
        if masked_crc32c(raw) != entry.checksum:
            raise UserError(f"{self.data_path(entry.shard)} is damaged: the checksum of the tensor {name} is wrong")
        array = np.empty(count, stored)  # a copy: the file's bytes may be unaligned, and the file may be replaced
        array.view(np.uint8)[:] = raw
        if entry.dtype == "bfloat16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        elif entry.dtype in ("float16", "float64"):
            with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes inf, as in TensorFlow's cast
                array = array.astype(np.float32)
        return array.astype(array.dtype.newbyteorder("="), copy=False).reshape(entry.shape)

    def _shard(self, shard: int, name: str) -> np.ndarray:
        """A shard's bytes, mapped read-only."""
        if shard not in self._shards:
            path = self.data_path(shard)
            try:
                with open(path, "rb") as file:
                    empty = os.fstat(file.fileno()).st_size == 0
                    mapped: Any = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except FileNotFoundError as error:
                raise UserError(
                    f"the data file {path} is missing: {self.index_path} is there, but the tensors it lists (first "
                    f"wanted: {name}) are not"
                ) from error
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from error
            self._shards[shard] = np.frombuffer(mapped, np.uint8)
        return self._shards[shard]


def write_bundle(prefix: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `<prefix>.data-00000-of-00001`, then `<prefix>.index` (its rename is the commit point).

    Keys are the names sorted by their bytes, one shard, uncompressed: what TensorFlow 1.15's Saver writes and reads.
    Raises UserError when the files cannot be written, ValueError for a dtype TensorFlow does not have.
    """
    index = [(b"", varint_field(1, 1) + bytes_field(3, varint_field(1, 1)))]  # one shard, format version 1
    arrays = []
    offset = 0
    for name in sorted(tensors, key=lambda name: name.encode("utf-8")):
        if not name:
            raise ValueError("a tensor of a bundle must have a name")
        array = np.asarray(tensors[name])
        if array.dtype.name not in _DTYPE_NUMBERS:
            raise ValueError(f"the tensor {name} has the type {array.dtype}, which a TensorFlow bundle cannot hold")
        array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        arrays.append(array)
        index.append((name.encode("utf-8"), _encode_entry(array, offset)))
        offset += array.nbytes

    def write_data(path: Path) -> None:
        with open(path, "xb") as file:
            for array in arrays:
                file.write(array.data)

    def write_index(path: Path) -> None:
        path.write_bytes(write_table(index))

    write_files_atomically({f"{os.fspath(prefix)}.data-00000-of-00001": write_data, f"{prefix}.index": write_index})


def _read_index(path: str) -> tuple[int, dict[str, BundleEntry]]:
    """Number of shards and the entries by name."""
    try:
        table = read_table(Path(path).read_bytes())
        header = table.pop(b"", None)
        if header is None:
            raise TableError("has no header")
        fields = {number: value for number, _, value in read_fields(header)}
        if fields.get(2, 0) != 0:
            raise TableError("was written on a big-endian machine, which is not supported")
        num_shards = fields.get(1, 0)
        if not isinstance(num_shards, int) or not 1 <= num_shards <= 99999:
            raise TableError(f"is damaged: it names {num_shards!r} data files")
        entries = {}
        for key, value in table.items():
            if key.startswith(b"\0"):  # one slice of a partitioned variable; the variable's own entry says so
                continue
            entry = _decode_entry(value)
            elements = math.prod(max(size, 1) for size in entry.shape)
            if (
                not 0 <= entry.shard < num_shards
                or min((0, entry.offset, entry.size, *entry.shape)) < 0
                or (len(entry.shape) > 32 or elements > 1 << 56)  # beyond what NumPy can shape
            ):
                raise TableError(f"is damaged: the entry of {key!r} makes no sense")
            entries[key.decode("utf-8")] = entry
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except TableError as error:
        raise UserError(f"{path} {error}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return num_shards, entries


def _decode_entry(message: bytes) -> BundleEntry:
    """Reads BundleEntryProto: 1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size, 6 crc32c, 7 slices."""
    numbers = dict.fromkeys((1, 3, 4, 5, 6), 0)
    shape: tuple[int, ...] = ()
    sliced = False
    for field, _, value in read_fields(message):
        if field == 2 and isinstance(value, bytes):
            shape = tuple(_decode_dimension(dimension) for number, _, dimension in read_fields(value) if number == 2)
        elif field == 7:
            sliced = True
        elif field in numbers:
            if isinstance(value, bytes):
                raise TypeError(f"field {field} of an entry is not a number")
            numbers[field] = signed(value)
    dtype = "string" if numbers[1] == _STRING else _DTYPES.get(numbers[1], f"DataType {numbers[1]}")
    return BundleEntry(dtype, shape, numbers[3], numbers[4], numbers[5], numbers[6], sliced)


def _decode_dimension(message: int | bytes) -> int:
    """Reads TensorShapeProto.Dim: 1 size; an absent size is 0."""
    if not isinstance(message, bytes):
        raise TypeError("a dimension of a shape is not a message")
    sizes = [value for number, _, value in read_fields(message) if number == 1]
    if any(isinstance(size, bytes) for size in sizes):
        raise TypeError("a dimension of a shape is not a number")
    return signed(int(sizes[-1])) if sizes else 0


def _encode_entry(array: np.ndarray, offset: int) -> bytes:
    dimensions = b"".join(bytes_field(2, varint_field(1, size)) for size in array.shape)
    return (
        varint_field(1, _DTYPE_NUMBERS[array.dtype.name])
        + bytes_field(2, dimensions)
        + varint_field(4, offset)
        + varint_field(5, array.nbytes)
        + fixed32_field(6, masked_crc32c(array))
    )
