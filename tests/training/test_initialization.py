"""From a checkpoint to a whole model: new heads from the seed, everything else named when it is missing."""

import numpy as np
import pytest
from tiny_bert import tiny_config, tiny_tensors

from checkpoints.checkpoint import Checkpoint
from checkpoints.names import QUESTION_ANSWERING, expected_tensors
from training.initialization import complete_tensors, random_checkpoint
from twinquant.errors import UserError

CONFIG = tiny_config(initializer_range=0.02, hidden_size=128)
HEAD = {"cls/squad/output_weights", "cls/squad/output_bias"}
QUERY = "bert/encoder/layer_1/attention/self/query/kernel"


def checkpoint(without=(), **changes):
    tensors = {name: array for name, array in tiny_tensors(CONFIG).items() if name not in without}
    return Checkpoint(tensors=tensors | changes, config=CONFIG, source="folder/model.ckpt-3")


def complete(given, seed=1, new_head_allowed=True):
    return complete_tensors(given, CONFIG, QUESTION_ANSWERING, seed, new_head_allowed)


def test_a_whole_checkpoint_is_taken_as_it_is():
    given = checkpoint()
    tensors = complete(given)
    assert list(tensors) == list(expected_tensors(CONFIG, QUESTION_ANSWERING))
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, given.tensors[name], err_msg=name)
        assert array.dtype == np.float32


def test_tensors_that_no_task_needs_are_left_out():
    extra = {"bert/pooler/dense/kernel": np.zeros((128, 128), np.float32), "cls/predictions/bias": np.zeros(3)}
    assert complete(checkpoint(**extra)).keys() == expected_tensors(CONFIG, QUESTION_ANSWERING).keys()


def test_a_new_head_comes_from_the_seed():
    first, again, other = (complete(checkpoint(without=HEAD), seed) for seed in (1, 1, 2))
    weights = first["cls/squad/output_weights"]
    np.testing.assert_array_equal(weights, again["cls/squad/output_weights"])
    assert (weights != other["cls/squad/output_weights"]).any()
    np.testing.assert_array_equal(first["cls/squad/output_bias"], [0, 0])
    assert weights.shape == (2, 128) and weights.dtype == np.float32
    assert np.abs(weights).max() <= 2 * CONFIG.initializer_range
    assert 0.7 * CONFIG.initializer_range < weights.std() < CONFIG.initializer_range


def test_a_half_head_is_completed():
    tensors = complete(checkpoint(without={"cls/squad/output_bias"}))
    np.testing.assert_array_equal(tensors["cls/squad/output_weights"], tiny_tensors(CONFIG)["cls/squad/output_weights"])


def test_a_head_that_was_never_trained_cannot_predict():
    with pytest.raises(UserError, match="folder/model.ckpt-3 has no cls/squad/output_weights.*--do_train"):
        complete(checkpoint(without=HEAD), new_head_allowed=False)


@pytest.mark.parametrize("new_head_allowed", [True, False])
def test_missing_encoder_tensors_are_named(new_head_allowed):
    with pytest.raises(UserError, match=r"folder/model.ckpt-3 lacks 2 tensors.*LayerNorm/beta.*query/kernel"):
        complete(checkpoint(without={"bert/encoder/layer_0/output/LayerNorm/beta", QUERY}), 1, new_head_allowed)


def test_a_wrong_shape_is_named_with_both_shapes():
    wrong = {QUERY: np.zeros((128, 64), np.float32)}
    with pytest.raises(UserError, match=rf"{QUERY} is \[128, 64\], expected \[128, 128\]"):
        complete(checkpoint(**wrong))


def test_a_head_of_another_shape_is_not_replaced_silently():
    with pytest.raises(UserError, match=r"cls/squad/output_weights is \[3, 128\], expected \[2, 128\]"):
        complete(checkpoint(**{"cls/squad/output_weights": np.zeros((3, 128), np.float32)}))


def test_random_checkpoints_depend_on_the_seed_alone():
    first, again, other = (random_checkpoint(CONFIG, QUESTION_ANSWERING, seed).tensors for seed in (1, 1, 2))
    assert list(first) == list(expected_tensors(CONFIG, QUESTION_ANSWERING))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
        if array.ndim == 2:
            assert (array != other[name]).any(), name
            assert np.abs(array).max() <= 2 * CONFIG.initializer_range
        else:
            np.testing.assert_array_equal(array, 1.0 if name.endswith("gamma") else 0.0, err_msg=name)
    # Tensors of one shape are drawn independently.
    assert (first[QUERY] != first[QUERY.replace("query", "key")]).mean() > 0.99
