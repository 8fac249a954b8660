"""What a damaged model file shows before anything runs it: text that is no text, constants that do not fit themselves.

onnxruntime checks the graph when it loads it; this checks what we read of the file ourselves, and where its constants
lie: an external file is looked for beside the model and nowhere else.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from export.settings import PRECISIONS, TARGETS
from twinquant.errors import UserError

if TYPE_CHECKING:
    import onnx

_FLAG = ("true", "false")
_ALLOWED = {
    "task": ("squad", "glue"),
    "head": (QUESTION_ANSWERING, CLASSIFICATION),
    "precision": PRECISIONS,
    "target": TARGETS,
    "portable": _FLAG,
    "int8_embeddings": _FLAG,
    "reduce_range": _FLAG,
    "vnni": _FLAG,
}


def check_metadata(values: Mapping[str, str], path: str) -> None:
    """Raises UserError for a value that no exporter writes."""
    for key, allowed in _ALLOWED.items():
        if values[key] not in allowed:
            expected = ", ".join(repr(word) for word in allowed)
            raise UserError(
                f"{path} is damaged: its twinquant.{key} is {values[key]!r:.60}, expected one of {expected}"
            )
    if (values["quant_mode"] != "") != (values["precision"] == "int8"):
        found = f"twinquant.precision {values['precision']!r} with twinquant.quant_mode {values['quant_mode']!r}"
        raise UserError(f"{path} is damaged: it has {found}, and a mode belongs to int8")
    try:
        excluded = json.loads(values["quant_exclude"])
    except (ValueError, RecursionError):
        excluded = None
    if not isinstance(excluded, list) or not all(isinstance(scope, str) for scope in excluded):
        raise UserError(f"{path} is damaged: its twinquant.quant_exclude is no JSON list of names")


def check_graph(proto: "onnx.ModelProto", path: str) -> None:
    """Raises UserError for names that are not UTF-8, and constants whose type, shape and size disagree."""
    for text in _texts(proto):
        if not isinstance(text, str):  # what protocol buffers give for bytes that are no text
            raise UserError(f"{path} is damaged: a name in it is not UTF-8 text ({text!r:.60})")
    for constant in proto.graph.initializer:
        _check_constant(constant, path)


def check_external(proto: "onnx.ModelProto", path: Path) -> None:
    """Raises UserError where a file of constants beside the model is missing or too short."""
    for constant in proto.graph.initializer:
        external = {entry.key: entry.value for entry in constant.external_data}
        if not external:
            continue
        place = path.parent / external["location"]
        if not place.is_file():
            raise UserError(f"{place} is missing, where {path} keeps the constant {constant.name!r:.100}")
        end, size = int(external.get("offset", "0")) + int(external.get("length", "0")), place.stat().st_size
        if end > size:
            raise UserError(
                f"{place} is cut off: the constant {constant.name!r:.100} of {path} ends at byte {end}, it has {size}"
            )


def _check_constant(constant: "onnx.TensorProto", path: str) -> None:
    from onnx import helper

    where = f"{path} is damaged: the constant {constant.name!r:.100}"
    try:
        size = helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize * math.prod(constant.dims)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{where} has the unknown type {constant.data_type}") from None
    external = {entry.key: entry.value for entry in constant.external_data}
    if not external:
        found = len(constant.raw_data)
    else:
        location = external.get("location", "")
        if not location or location != location.replace("\\", "/").rpartition("/")[2] or location in (".", ".."):
            raise UserError(f"{where} lies in {location!r:.100}, expected a file beside the model")
        numbers = [external.get(key, "0") for key in ("offset", "length")]
        if not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
            raise UserError(f"{where} lies at offset {numbers[0]!r:.40} with length {numbers[1]!r:.40}")
        found = int(external["length"]) if "length" in external else size
    if size != found or any(dimension < 0 for dimension in constant.dims):
        raise UserError(f"{where} of shape {list(constant.dims)} takes {found} bytes, expected {size}")


def _texts(proto: "onnx.ModelProto") -> Iterator[str | bytes]:
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    for domain in proto.opset_import:
        yield domain.domain
    for node in proto.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for constant in proto.graph.initializer:
        yield constant.name
        for entry in constant.external_data:
            yield from (entry.key, entry.value)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        yield value.name
