"""Reading and writing safetensors files as NumPy arrays, bfloat16 included, without torch."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from twinquant.errors import UserError
from twinquant.files import write_bytes_atomically


class SafetensorsReader:
    """Reads single tensors of a safetensors file; the library maps the file and checks its header.

    Raises UserError when the file is missing, truncated or of another form.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            opened: Any = safetensors.safe_open(self.path, framework="numpy")
            self._file = opened
            self.names: list[str] = list(opened.keys())
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        except safetensors.SafetensorError as error:
            raise UserError(f"{self.path} is truncated or is not a safetensors file: {error}") from error

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; bfloat16 is widened to float32, other types are kept."""
        dtype = self._file.get_slice(name).get_dtype()
        if dtype == "BF16":  # NumPy has no bfloat16: it is the upper half of a float32
            return self._read_bfloat16(name)
        try:
            array: np.ndarray = self._file.get_tensor(name)
        except (TypeError, AttributeError, safetensors.SafetensorError) as error:
            raise UserError(f"the tensor {name} of {self.path} has the type {dtype}, expected floats") from error
        return array

    def _read_bfloat16(self, name: str) -> np.ndarray:
        with open(self.path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(header_size))[name]
            begin, end = entry["data_offsets"]
            file.seek(8 + header_size + begin)
            halves = np.frombuffer(file.read(end - begin), "<u2")
        return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays atomically, with the metadata {"format": "pt"} that transformers asks for."""
    # The library's own save_file makes files that only their owner may read.
    write_bytes_atomically(path, safetensors.numpy.save(dict(arrays), metadata={"format": "pt"}))
