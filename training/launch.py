"""Whether this process was started alone or as one of several, before anything is computed."""

import os
from collections.abc import Mapping

from twinquant.errors import UserError

# Variables by which Open MPI, other MPIs, Slurm's srun and torchrun tell a process how many of them there are.
_WORLD_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "HOROVOD_SIZE", "WORLD_SIZE")


def check_launch(horovod: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Refuses a multi-process start that would train copies of the same thing into one folder.

    Raises:
        UserError: several processes, or --horovod, which this version cannot serve.
    """
    for variable in _WORLD_SIZE_VARIABLES:
        value = environment.get(variable, "1")
        if value.isdigit() and int(value) > 1:
            raise UserError(
                f"this is one of {value} processes ({variable}={value}), and each would train the same model into the "
                "same folder: training on several processes is not part of this version; start one process"
            )
    if horovod:
        raise UserError(
            "--horovod: training on several processes is not part of this version; leave the flag and mpirun out "
            "(one process trains; to keep the global batch, raise --num_accumulation_steps)"
        )
