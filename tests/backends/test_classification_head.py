"""The classification head against transformers' BERT, against the other backend, and in training."""

import numpy as np
import pytest
from tiny_bert import activation_scopes, make_backend, make_batch, relative_error, tiny_config

from backends.base import DistillationSettings, OptimizerSettings, RuntimeSettings
from checkpoints.names import CLASSIFICATION, hugging_face_name, is_transposed
from quantization.modes import get_mode
from quantization.ranges import select_ranges
from training.initialization import random_checkpoint

CONFIG = tiny_config()
LENGTHS = [19, 7, 13]
HEADS = {"two-classes": 2, "five-classes": 5, "regression": 1}


def tensors_of(num_labels: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tensors = random_checkpoint(CONFIG, CLASSIFICATION, seed, num_labels).tensors
    return {
        name: array + (0.2 * rng.standard_normal(array.shape)).astype(np.float32) if array.ndim == 1 else array
        for name, array in tensors.items()
    }


def make(name: str, num_labels: int, **keywords):
    tensors = tensors_of(num_labels)
    return make_backend(name, CONFIG, tensors, head=CLASSIFICATION, num_labels=num_labels, **keywords)


def labeled_batch(num_labels: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if num_labels == 1:
        return make_batch(CONFIG, LENGTHS, seed=seed) | {"label_values": rng.standard_normal(3).astype(np.float32)}
    return make_batch(CONFIG, LENGTHS, seed=seed) | {"labels": rng.integers(0, num_labels, 3).astype(np.int32)}


@pytest.mark.parametrize("num_labels", HEADS.values(), ids=HEADS)
def test_equals_transformers(backend_name, num_labels):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tensors, batch = tensors_of(num_labels), make_batch(CONFIG, LENGTHS)
    config = transformers.BertConfig(num_labels=num_labels, **CONFIG.to_dict())
    model = transformers.BertForSequenceClassification(config).eval()
    arrays = {name: array.T if is_transposed(name) else array for name, array in tensors.items()}
    state = {hugging_face_name(name): torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    report = model.load_state_dict(state, strict=False)
    assert report.unexpected_keys == [] and all("position_ids" in name for name in report.missing_keys)
    with torch.no_grad():
        inputs = [torch.tensor(batch[name].astype(np.int64)) for name in ("input_ids", "input_mask", "segment_ids")]
        expected = model(*inputs).logits.numpy()
    found = make(backend_name, num_labels).predict(batch)
    assert list(found) == ["logits"] and found["logits"].dtype == np.float32
    assert relative_error(found["logits"], expected) < 1e-5


def test_logits_do_not_depend_on_padding(backend_name):
    backend = make(backend_name, 3)
    tight, wide = (backend.predict(make_batch(CONFIG, LENGTHS, padded))["logits"] for padded in (19, 64))
    assert relative_error(wide, tight) < 1e-5


@pytest.mark.parametrize("mode_name", ["ft1", "ft2", "ft3", "trt", "ort"])
def test_quantized_backends_agree(both_backends, mode_name):
    mode, tensors = get_mode(mode_name), tensors_of(4)
    amax = {scope: np.float32(4.0) for scope in activation_scopes(CONFIG.num_hidden_layers)}
    for scope in (f"{name}_quantizer" for name in tensors if name.endswith("/kernel")):
        amax[scope] = np.float32(1.0) if not mode.per_channel else np.ones(
            tensors[scope.removesuffix("_quantizer")].shape[1], np.float32
        )  # fmt: skip
    logits = []
    for name in both_backends:
        backend = make(name, 4)
        float_logits = backend.predict(make_batch(CONFIG, LENGTHS))["logits"]
        backend.set_quantization(mode, select_ranges(amax, tensors, mode, "the test"))
        logits.append(backend.predict(make_batch(CONFIG, LENGTHS))["logits"])
        assert not np.array_equal(logits[-1], float_logits)
    # The encoder's integers are equal; the pooler and the head are float32 products.
    assert relative_error(logits[0], logits[1]) < 1e-6


@pytest.mark.parametrize("num_labels", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("distillation", [None, DistillationSettings(scale=10.0)], ids=["labels", "distillation"])
def test_training_agrees_between_the_backends(both_backends, num_labels, distillation):
    """Without dropout both take the same steps, and the loss on one batch falls."""
    results = []
    for name in both_backends:
        backend = make(
            name, num_labels, distillation=distillation, runtime=RuntimeSettings(dropout=False),
            optimizer=OptimizerSettings(max_grad_norm=10.0),
        )  # fmt: skip
        batch = labeled_batch(num_labels)
        if distillation:
            teacher = make(name, num_labels)
            teacher.load(tensors_of(num_labels, seed=1))
            batch["teacher_logits"] = teacher.predict(make_batch(CONFIG, LENGTHS))["logits"]
        losses = [backend.train_step([batch], 3e-3, seed=step) for step in range(8)]
        # Teacher and labels contradict each other, so with both the loss cannot fall far.
        assert losses[-1] < (0.7 if distillation is None else 1.0) * losses[0]
        results.append((losses, backend.tensors()))
    (first, first_tensors), (second, second_tensors) = results
    assert first == pytest.approx(second, rel=1e-3)
    for name, array in first_tensors.items():
        assert np.abs(array - second_tensors[name]).max() < 2e-3, name
