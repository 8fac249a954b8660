"""The int8 file evaluated alone: the predictions of the fp32 model, fake-quantized, but for the rounding of biases."""

import numpy as np
import pytest
from numpy_q8bert import CONFIG, HEADS, head_tensors, labeled_batch
from tiny_bert import make_backend

from checkpoints.names import QUESTION_ANSWERING
from checkpoints.q8bert_file import FILE_NAME, read_q8bert, write_q8bert
from checkpoints.value import Checkpoint
from quantization.modes import q8bert_mode
from training.prediction import model_inputs

MODE = q8bert_mode()


def predict(name, head, tensors, ranges, batch):
    backend = make_backend(name, CONFIG, tensors, head=head, num_labels=HEADS[head])
    backend.set_quantization(MODE, ranges)
    return backend.predict(batch)


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_the_file_alone_predicts_as_the_trained_model(backend_name, head, tmp_path):
    backend = make_backend(backend_name, CONFIG, head_tensors(head), head=head, num_labels=HEADS[head])
    backend.set_quantization(MODE, {})
    for step in range(4):
        backend.train_step([labeled_batch(head, step)], 1e-2, step)
    batch = model_inputs(labeled_batch(head, 9, [5, 3, 5, 4] * 8))
    trained, tensors = backend.predict(batch), backend.tensors()
    write_q8bert(tmp_path / FILE_NAME, Checkpoint(tensors, backend.ranges(), CONFIG, "trained"), MODE)

    read = read_q8bert(tmp_path)
    found = predict(backend_name, head, read.tensors, read.ranges, batch)
    # The biases are all that the file changes: with them in the fp32 model the predictions are equal to the bit.
    rounded = {name: read.tensors[name] if name.endswith("bias") else array for name, array in tensors.items()}
    expected = predict(backend_name, head, rounded, backend.ranges(), batch)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])
        # Half a step of a bias, 1/127**2 / 2 of the product of two ranges, moves few values across a rounding border.
        assert np.abs(found[name] - trained[name]).max() < 0.02 * np.abs(trained[name]).max()
    if head != QUESTION_ANSWERING:
        np.testing.assert_array_equal(found["logits"].argmax(-1), trained["logits"].argmax(-1))


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_both_backends_evaluate_it_alike(both_backends, head, tmp_path):
    first = make_backend(both_backends[0], CONFIG, head_tensors(head), head=head, num_labels=HEADS[head])
    first.set_quantization(MODE, {})
    first.train_step([labeled_batch(head)], 1e-2, 0)
    write_q8bert(tmp_path / FILE_NAME, Checkpoint(first.tensors(), first.ranges(), CONFIG, "trained"), MODE)
    read, batch = read_q8bert(tmp_path), model_inputs(labeled_batch(head, 9, [5, 3, 5, 4]))
    results = [predict(name, head, read.tensors, read.ranges, batch) for name in both_backends]
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])
