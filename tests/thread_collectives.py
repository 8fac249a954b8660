"""Several processes of a run as threads of one: the real exchange's calls and order, without Horovod."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from backends.collectives import Collectives
from training.processes import Processes


class ThreadCollectives(Collectives):
    """One rank; all ranks share `slots` and a barrier. A call's name must be the same on all, as under Horovod."""

    def __init__(self, rank: int, slots: list, barrier: threading.Barrier, machines: int = 1) -> None:
        super().__init__()
        self.rank, self.size = rank, len(slots)
        self.local_size = self.size // machines
        self.local_rank = rank % self.local_size
        self.slots, self.barrier = slots, barrier

    def _exchange(self, value: Any, name: str) -> list:
        self.slots[self.rank] = (name, value)
        self.barrier.wait(30)
        found = list(self.slots)
        self.barrier.wait(30)
        assert {other for other, _ in found} == {name}, found
        return [value for _, value in found]

    def gather(self, array: np.ndarray, name: str) -> np.ndarray:
        return np.concatenate(self._exchange(array, name))

    def broadcast(self, array: np.ndarray, name: str) -> np.ndarray:
        first = self._exchange(array, name)[0]
        assert (first.dtype, first.shape) == (array.dtype, array.shape)
        return first.copy()

    def sum_gradients(self, gradients: list) -> list:
        return [sum(parts) for parts in zip(*self._exchange(gradients, "gradients"), strict=True)]


def run_ranks(size: int, work: Callable[[Processes], Any], machines: int = 1) -> list[Any]:
    """`work` on every rank at once; what each returned, or the exception it raised, by rank."""
    slots: list = [None] * size
    results: list = [None] * size
    barrier = threading.Barrier(size)

    def one(rank: int) -> None:
        try:
            results[rank] = work(Processes(ThreadCollectives(rank, slots, barrier, machines)))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
