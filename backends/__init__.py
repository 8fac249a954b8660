"""One interface, two frameworks: what is created here imports only the framework that is asked for."""

from typing import Any

from backends.base import Backend
from backends.collectives import Collectives
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


def create_collectives(name: str, *arguments: Any, **keywords: Any) -> Collectives:
    """Starts Horovod for the backend of that name; the arguments are those of `Collectives`.

    Raises:
        UserError: Horovod is not installed, or not for this framework.
    """
    try:
        if name == "tensorflow":
            from backends.tensorflow.collectives import TensorFlowCollectives

            return TensorFlowCollectives(*arguments, **keywords)
        from backends.pytorch.collectives import PyTorchCollectives

        return PyTorchCollectives(*arguments, **keywords)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--horovod: Horovod for {name} cannot be imported ({reason}); `make horovod` builds and installs it into "
            ".venv, `python -m install.horovod_install` in a clone into the Python that runs it"
        ) from error
