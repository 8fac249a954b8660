"""The benchmark of fine-tuning: both sides train the same rows, and a missing peer is named."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import tiny_config

from benchmarks import training
from checkpoints.names import CLASSIFICATION
from training.initialization import random_checkpoint
from twinquant.errors import UserError

CONFIG = tiny_config()
TENSORS = random_checkpoint(CONFIG, CLASSIFICATION, 0, training.LABELS).tensors
ROWS = training.make_rows(CONFIG, 6, 8)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("grouped", [False, True], ids=["drawn", "grouped"])
def test_our_side_trains_on_all_rows(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    create = training.create_backend
    monkeypatch.setattr(training, "create_backend", lambda *a, **k: made.append(create(*a, **k)) or made[-1])
    train = training.our_training(CONFIG, TENSORS, ROWS, 4, grouped)
    assert train() == 6
    moved = {name for name, tensor in made[0].tensors().items() if not np.array_equal(tensor, TENSORS[name])}
    assert {"output_weights", "bert/encoder/layer_0/attention/self/query/kernel"} <= moved


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_our_batches_are_padded_to_their_longest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, cells = training.make_rows(CONFIG, 256, 64, mixed=True), {}
    for grouped in (False, True):
        shapes: list[tuple[int, int]] = []

        class Recorder:
            length_multiple = 1

            def load(self, tensors: dict[str, np.ndarray]) -> None: ...

            def train_step(self, batches: list, *rest: object, shapes: list = shapes) -> None:
                shapes.append(batches[0]["input_ids"].shape)
                assert batches[0]["input_mask"].sum(axis=1).max() == batches[0]["input_ids"].shape[1]

        monkeypatch.setattr(training, "create_backend", lambda *a, kind=Recorder, **k: kind())
        assert training.our_training(CONFIG, TENSORS, rows, 8, grouped)() == 256 and len(shapes) == 32
        cells[grouped] = sum(count * length for count, length in shapes)
    assert cells[True] < 0.7 * cells[False] < 0.7 * 256 * 64


def test_mixed_rows_are_short_and_padded_with_nothing() -> None:
    rows = training.make_rows(CONFIG, 500, 40, mixed=True)
    lengths = rows["input_mask"].sum(axis=1)
    assert 3 <= lengths.min() and lengths.max() <= 40 and 7 < lengths.mean() < 11
    assert not rows["input_ids"][rows["input_mask"] == 0].any()
    assert all((mask[:length] == 1).all() for mask, length in zip(rows["input_mask"], lengths, strict=True))


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs accelerate, which is not installed; pip install '.\[peers\]'"):
        training.their_training(CONFIG, TENSORS, ROWS, 4, str(tmp_path))


@pytest.mark.parametrize("batch", ["16", "0x8", "4x8x2"])
def test_batches_that_are_none(batch: str) -> None:
    with pytest.raises(UserError, match=f"--batches: found '{batch}'"):
        training.main(["--batches", batch])
