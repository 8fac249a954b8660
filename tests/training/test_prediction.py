"""Prediction of a whole data set: order, batches of similar length, and that neither shows in the logits."""

import numpy as np
import pytest
from tiny_bert import ToyFeatures, make_backend, relative_error, tiny_config

from backends.base import RuntimeSettings
from training.prediction import model_inputs, predict_all

CONFIG = tiny_config(num_hidden_layers=1)
FEATURES = ToyFeatures(CONFIG, 11)
LONGEST = 30


class Echo:
    """A backend whose logits are the token ids, so that every row can be told."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def predict(self, batch):
        assert set(batch) == {"input_ids", "input_mask", "segment_ids"}
        self.shapes.append(batch["input_ids"].shape)
        return {"start_logits": batch["input_ids"].astype(np.float32), "end_logits": -batch["segment_ids"] * 1.0}


@pytest.mark.parametrize("batch_size", [1, 4, 11, 16])
@pytest.mark.parametrize("multiple", [1, 8], ids=["every-length", "rounded-up"])
@pytest.mark.parametrize("fixed", [False, True], ids=["by-length", "fixed-length"])
def test_rows_come_back_in_order(batch_size, fixed, multiple):
    backend = Echo()
    backend.length_multiple = multiple
    outputs = predict_all(backend, FEATURES, batch_size, LONGEST, pad_to_max_length=fixed, quiet=True)
    assert {name: len(rows) for name, rows in outputs.items()} == {"start_logits": 11, "end_logits": 11}
    for row, length in enumerate(FEATURES.lengths):
        np.testing.assert_array_equal(outputs["start_logits"][row][:length], FEATURES.data["input_ids"][row, :length])
        np.testing.assert_array_equal(outputs["end_logits"][row][:length], -FEATURES.data["segment_ids"][row, :length])
    assert len(backend.shapes) == -(-11 // batch_size)
    assert {size for size, _ in backend.shapes} == {batch_size}  # also the last batch: one graph for all
    widths = [width for _, width in backend.shapes]
    if fixed:
        assert set(widths) == {LONGEST}
    else:
        # The longest of 5 to 20 tokens first, each batch no wider than it needs.
        longest = np.sort(FEATURES.lengths)[::-1][::batch_size]
        assert widths == [-(-length // multiple) * multiple for length in longest]


def test_half_precision_is_padded_further(backend_name, monkeypatch):
    monkeypatch.setattr(f"backends.{backend_name}.backend.half_precision_pays", lambda: True)
    found = [make_backend(backend_name, CONFIG, runtime=RuntimeSettings("cpu", half)) for half in (False, True)]
    assert [backend.length_multiple for backend in found] == [1, 8]


def test_rows_do_not_keep_whole_batches_in_memory():
    outputs = predict_all(Echo(), FEATURES, 4, LONGEST, quiet=True)
    assert all(row.base is None for rows in outputs.values() for row in rows)


def test_no_rows_give_no_outputs():
    assert predict_all(Echo(), ToyFeatures(CONFIG, 0), 4, LONGEST, quiet=True) == {}


def test_logits_do_not_depend_on_the_batching(backend_name):
    backend = make_backend(backend_name, CONFIG)
    expected = predict_all(backend, FEATURES, 4, LONGEST, quiet=True)
    for batch_size, fixed in ((3, False), (11, True)):
        found = predict_all(backend, FEATURES, batch_size, LONGEST, fixed, quiet=True)
        for name in expected:
            for row, length in enumerate(FEATURES.lengths):
                assert relative_error(found[name][row][:length], expected[name][row][:length]) < 1e-5


def test_model_inputs_leave_out_labels():
    assert set(model_inputs(FEATURES.batch(np.arange(2)))) == {"input_ids", "input_mask", "segment_ids"}
