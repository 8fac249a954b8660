"""ONNX files written straight from arrays: the constants pass through once and are never copied into one message.

A protocol buffer message is the sequence of its fields, so the file is put together here: the model without its graph,
the graph's length, the graph without constants, then one constant after the other. Format: onnx.proto3 (field 7 of
ModelProto is graph, 5 of GraphProto initializer, 9 of TensorProto raw_data).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnx import StringStringEntryProto, TensorProto, helper

from checkpoints.protobuf_wire import BYTES, varint
from export.model import OnnxModel

# A message must be smaller than 2 GiB; larger models keep their constants in a file beside.
LARGEST_MESSAGE = 2**31 - 1
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_SMALLEST_EXTERNAL = 1024
_ALIGNMENT = 4096  # of external data, so that a runtime can map it into memory


def data_file_name(path: Path) -> str:
    """The name of the file that holds a large model's constants."""
    return path.name + ".data"


def write_model(path: Path, model: OnnxModel, largest: int = LARGEST_MESSAGE) -> list[str]:
    """Writes the model and, where it would be larger than `largest` bytes, its constants to a file beside.

    Returns the names of the files written, the model's last. Raises OSError where writing fails.
    """
    graph = model.proto.graph.SerializeToString(deterministic=True)
    rest = type(model.proto)()
    rest.CopyFrom(model.proto)
    rest.ClearField("graph")
    frame = rest.SerializeToString(deterministic=True)
    external = len(frame) + len(graph) + model.constant_bytes + 256 * len(model.constants) > largest
    headers = _headers(model.constants, data_file_name(path) if external else None)
    size = len(graph) + sum(_field_size(_INITIALIZER, length) for _, length, _ in headers.values())
    with open(path, "wb") as file:
        file.write(frame)
        file.write(_tag(_GRAPH, size))
        file.write(graph)
        for name, (header, length, inline) in headers.items():
            file.write(_tag(_INITIALIZER, length))
            file.write(header)
            if inline:
                _write_array(file, model.constants[name])
    if not external:
        return [path.name]
    _write_data(path.with_name(data_file_name(path)), model.constants, headers)
    return [data_file_name(path), path.name]


def _headers(constants: Mapping[str, np.ndarray], location: str | None) -> dict[str, tuple[bytes, int, bool]]:
    """Per constant: its message up to the data, the message's whole length, and whether the data follows in it."""
    headers = {}
    offsets = dict(_offsets(constants)) if location is not None else {}
    for name, array in constants.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        message = TensorProto(name=name, data_type=kind, dims=array.shape)
        if name in offsets:
            message.data_location = TensorProto.EXTERNAL
            entries = {"location": location, "offset": offsets[name], "length": array.nbytes}
            message.external_data.extend(StringStringEntryProto(key=k, value=str(v)) for k, v in entries.items())
            header = message.SerializeToString(deterministic=True)
            headers[name] = (header, len(header), False)
        else:
            header = message.SerializeToString(deterministic=True) + _tag(_RAW_DATA, array.nbytes)
            headers[name] = (header, len(header) + array.nbytes, True)
    return headers


def _offsets(constants: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int]]:
    position = 0
    for name, array in constants.items():
        if array.nbytes >= _SMALLEST_EXTERNAL:
            yield name, position
            position += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT


def _write_data(
    path: Path, constants: Mapping[str, np.ndarray], headers: Mapping[str, tuple[bytes, int, bool]]
) -> None:
    with open(path, "wb") as file:
        for name, (_, _, inline) in headers.items():
            if not inline:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                _write_array(file, constants[name])


def _write_array(file: BinaryIO, array: np.ndarray) -> None:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    file.write(little.reshape(-1).view(np.uint8).data)


def _tag(number: int, length: int) -> bytes:
    """What stands before a field of that length."""
    return varint(number << 3 | BYTES) + varint(length)


def _field_size(number: int, length: int) -> int:
    return len(_tag(number, length)) + length
