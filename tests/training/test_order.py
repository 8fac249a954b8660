"""Which rows a step takes: a function of seed and step alone, every row once per epoch, ranks without overlap."""

import numpy as np
import pytest

from training.order import batch_indexes, epoch_permutation, padded_length, step_seed


@pytest.mark.parametrize(("rows", "batch", "micro"), [(24, 4, 1), (24, 2, 3), (7, 1, 1)])
def test_every_row_once_per_epoch(rows, batch, micro):
    steps = rows // (batch * micro)
    for epoch in range(3):
        seen = [
            batch_indexes(5, step, rows, batch * micro, batch) for step in range(epoch * steps, (epoch + 1) * steps)
        ]
        assert all(len(parts) == micro and all(len(part) == batch for part in parts) for parts in seen)
        assert sorted(np.concatenate([part for parts in seen for part in parts])) == list(range(rows))


def test_batches_run_on_across_the_end_of_an_epoch():
    rows, batch = 10, 4
    stream = np.concatenate([batch_indexes(5, step, rows, batch, batch)[0] for step in range(10)])
    for epoch in range(4):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert batch_indexes(0, 0, 3, 8, 8)[0].shape == (8,)  # fewer rows than a batch


def test_epochs_and_seeds_differ_and_repeat():
    first = epoch_permutation(1, 0, 50)
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, epoch_permutation(1, 0, 50))
    for other in (epoch_permutation(1, 1, 50), epoch_permutation(2, 0, 50)):
        assert (first != other).any()
    np.testing.assert_array_equal(batch_indexes(1, 3, 50, 4, 4)[0], batch_indexes(1, 3, 50, 4, 4)[0])


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("micro", [1, 2])
def test_ranks_share_the_global_batch(world, micro):
    """N ranks with batch B see together, in order, what one process with batch N * B sees."""
    total = 4 * micro * world
    for step in range(7):
        parts = [batch_indexes(9, step, 100, total, 4, rank, world) for rank in range(world)]
        assert all([len(rows) for rows in rank] == [4] * micro for rank in parts)
        together = np.concatenate([rows for rank in parts for rows in rank])
        np.testing.assert_array_equal(together, batch_indexes(9, step, 100, total, total)[0])


@pytest.mark.parametrize("world", [1, 2, 3, 5, 16], ids=lambda world: f"{world}-ranks")
def test_another_number_of_ranks_sees_the_same_rows(world):
    """A run of 4 ranks with batch 4 goes on with any number: the rows of a step stay, in parts as equal as can be."""
    whole = batch_indexes(9, 3, 100, 16, 16)[0]
    parts = [batch_indexes(9, 3, 100, 16, 4, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate([rows for rank in parts for rows in rank]), whole)
    sizes = [sum(len(rows) for rows in rank) for rank in parts]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
    assert all(len(rows) <= 4 for rank in parts for rows in rank)


def test_micro_batches_are_the_parts_of_the_batch():
    whole = batch_indexes(9, 3, 100, 8, 8)[0]
    np.testing.assert_array_equal(np.concatenate(batch_indexes(9, 3, 100, 8, 2)), whole)


def test_seeds_of_steps():
    seeds = [step_seed(seed, step, rank) for seed in range(3) for step in range(300) for rank in range(3)]
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) > 2**30  # the whole range is used
    assert step_seed(7, 11, 0) == step_seed(7, 11)


@pytest.mark.parametrize(
    ("lengths", "longest", "fixed", "expected"),
    [
        ([5, 17], 384, False, 24),
        ([16], 384, False, 16),
        ([1], 384, False, 8),
        ([381], 383, False, 383),
        ([5, 17], 384, True, 384),
    ],
    ids=["rounded-up-to-8", "multiple-of-8", "short", "never-beyond-the-longest", "fixed"],
)
def test_padded_length(lengths, longest, fixed, expected):
    assert padded_length(np.array(lengths, np.int32), longest, fixed) == expected
