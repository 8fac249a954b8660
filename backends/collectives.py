"""What the processes of one run exchange; each framework's collectives.py supplies the transport, Horovod.

Every process makes the same calls in the same order. A call returns when all processes have made it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from twinquant.errors import UserError

COMPRESSIONS = ("none", "fp16")
"""How gradients travel: as they are, or rounded to float16 (half the bytes, 2**-11 relative error each)."""


class ProcessLost(Exception):
    """Another process of the run has ended, or answers no more; this one cannot go on alone."""


class Collectives(ABC):
    """The processes of a run, from one of them."""

    rank: int
    size: int
    local_rank: int  # among the processes of this machine
    local_size: int

    def __init__(self, compression: str = "none", bucket_bytes: int = 64 * 2**20) -> None:
        """Starts Horovod; all processes must do so.

        Args:
            compression: one of COMPRESSIONS.
            bucket_bytes: gradients are joined into arrays of about so many bytes, each added up in one operation.
        """
        self.compression, self.bucket_bytes = compression, bucket_bytes

    @abstractmethod
    def gather(self, array: np.ndarray, name: str) -> np.ndarray:
        """The arrays of all processes, joined along axis 0 in the order of the ranks; their lengths may differ.

        Args:
            array: of a dtype and number of axes that is the same on all processes.
            name: the same on all processes; in an error it tells which operation did not come about.

        Raises:
            ProcessLost: also in the other methods.
        """

    @abstractmethod
    def broadcast(self, array: np.ndarray, name: str) -> np.ndarray:
        """Rank 0's array, on every process. On the others `array` tells dtype and shape, its values do not matter."""

    @abstractmethod
    def sum_gradients(self, gradients: list[Any]) -> list[Any]:
        """Framework tensors, each summed over all processes: the same bits on each, and the same in every run."""

    def buckets(self, sizes: Sequence[int]) -> list[slice]:
        """Divides tensors of so many bytes, in order, into runs of at most bucket_bytes, or of one larger tensor.

        Formed here and not by Horovod, whose own fusion depends on which tensors happen to be ready in time: another
        grouping adds three or more ranks' numbers in another order, and a resumed run would not repeat its bits.
        """
        runs, start, total = [], 0, 0
        for number, size in enumerate(sizes):
            if number > start and total + size > self.bucket_bytes:
                runs.append(slice(start, number))
                start, total = number, 0
            total += size
        return [*runs, slice(start, len(sizes))]


def check_gpus(gpus: int, local_size: int) -> None:
    """Raises UserError where the processes of a machine have no GPU each."""
    if gpus < local_size:
        raise UserError(
            f"{local_size} processes were started on a machine with {gpus} GPU(s); start one for each GPU, "
            "or hide the GPUs (CUDA_VISIBLE_DEVICES=)"
        )
