"""Which rows a step takes: a function of seed and step alone, every row once per epoch, ranks without overlap."""

import numpy as np
import pytest

from training.order import DataOrder, padded_length, step_seed

LENGTHS = np.random.default_rng(0).integers(3, 60, 1000)


def order(seed: int, rows: int, global_batch: int, grouped: bool = False) -> DataOrder:
    return DataOrder(seed, rows, global_batch, LENGTHS[:rows] if grouped else None)


grouped_or_not = pytest.mark.parametrize("grouped", [False, True], ids=["drawn", "grouped-by-length"])


@grouped_or_not
@pytest.mark.parametrize(("rows", "batch", "micro"), [(24, 4, 1), (24, 2, 3), (7, 1, 1)])
def test_every_row_once_per_epoch(rows, batch, micro, grouped):
    steps = rows // (batch * micro)
    data_order = order(5, rows, batch * micro, grouped)
    for epoch in range(3):
        seen = [data_order.batch(step, batch) for step in range(epoch * steps, (epoch + 1) * steps)]
        assert all(len(parts) == micro and all(len(part) == batch for part in parts) for parts in seen)
        assert sorted(np.concatenate([part for parts in seen for part in parts])) == list(range(rows))


@grouped_or_not
@pytest.mark.parametrize(("rows", "batch"), [(10, 4), (1000, 32), (33, 32), (3, 8)])
def test_batches_run_on_across_the_end_of_an_epoch(rows, batch, grouped):
    data_order = order(5, rows, batch, grouped)
    stream = np.concatenate([data_order.batch(step, batch)[0] for step in range(4 * rows // batch + 1)])
    for epoch in range(4):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_the_order_is_numpys_permutation_of_seed_and_epoch():
    """Which every run that was saved so far has followed."""
    stream = np.concatenate([order(7, 50, 10).batch(step, 10)[0] for step in range(10)])
    expected = [np.random.Generator(np.random.PCG64([7, epoch])).permutation(50) for epoch in (0, 1)]
    np.testing.assert_array_equal(stream, np.concatenate(expected))


@grouped_or_not
def test_epochs_and_seeds_differ_and_repeat(grouped):
    first = order(1, 50, 4, grouped).epoch(0)
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, order(1, 50, 4, grouped).epoch(0))
    for other in (order(1, 50, 4, grouped).epoch(1), order(2, 50, 4, grouped).epoch(0)):
        assert (first != other).any()
    assert (first != order(1, 50, 4, not grouped).epoch(0)).any()


@pytest.mark.parametrize(("rows", "batch"), [(1000, 32), (1000, 8)])
def test_grouped_batches_are_of_like_length(rows, batch):
    """In the second epoch too, which begins in the middle of a batch; and their order has nothing of the lengths."""
    data_order, drawn = order(5, rows, batch, grouped=True), order(5, rows, batch)
    steps = range(2 * rows // batch)
    mixed = {rows // batch, len(steps) - 1} if rows % batch else set()  # of two epochs, or the rest of one

    def padding(which: DataOrder, steps) -> float:
        chosen = [LENGTHS[which.batch(step, batch)[0]] for step in steps]
        return float(np.mean([1 - lengths.mean() / lengths.max() for lengths in chosen]))

    whole = [step for step in steps if step not in mixed]
    assert padding(data_order, whole) < 0.2 < 0.4 < padding(drawn, whole)
    longest = [LENGTHS[data_order.batch(step, batch)[0]].max() for step in whole]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.5  # of pools in order of length: 0.8


def test_grouped_batches_have_other_neighbors_in_every_epoch():
    data_order = order(5, 960, 4, grouped=True)
    pairs = [{frozenset(data_order.batch(step, 4)[0]) for step in range(e * 240, (e + 1) * 240)} for e in range(2)]
    assert len(pairs[0] & pairs[1]) < 5


def test_few_batches_have_other_neighbors_in_every_epoch_too():
    """Sorted all at once, rows of lengths that all differ would meet in every epoch."""
    data_order = DataOrder(5, 120, 4, np.arange(120))
    epochs = [{frozenset(data_order.batch(step, 4)[0]) for step in range(e * 30, (e + 1) * 30)} for e in range(2)]
    assert len(epochs[0] & epochs[1]) < 5


def test_fifty_batches_are_sorted_together():
    """Rows that meet were drawn into the same fifty batches, and into no fewer."""
    drawn, grouped = order(7, 1000, 2).epoch(0), order(7, 1000, 2, grouped=True).epoch(0)
    pools = np.argsort(drawn)[grouped].reshape(-1, 2) // 100  # where each row was drawn, in hundreds
    assert (pools[:, 0] == pools[:, 1]).all()
    halves = np.argsort(drawn)[grouped].reshape(-1, 2) // 50
    assert (halves[:, 0] != halves[:, 1]).mean() > 0.3


def test_the_grouped_order_stays_what_it_is():
    """Runs that were saved go on with it: another order would go by unnoticed."""
    lengths = np.array([5, 3, 9, 5, 7, 3, 9, 5, 4, 6, 3, 8, 5, 7, 9, 4, 6, 5])
    known = [2, 13, 1, 10, 4, 16, 11, 9, 3, 8, 12, 5, 14, 6, 0, 7, 17, 15]
    assert DataOrder(7, 18, 2, lengths).epoch(0).tolist() == known


@grouped_or_not
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("micro", [1, 2])
def test_ranks_share_the_global_batch(world, micro, grouped):
    """N ranks with batch B see together, in order, what one process with batch N * B sees."""
    total = 4 * micro * world
    data_order = order(9, 100, total, grouped)
    for step in range(7):
        parts = [data_order.batch(step, 4, rank, world) for rank in range(world)]
        assert all([len(rows) for rows in rank] == [4] * micro for rank in parts)
        together = np.concatenate([rows for rank in parts for rows in rank])
        np.testing.assert_array_equal(together, data_order.batch(step, total)[0])


@pytest.mark.parametrize("world", [1, 2, 3, 5, 16], ids=lambda world: f"{world}-ranks")
def test_another_number_of_ranks_sees_the_same_rows(world):
    """A run of 4 ranks with batch 4 goes on with any number: the rows of a step stay, in parts as equal as can be."""
    whole = order(9, 100, 16).batch(3, 16)[0]
    parts = [order(9, 100, 16).batch(3, 4, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate([rows for rank in parts for rows in rank]), whole)
    sizes = [sum(len(rows) for rows in rank) for rank in parts]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
    assert all(len(rows) <= 4 for rank in parts for rows in rank)


def test_micro_batches_are_the_parts_of_the_batch():
    whole = order(9, 100, 8).batch(3, 8)[0]
    np.testing.assert_array_equal(np.concatenate(order(9, 100, 8).batch(3, 2)), whole)


def test_seeds_of_steps():
    seeds = [step_seed(seed, step, rank) for seed in range(3) for step in range(300) for rank in range(3)]
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) > 2**30  # the whole range is used
    assert step_seed(7, 11, 0) == step_seed(7, 11)


@pytest.mark.parametrize(
    ("lengths", "longest", "multiple", "fixed", "expected"),
    [
        ([5, 17], 384, 1, False, 17),
        ([5, 17], 384, 8, False, 24),
        ([16], 384, 8, False, 16),
        ([1], 384, 8, False, 8),
        ([381], 383, 8, False, 383),
        ([5, 17], 384, 1, True, 384),
    ],
    ids=["the-longest", "rounded-up-to-8", "multiple-of-8", "short", "never-beyond-the-longest", "fixed"],
)
def test_padded_length(lengths, longest, multiple, fixed, expected):
    assert padded_length(np.array(lengths, np.int32), longest, multiple, fixed) == expected
