"""Whether this process was started alone or as one of several, before anything is computed."""

import os
from collections.abc import Mapping

from twinquant.errors import UserError

# How Open MPI, other MPIs, Horovod's own launcher and torchrun tell a process how many of them there are.
_WORLD_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "HOROVOD_SIZE", "WORLD_SIZE")


def check_launch(horovod: bool, environment: Mapping[str, str] = os.environ) -> str | None:
    """Refuses a start as one of several processes; returns a note where --horovod was given to a single one.

    Raises:
        UserError: several processes, each of which would train the same model into the same folder.
    """
    for variable in _WORLD_SIZE_VARIABLES:
        value = environment.get(variable, "1")
        if value.isdigit() and int(value) > 1:
            raise UserError(
                f"this is one of {value} processes ({variable}={value}), and each would train the same model into the "
                "same folder: training on several processes is not part of this version; start one process, and raise "
                "--num_accumulation_steps to keep the global batch"
            )
    if horovod:
        return "note: --horovod: this is a single process, so one trains (several are not part of this version)."
    return None
