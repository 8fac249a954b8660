"""An ONNX file read without its weights: they stay where they are, as external data that lies in the file itself.

A whole model would be in memory twice, once as bytes and once as the message made of them. Format: onnx.proto3 (field 7
of ModelProto is graph, 5 of GraphProto initializer, 9 of TensorProto raw_data). Mirrors model_file.py, which writes it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.protobuf_wire import BYTES, FIXED32, FIXED64, VARINT, bytes_field, read_varint

if TYPE_CHECKING:
    import onnx

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_SMALLEST_LEFT_OUT = 1024


def read_outline(path: str | Path) -> onnx.ModelProto:
    """The model's message, in which constants of 1 KiB and more are external data of the file `path` itself.

    Raises OSError where the file cannot be read, ValueError or google.protobuf.message.DecodeError where it is damaged.
    """
    from onnx import ModelProto

    if Path(path).stat().st_size == 0:  # which no memory map can have
        return ModelProto()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        message = b"".join(
            bytes_field(_GRAPH, _graph(data, start, end, Path(path).name)) if number == _GRAPH else data[first:end]
            for number, first, start, end in _fields(data, 0, len(data))
        )
    return ModelProto.FromString(message)


def _graph(data: mmap.mmap, start: int, end: int, name: str) -> bytes:
    return b"".join(
        bytes_field(_INITIALIZER, _constant(data, content, last, name)) if number == _INITIALIZER else data[first:last]
        for number, first, content, last in _fields(data, start, end)
    )


def _constant(data: mmap.mmap, start: int, end: int, name: str) -> bytes:
    """A constant's message; where its data is long, it says where in the file that is."""
    from onnx import StringStringEntryProto, TensorProto

    fields = list(_fields(data, start, end))
    long = [field for field in fields if field[0] == _RAW_DATA and field[3] - field[2] >= _SMALLEST_LEFT_OUT]
    if len(long) != 1:
        return data[start:end]
    constant = TensorProto.FromString(b"".join(data[first:last] for n, first, _, last in fields if n != _RAW_DATA))
    if constant.external_data:
        return data[start:end]
    _, _, content, last = long[0]
    entries = {"location": name, "offset": content, "length": last - content}
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.extend(StringStringEntryProto(key=key, value=str(value)) for key, value in entries.items())
    return constant.SerializeToString(deterministic=True)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Per field of the message in data[start:end]: its number, where it begins, and where its content begins and ends.

    Raises ValueError where the message is damaged.
    """
    position = start
    while position < end:
        first = position
        tag, position = read_varint(data, position)
        kind = tag & 7
        if kind == VARINT:
            content = position
            _, position = read_varint(data, position)
        elif kind in (BYTES, FIXED32, FIXED64):
            length = {FIXED32: 4, FIXED64: 8}.get(kind, 0)
            if kind == BYTES:
                length, position = read_varint(data, position)
            content = position
            position += length
        else:
            raise ValueError(f"a field has the unknown wire type {kind}")
        if position > end:
            raise ValueError("a field is cut off")
        yield tag >> 3, first, content, position
