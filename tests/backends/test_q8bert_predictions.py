"""Prediction in q8bert mode: where its quantizers sit, the same integers in both backends, what it needs."""

import numpy as np
import pytest
from numpy_q8bert import CONFIG, HEADS, NumpyQ8Bert, clear_batches, head_tensors, labeled_batch
from tiny_bert import make_backend, tiny_config

from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from quantization.histogram import Observer
from quantization.modes import all_quantizers, is_calibrated, q8bert_mode
from training.prediction import model_inputs
from twinquant.errors import UserError

MODE = q8bert_mode()
TOLERANCE = 1e-4
LAYER = "bert/encoder/layer_0"
DECAY = 0.75


def make(name, head, config=CONFIG, tensors=None):
    tensors = head_tensors(head, config) if tensors is None else tensors
    return make_backend(name, config, tensors, head=head, num_labels=HEADS[head])


def largest_difference(found, expected):
    assert found.keys() == expected.keys()
    return max(np.abs(found[name] - expected[name]).max() for name in found)


def trained_ranges(head, config=CONFIG):
    """What a training over a few batches would find."""
    reference = NumpyQ8Bert(config, head_tensors(head, config), head, DECAY)
    for seed in range(3):
        reference(labeled_batch(head, seed, config=config))
    return {scope: np.float32(amax) for scope, amax in reference.averages.items()}


@pytest.mark.parametrize("head", HEADS)
def test_logits_equal_the_reference(backend_name, head):
    """Embeddings, pooler and head included; every batch with the ranges that the reference had then."""
    batches, results = clear_batches(head, 4, DECAY)
    backend = make(backend_name, head)
    batch, (averages, expected) = batches[3], results[3]
    floating = backend.predict(model_inputs(batch))
    backend.set_quantization(MODE, {scope: np.float32(amax) for scope, amax in averages.items()})
    assert largest_difference(backend.predict(model_inputs(batch)), expected) < TOLERANCE
    assert largest_difference(floating, expected) > 100 * TOLERANCE  # or the comparison says nothing


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_every_quantizer_shows(backend_name, head):
    backend, batch = make(backend_name, head), model_inputs(labeled_batch(head, lengths=[5, 3, 5, 4] * 8))
    backend.set_quantization(MODE, trained_ranges(head))
    whole = backend.predict(batch)
    quantizers = backend.quantization.quantizers
    for scope in list(quantizers):
        quantizer = quantizers.pop(scope)
        assert largest_difference(backend.predict(batch), whole) > 1e-5, scope
        quantizers[scope] = quantizer
    assert largest_difference(backend.predict(batch), whole) == 0


@pytest.mark.usefixtures("without_graphs")
def test_of_all_outputs_only_query_and_key_are_quantized(backend_name):
    """And neither probabilities nor V: each product of attention is given what its quantizers make of it."""
    backend, seen = make(backend_name, CLASSIFICATION), {}
    backend.set_quantization(MODE, trained_ranges(CLASSIFICATION))
    backend.settings.onednn = False  # of PyTorch's: its products would pass matmul by
    backend.settings.matmul = recording(backend.settings.matmul, seen)
    backend.predict(model_inputs(labeled_batch(CLASSIFICATION)))
    whole = [all((operand == np.rint(operand)).all() for operand in operands) for operands in seen.values()]
    # Q, K, V, QK^T, PV, attention output, intermediate, output, pooler
    assert whole == [True, True, True, True, False, True, True, True, True]
    probabilities, value = seen[4]
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    assert (value != np.rint(value)).mean() > 0.9


def recording(matmul, seen):
    def record(a, b, *arguments, **keywords):
        seen[len(seen)] = [np.asarray(operand) for operand in (a, b)]
        return matmul(a, b, *arguments, **keywords)

    return record


@pytest.mark.parametrize("head", HEADS)
def test_backends_agree_on_any_batch(both_backends, head):
    """Without keeping clear of ties, over two layers: the same integers everywhere, so the same logits."""
    config = tiny_config()
    ranges = trained_ranges(head, config)
    batches = [model_inputs(labeled_batch(head, seed, [20, 11, 15, 7], config)) for seed in range(3)]
    results = []
    for name in both_backends:
        backend = make(name, head, config)
        backend.set_quantization(MODE, ranges)
        results.append([backend.predict(batch) for batch in batches])
    for first, second in zip(*results, strict=True):
        assert largest_difference(first, second) == 0


@pytest.mark.parametrize("head", HEADS)
def test_prediction_without_a_range_names_the_quantizer(backend_name, head):
    ranges, batch = trained_ranges(head), model_inputs(labeled_batch(head))
    scope = f"{LAYER}/output/dense/input_quantizer"
    backend = make(backend_name, head)
    backend.set_quantization(MODE, {name: amax for name, amax in ranges.items() if name != scope})
    with pytest.raises(UserError, match=f"quantizer {scope} has no range: it is found in training"):
        backend.predict(batch)
    backend.set_quantization(MODE, ranges)
    backend.predict(batch)
    assert not any("pooler" in name for name in ranges) or head == CLASSIFICATION


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_bad_range_names_the_quantizer(backend_name, bad):
    backend = make(backend_name, QUESTION_ANSWERING)
    with pytest.raises(UserError, match="cls/squad/output_input_quantizer has the "):
        backend.set_quantization(MODE, {"cls/squad/output_input_quantizer": np.float32(bad)})


@pytest.mark.usefixtures("without_graphs")
def test_all_zero_tensors_predict_numbers(backend_name):
    """NLP Architect divided by zero: a head without a weight, and inputs that are zero in training."""
    tensors = head_tensors(CLASSIFICATION)
    for name in ("output_weights", f"{LAYER}/attention/self/value/kernel", f"{LAYER}/attention/self/value/bias"):
        tensors[name] = np.zeros_like(tensors[name])
    backend, batch = make(backend_name, CLASSIFICATION, tensors=tensors), labeled_batch(CLASSIFICATION)
    backend.set_quantization(MODE, {})
    assert np.isfinite(backend.train_step([batch], 0.0, 0))
    assert backend.ranges()[f"{LAYER}/attention/output/dense/input_quantizer"] == 0
    logits = backend.predict(model_inputs(batch))["logits"]
    np.testing.assert_array_equal(logits, np.broadcast_to(tensors["output_bias"], logits.shape))


@pytest.mark.usefixtures("without_graphs")
@pytest.mark.parametrize("head", HEADS)
def test_calibration_sees_the_encoder_alone(backend_name, head):
    """Its set of ranges, and so every calibrated checkpoint, is the same as without the new quantizers."""
    backend, observer = make(backend_name, head), Observer()
    backend.observe(model_inputs(labeled_batch(head)), observer, include_padding=True)
    scopes = {scope for names, _ in observer.groups() for scope in names}
    assert scopes == {scope for scope, row in all_quantizers(1).items() if not row.is_weight}
    assert all(map(is_calibrated, scopes))


def test_switching_off_gives_the_float_model(backend_name):
    backend, batch = make(backend_name, CLASSIFICATION), model_inputs(labeled_batch(CLASSIFICATION))
    floating = backend.predict(batch)
    backend.set_quantization(MODE, trained_ranges(CLASSIFICATION))
    assert largest_difference(backend.predict(batch), floating) > 0
    backend.set_quantization(None, {})
    assert backend.ranges() == {}
    assert largest_difference(backend.predict(batch), floating) == 0
