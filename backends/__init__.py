"""One interface, two frameworks: `create_backend` imports only the framework that is asked for."""

from typing import Any

from backends.base import Backend
from twinquant.errors import UserError

BACKEND_NAMES = ("tensorflow", "pytorch")


def create_backend(name: str, *arguments: Any, **keywords: Any) -> Backend:
    """Builds the backend of that name; the arguments are those of `Backend`.

    Raises:
        UserError: no such backend, or its framework is not installed.
    """
    try:
        if name == "tensorflow":
            from backends.tensorflow.backend import TensorFlowBackend

            return TensorFlowBackend(*arguments, **keywords)
        if name == "pytorch":
            from backends.pytorch.backend import PyTorchBackend

            return PyTorchBackend(*arguments, **keywords)
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "torch"):
            raise
        sentence = f"--backend {name}: {error.name} is not installed; pip install '.[{name}]' installs it"
        raise UserError(sentence) from error
    raise UserError(f"--backend: found '{name}', expected one of {', '.join(BACKEND_NAMES)}")
