"""Which rows make up which batch: a function of the seed and the step alone, so that a resumed run needs no state."""

import numpy as np

POOL = 50
"""Batches whose rows are sorted by length together, as in transformers; fewer where an epoch has few of them."""


def pool_size(batches: int) -> int:
    """Batches whose rows --group_by_length sorts together, of so many in an epoch; 1, below eight: it groups nothing.

    Fifty, or a quarter of the epoch's where there are fewer than 200, so that a batch is of other rows in every epoch.
    """
    return max(1, min(batches // 4, POOL))


class DataOrder:
    """The order of the training rows, the same on every backend, rank and machine.

    The orders of epoch 0, 1, 2, ... form one endless stream; step s takes the next `global_batch` rows of it.
    """

    def __init__(self, seed: int, rows: int, global_batch: int, lengths: np.ndarray | None = None) -> None:
        """
        Args:
            seed: the run's --seed.
            rows: number of rows of the data set.
            global_batch: rows of a step, over all micro batches and processes.
            lengths: int [rows], tokens of each row, to make batches of rows of like length (--group_by_length); None:
                batches are drawn from all rows.
        """
        self.seed, self.rows, self.global_batch, self.lengths = seed, rows, global_batch, lengths
        self._known: dict[int, np.ndarray] = {}

    def batch(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[np.ndarray]:
        """Rows of one rank's micro batches at a step: arrays of `batch_size`, the last one of what is left.

        Rank r takes the r-th of `world_size` parts of the step's rows, as equal as can be. So any number of ranks sees
        at a step the rows that one rank would see, and a run can go on with another number of ranks.
        """
        start, end = self.global_batch * rank // world_size, self.global_batch * (rank + 1) // world_size
        positions = step * self.global_batch + np.arange(start, end)
        indexes = np.empty(len(positions), np.int64)
        epochs = positions // self.rows
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indexes[chosen] = self.epoch(int(epoch))[positions[chosen] % self.rows]
        return [indexes[first : first + batch_size] for first in range(0, len(indexes), batch_size)]

    def epoch(self, epoch: int) -> np.ndarray:
        """The order of an epoch: int64 [rows], every row once; not to be written to."""
        # Every step asks for one, two at the border of epochs, and millions of rows take a second.
        if epoch not in self._known:
            latest = list(self._known.items())[-1:]
            self._known = {**dict(latest), epoch: self._draw(epoch)}
        return self._known[epoch]

    def _draw(self, epoch: int) -> np.ndarray:
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = generator.permutation(self.rows)
        if self.lengths is None:
            return order
        # A batch may hold the end of an epoch and the beginning of the next: the whole ones of this epoch are grouped.
        first = -epoch * self.rows % self.global_batch
        whole = max(self.rows - first, 0) // self.global_batch
        last = first + whole * self.global_batch
        if whole > 1:
            order[first:last] = self._group(order[first:last], self.lengths, whole, generator)
        return order

    def _group(self, rows: np.ndarray, lengths: np.ndarray, batches: int, generator: np.random.Generator) -> np.ndarray:
        """Sorts rows by length, a pool of batches at a time, and shuffles the batches that this gives.

        rows: int64 [batches * global_batch]; returns the same rows. After get_length_grouped_indices of transformers,
        which leaves a pool's batches in the order of their lengths.
        """
        pool = self.global_batch * pool_size(batches)
        pools = [rows[start : start + pool] for start in range(0, len(rows), pool)]
        ordered = np.concatenate([part[np.argsort(-lengths[part], kind="stable")] for part in pools])
        return generator.permutation(ordered.reshape(batches, self.global_batch)).reshape(-1)


def ends_epoch(done: int, rows: int, global_batch: int) -> bool:
    """Whether an epoch of so many rows ends within the last of `done` steps, or with it."""
    return done * global_batch // rows > (done - 1) * global_batch // rows


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of a step's dropout on a rank, in [0, 2**31)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0] >> 1)


def padded_length(lengths: np.ndarray, longest: int, multiple: int, pad_to_max_length: bool = False) -> int:
    """Length to pad a batch to: its longest row, rounded up to `multiple` (of the backend), or `longest`."""
    return longest if pad_to_max_length else min(longest, -(-int(lengths.max()) // multiple) * multiple)
