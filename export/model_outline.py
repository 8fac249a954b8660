"""An ONNX file read without its weights: they stay where they are, as external data that lies in the file itself.

A whole model would be in memory twice, once as bytes and once as the message made of them. Format: onnx.proto3 (field 7
of ModelProto is graph, 5 of GraphProto initializer, 9 of TensorProto raw_data). Mirrors model_file.py, which writes it.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.protobuf_wire import bytes_field, field_places

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
            for number, _, first, start, end in field_places(data, 0, len(data))
        )
    return ModelProto.FromString(message)


def _graph(data: mmap.mmap, start: int, end: int, name: str) -> bytes:
    return b"".join(
        bytes_field(_INITIALIZER, _constant(data, content, last, name)) if number == _INITIALIZER else data[first:last]
        for number, _, first, content, last in field_places(data, start, end)
    )


def _constant(data: mmap.mmap, start: int, end: int, name: str) -> bytes:
    """A constant's message; where its data is long, it says where in the file that is."""
    from onnx import StringStringEntryProto, TensorProto

    fields = list(field_places(data, start, end))
    long = [field for field in fields if field[0] == _RAW_DATA and field[4] - field[3] >= _SMALLEST_LEFT_OUT]
    if len(long) != 1:
        return data[start:end]
    constant = TensorProto.FromString(b"".join(data[first:last] for n, _, first, _, last in fields if n != _RAW_DATA))
    if constant.external_data:
        return data[start:end]
    *_, content, last = long[0]
    entries = {"location": name, "offset": content, "length": last - content}
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.extend(StringStringEntryProto(key=key, value=str(value)) for key, value in entries.items())
    return constant.SerializeToString(deterministic=True)
