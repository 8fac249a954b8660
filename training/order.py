"""Which rows make up which batch: a function of the seed and the step alone, so that a resumed run needs no state."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)  # every step asks for one, two at the border of epochs, and millions of rows take a second
def epoch_permutation(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of an epoch: int64 [rows], not to be written to, the same on every backend, rank and machine."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


def batch_indexes(
    seed: int, step: int, rows: int, global_batch: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[np.ndarray]:
    """Rows of one rank's micro batches at a step: arrays of `batch_size`, the last one of what is left.

    The permutations of epoch 0, 1, 2, ... form one endless stream; step s takes the next `global_batch` rows of it, and
    rank r the r-th of `world_size` parts of those, as equal as can be. So any number of ranks sees at a step the rows
    that one rank would see, and a run can go on with another number of ranks.
    """
    start, end = global_batch * rank // world_size, global_batch * (rank + 1) // world_size
    positions = step * global_batch + np.arange(start, end)
    indexes = np.empty(len(positions), np.int64)
    epochs = positions // rows
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indexes[chosen] = epoch_permutation(seed, int(epoch), rows)[positions[chosen] % rows]
    return [indexes[first : first + batch_size] for first in range(0, len(indexes), batch_size)]


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of a step's dropout on a rank, in [0, 2**31)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0] >> 1)


def padded_length(lengths: np.ndarray, longest: int, pad_to_max_length: bool) -> int:
    """Length to pad a batch to: its longest row rounded up to 8, or `longest` where asked for."""
    return longest if pad_to_max_length else min(longest, -(-int(lengths.max()) // 8) * 8)
