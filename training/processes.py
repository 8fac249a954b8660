"""The processes that train one model together: one, or several under Horovod.

Every process goes through the same phases and makes the same calls of this file in the same order. What only one of
them does (files, scores) it does inside `together`, while the others wait; so a slow disk is not taken for a process
that hangs, and an error of one process is known to all.
"""

import json
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, TypeVar

import google_crc32c
import numpy as np

from backends.collectives import Collectives
from training.watchdog import Watchdog
from twinquant.errors import UserError

HEARTBEAT_SECONDS = 0.2  # between two signs of life while one process works and the others wait
_WORKING, _DONE, _FAILED, _REFUSED = range(4)

T = TypeVar("T")


class PeerFailed(Exception):
    """Another process of the run met an error, and says itself which; this one only leaves, with the same code."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"rank {rank} met an error")
        self.exit_code = exit_code


class Processes:
    """The processes of a run, from one of them. Without collectives: the only one, and every call is trivial."""

    def __init__(self, collectives: Collectives | None = None, watchdog: Watchdog | None = None) -> None:
        """`watchdog` ends this process when another one has not answered for too long."""
        self.collectives, self.watchdog = collectives, watchdog or Watchdog(None)

    @property
    def size(self) -> int:
        return self.collectives.size if self.collectives else 1

    @property
    def rank(self) -> int:
        return self.collectives.rank if self.collectives else 0

    @property
    def local_rank(self) -> int:
        """The number of this process among those of its machine."""
        return self.collectives.local_rank if self.collectives else 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that talks and writes files."""
        return self.rank == 0

    def gather(self, value: Any, name: str) -> list[Any]:
        """Every process's value (of what JSON holds), by rank, on every process."""
        return [json.loads(data) for data in self.gather_bytes(json.dumps(value).encode(), name)]

    def gather_bytes(self, data: bytes, name: str) -> list[bytes]:
        """Every process's bytes, by rank, on every process."""
        if self.collectives is None:
            return [data]
        with self.watchdog.watching(name):
            lengths = self.collectives.gather(np.array([len(data)], np.int64), f"{name}.lengths")
            joined = self.collectives.gather(np.frombuffer(data, np.uint8), name).tobytes()
        ends = np.cumsum(lengths)
        return [joined[end - length : end] for end, length in zip(ends, lengths, strict=True)]

    def share(self, value: Any, name: str) -> Any:
        """Rank 0's value (of what JSON holds), on every process."""
        return self.gather(value if self.is_first else None, name)[0]

    def share_arrays(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
        """Rank 0's arrays by name, on every process; what the others give does not matter."""
        if self.collectives is None:
            return dict(arrays)
        forms = self.share([[key, array.dtype.str, array.shape] for key, array in arrays.items()], f"{name}.forms")
        shared: dict[str, np.ndarray] = {}
        for key, dtype, shape in forms:
            array: np.ndarray = np.asarray(arrays[key]) if self.is_first else np.empty(tuple(shape), dtype)
            with self.watchdog.watching(name):
                shared[key] = self.collectives.broadcast(array, f"{name}.{key}") if array.size else array
        return shared

    def stack(self, values: np.ndarray, name: str) -> np.ndarray:
        """Every process's numbers [k], by rank, on every process: [size, k]."""
        if self.collectives is None:
            return values[None]
        with self.watchdog.watching(name):
            return self.collectives.gather(values[None], name)

    def sum_gradients(self, gradients: list[Any]) -> list[Any]:
        """See `Collectives.sum_gradients`."""
        if self.collectives is None:
            return gradients
        with self.watchdog.watching("gradients"):
            return self.collectives.sum_gradients(gradients)

    def together(self, work: Callable[[], T] | None) -> T | None:
        """Does `work` here, where it is given; returns its result when all processes are done with theirs.

        The work runs in a thread, and meanwhile the processes tell each other that they are alive.

        Raises:
            PeerFailed: this process is done, but another one met an error. That one raises its own error.
        """
        if self.collectives is None:
            return work() if work else None
        with futures.ThreadPoolExecutor(1) as executor:
            future = executor.submit(work) if work else None
            while True:
                if future is not None:
                    futures.wait([future], HEARTBEAT_SECONDS)
                with self.watchdog.watching("heartbeat"):
                    states = self.collectives.gather(np.array([_state(future)], np.int32), "heartbeat").tolist()
                if _WORKING not in states:
                    break
                if future is None:
                    time.sleep(HEARTBEAT_SECONDS / 10)
        result = future.result() if future else None
        for rank, state in enumerate(states):
            if state != _DONE:
                raise PeerFailed(rank, 2 if state == _REFUSED else 1)
        return result

    def first(self, work: Callable[[], T]) -> T | None:
        """Does `work` on rank 0 while the others wait; None on those. Errors as in `together`."""
        return self.together(work if self.is_first else None)

    def in_turns(self, work: Callable[[], T]) -> T:
        """Does `work` on every process, first on rank 0, then on the first process of each other machine, then on all
        others: so that what one process stores, in a folder they share or on its own machine, the others find there.
        """
        mine = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for turn in range(3 if self.size > 1 else 1):
            result = self.together(work if turn == mine else None)
            if turn == mine:
                made = result
        return made  # type: ignore[return-value]

    def check_equal(self, arrays: Mapping[str, np.ndarray], what: str) -> None:
        """Raises UserError, on every process, naming the first array that is not equal to the bit on all of them."""
        if self.collectives is None:
            return
        names = sorted(arrays)
        found = self.gather([[name, checksum(arrays[name])] for name in names], "checksums")
        for rank, other in enumerate(found):
            for first, second in zip(found[0], other, strict=False):
                if first != second:
                    different = " and ".join(sorted({first[0], second[0]}))
                    raise UserError(f"{what}: {different} of rank {rank} is not equal to that of rank 0")
            if len(other) != len(found[0]):
                raise UserError(f"{what}: rank {rank} has {len(other)} tensors, rank 0 has {len(found[0])}")


ALONE = Processes()


def checksum(array: np.ndarray) -> int:
    """CRC-32C of an array's dtype, shape and values."""
    array = np.ascontiguousarray(array)
    form = google_crc32c.value(f"{array.dtype.str}{array.shape}".encode())
    return google_crc32c.extend(form, array.tobytes())


def _state(future: futures.Future | None) -> int:
    if future is None:
        return _DONE
    if not future.done():
        return _WORKING
    error = future.exception()
    return _DONE if error is None else _REFUSED if isinstance(error, UserError) else _FAILED
