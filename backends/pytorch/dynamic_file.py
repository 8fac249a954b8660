"""The two files of a dynamically quantized model: model_int8.safetensors and dynamic.json. No pickle.

model_int8.safetensors: `<scope>/kernel` int8 [out, in] and `<scope>/kernel_scale` float32 [] or [out] for every
quantized layer, every other tensor float32, all by canonical name. dynamic.json: settings, head and configuration.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from backends.pytorch.dynamic_torch import Int8Weight
from checkpoints.config import BertConfig
from checkpoints.dynamic_folder import SETTINGS_FILE, WEIGHTS_FILE
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING, expected_tensors
from checkpoints.safetensors_file import SafetensorsReader, write_safetensors
from twinquant.errors import UserError
from twinquant.files import make_folder, write_files_atomically, write_json_atomically
from twinquant.json_text import parse_json

_FORMAT = "twinquant dynamic int8, version 1"


class DynamicFile(NamedTuple):
    """What the files hold: int8 weights by scope, float32 tensors by canonical name, and the model they make."""

    config: BertConfig
    head: str
    num_labels: int | None
    weights: dict[str, Int8Weight]
    floats: dict[str, torch.Tensor]


def write_dynamic_file(folder: str | os.PathLike[str], content: DynamicFile, settings: Any, engine: str) -> None:
    """Writes both files, dynamic.json last; settings: a dataclass. Raises UserError where that fails."""
    folder = Path(folder)
    arrays = {name: tensor.numpy() for name, tensor in content.floats.items()}
    for scope, weight in content.weights.items():
        arrays[f"{scope}/kernel"] = weight.integers.contiguous().numpy()
        arrays[f"{scope}/kernel_scale"] = weight.scale.contiguous().numpy()
    description = {
        "format": _FORMAT,
        "settings": dataclasses.asdict(settings),
        "engine": engine,
        "head": content.head,
        "num_labels": content.num_labels,
        "config": content.config.to_dict(),
    }
    make_folder(folder)
    write_files_atomically(
        {
            folder / WEIGHTS_FILE: lambda path: write_safetensors(path, arrays),
            folder / SETTINGS_FILE: lambda path: write_json_atomically(path, description),
        }
    )


def read_dynamic_file(folder: str | os.PathLike[str]) -> tuple[DynamicFile, dict[str, Any], str]:
    """The content, the settings' fields and the engine that `write_dynamic_file` wrote.

    Raises UserError naming the file and what is wrong with it: missing, truncated, foreign, or a tensor's name, type or
    shape.
    """
    path = Path(folder) / SETTINGS_FILE
    description = _read_description(path)
    try:
        config = BertConfig.from_dict(description["config"], str(path))
        head, num_labels = description["head"], description["num_labels"]
        settings, engine = dict(description["settings"]), str(description["engine"])
        if (head, type(num_labels)) not in ((QUESTION_ANSWERING, type(None)), (CLASSIFICATION, int)):
            raise ValueError(f"head {head!r} with num_labels {num_labels!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} does not describe a dynamically quantized model: {error}") from error
    weights, floats = _read_tensors(Path(folder) / WEIGHTS_FILE, expected_tensors(config, head, num_labels))
    return DynamicFile(config, head, num_labels, weights, floats), settings, engine


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    description = parse_json(content, path, "is truncated or is not a JSON file")
    found = description.get("format") if isinstance(description, dict) else None
    if found != _FORMAT:
        raise UserError(f"{path}: the format is {found!r}, expected {_FORMAT!r}")
    return description


def _read_tensors(
    path: Path, expected: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Int8Weight], dict[str, torch.Tensor]]:
    reader = SafetensorsReader(path)

    def read(name: str, dtype: type, *shapes: tuple[int, ...]) -> torch.Tensor:
        if name not in reader.names:
            raise UserError(f"{path} has no tensor {name}")
        array = reader.read(name)
        if array.dtype != dtype or array.shape not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise UserError(
                f"the tensor {name} of {path} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {wanted}"
            )
        return torch.from_numpy(np.array(array))

    weights, floats = {}, {}
    for name, shape in expected.items():
        if name.endswith("/kernel"):
            integers = read(name, np.int8, shape[::-1])
            scale = read(f"{name}_scale", np.float32, (), shape[1:])
            if not bool(torch.isfinite(scale).all() and (scale > 0.0).all()):
                raise UserError(f"the tensor {name}_scale of {path} must be finite and above zero")
            weights[name.removesuffix("/kernel")] = Int8Weight(integers, scale)
        else:
            floats[name] = read(name, np.float32, shape)
    return weights, floats
