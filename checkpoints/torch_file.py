"""State dicts in files of torch.save, read without running code from the file; torch is imported only when needed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twinquant.errors import UserError
from twinquant.files import write_files_atomically


def read_torch_file(path: Path) -> dict[str, Any]:
    """The state dict of a file: tensors by name, on the CPU; a state dict under the key "model" is unwrapped.

    Raises UserError when torch is not installed, the file is damaged, or it is no state dict.
    """
    torch = _torch(path, "reading")
    if not path.exists():
        raise UserError(f"the file {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here; each of them means that the file is not usable
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{path} is not a readable PyTorch state dict "
            f"({type(error).__name__}: {reason[0] if reason else 'no text'})"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    tensors = (
        {key: value for key, value in state.items() if torch.is_tensor(value)} if isinstance(state, Mapping) else {}
    )
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise UserError(
            f'{path} holds no state dict: expected tensors by name, or those under the key "model", found '
            f"{type(state).__name__}"
        )
    return tensors


def to_numpy(tensor: Any) -> np.ndarray:
    """A CPU tensor as an array, floats of any width as float32; UserError for sparse and quantized tensors."""
    try:
        tensor = tensor.detach()
        array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"a tensor of the type {tensor.dtype} and layout {tensor.layout} cannot be read") from error
    return array


def write_torch_file(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a state dict of tensors, atomically; UserError when torch is absent or the disk is full."""
    torch = _torch(path, "writing")
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in state.items()}

    def write(temporary: Path) -> None:
        with open(temporary, "xb") as file:  # a file object, so that a full disk is an OSError
            torch.save(tensors, file)

    write_files_atomically({path: write})


def _torch(path: Path, doing: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{doing} {path} needs PyTorch, which is not installed; pip install '.[pytorch]' installs it"
        ) from error
    return torch
