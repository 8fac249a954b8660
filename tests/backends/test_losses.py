"""Training losses against the formulae of backends/base.py in NumPy float64, where padding does not exist at all."""

import importlib

import numpy as np
import pytest

from backends.base import DistillationSettings
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING

LENGTHS = [9, 4, 6]
TOLERANCE = 2e-6


def framework(backend_name):
    """The loss functions, and how an array becomes a tensor (integers as the backend passes them)."""
    losses = importlib.import_module(f"backends.{backend_name}.losses")
    if backend_name == "pytorch":
        import torch

        return losses, lambda x: torch.tensor(x.astype(np.int64) if x.dtype == np.int32 else x)
    import tensorflow as tf

    return losses, tf.constant


def logits_pair(seed, width=9, spread=3.0):
    rng = np.random.default_rng(seed)
    return tuple((spread * rng.standard_normal((len(LENGTHS), width))).astype(np.float32) for _ in range(2))


def mask_of(width):
    return (np.arange(width) < np.array(LENGTHS)[:, None]).astype(np.int32)


POSITIONS = (np.array([8, 0, 3], np.int32), np.array([2, 3, 5], np.int32))


def log_softmax(x):
    x = x.astype(np.float64)
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def expected_span_loss(logits, positions):
    losses = [
        -np.mean([log_softmax(row[:length])[p] for row, length, p in zip(x, LENGTHS, position, strict=True)])
        for x, position in zip(logits, positions, strict=True)
    ]
    return sum(losses) / 2


def span_inputs(tensor, teacher, width):
    """The part of a batch that the distillation of spans looks at."""
    return {
        "input_mask": tensor(mask_of(width)),
        "teacher_start_logits": tensor(teacher[0]),
        "teacher_end_logits": tensor(teacher[1]),
    }


def expected_distillation_loss(student, teacher, settings, lengths=LENGTHS):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        divergences = []
        for length, s_row, t_row in zip(lengths, s, t, strict=True):
            log_s = log_softmax(s_row[:length] / settings.temperature)
            log_t = log_softmax(t_row[:length] / settings.temperature)
            if settings.loss == "tf":
                p, q = np.exp(log_s) + 1e-9, np.exp(log_t) + 1e-9
                divergences.append((p * np.log(p / q)).sum())
            else:
                divergences.append((np.exp(log_t) * (log_t - log_s)).sum() / settings.sequence_length)
        total += np.mean(divergences)
    return total


def padded(pair, width, seed=5):
    """More positions behind the rows, with large logits in them."""
    rng = np.random.default_rng(seed)
    shape = (len(LENGTHS), width - pair[0].shape[1])
    return tuple(np.concatenate([x, rng.uniform(-50, 50, shape).astype(np.float32)], 1) for x in pair)


@pytest.mark.parametrize("width", [9, 17], ids=["tight", "padded"])
def test_span_loss(backend_name, width):
    losses, tensor = framework(backend_name)
    logits = padded(logits_pair(0), width)
    found = losses.span_loss(tuple(map(tensor, logits)), tuple(map(tensor, POSITIONS)), tensor(mask_of(width)))
    assert float(found) == pytest.approx(expected_span_loss(logits, POSITIONS), rel=TOLERANCE)


DISTILLATION = {
    "tf": DistillationSettings("tf"),
    "pytorch": DistillationSettings("pytorch"),
    "tf-temperature-1": DistillationSettings("tf", temperature=1.0),
    "pytorch-temperature-5-length-128": DistillationSettings("pytorch", temperature=5.0, sequence_length=128),
}


@pytest.mark.parametrize("width", [9, 17], ids=["tight", "padded"])
@pytest.mark.parametrize("settings", DISTILLATION.values(), ids=DISTILLATION)
def test_distillation_loss(backend_name, settings, width):
    losses, tensor = framework(backend_name)
    student, teacher = padded(logits_pair(1), width), padded(logits_pair(2), width, seed=6)
    inputs = span_inputs(tensor, teacher, width)
    found = losses.distillation_loss(QUESTION_ANSWERING, tuple(map(tensor, student)), inputs, settings)
    assert float(found) == pytest.approx(expected_distillation_loss(student, teacher, settings), rel=1e-5)


@pytest.mark.parametrize("settings", DISTILLATION.values(), ids=DISTILLATION)
def test_nothing_to_learn_from_an_equal_teacher(backend_name, settings):
    losses, tensor = framework(backend_name)
    logits = logits_pair(3)
    inputs = span_inputs(tensor, logits, 9)
    found = losses.distillation_loss(QUESTION_ANSWERING, tuple(map(tensor, logits)), inputs, settings)
    assert float(found) == pytest.approx(0, abs=1e-7)


def test_the_two_originals_disagree_in_direction(backend_name):
    """KL(student || teacher) against KL(teacher || student): exchanging the two exchanges the losses."""
    losses, tensor = framework(backend_name)

    def loss(student, teacher, settings):
        student = tuple(map(tensor, logits_pair(student)))
        inputs = span_inputs(tensor, logits_pair(teacher), 9)
        return float(losses.distillation_loss(QUESTION_ANSWERING, student, inputs, settings))

    tf_loss = loss(1, 2, DistillationSettings("tf"))
    reverse = loss(2, 1, DistillationSettings("pytorch", sequence_length=1))
    forward = loss(1, 2, DistillationSettings("pytorch", sequence_length=1))
    assert tf_loss == pytest.approx(reverse, rel=1e-5)
    assert tf_loss != pytest.approx(forward, rel=1e-3)


def test_far_apart_logits_stay_finite(backend_name):
    losses, tensor = framework(backend_name)
    student, inputs = tuple(map(tensor, logits_pair(1, spread=200.0))), span_inputs(tensor, logits_pair(2, 9, 200.0), 9)
    for settings in DISTILLATION.values():
        assert np.isfinite(float(losses.distillation_loss(QUESTION_ANSWERING, student, inputs, settings)))
    assert np.isfinite(float(losses.span_loss(student, tuple(map(tensor, POSITIONS)), tensor(mask_of(9)))))


LABELS = np.array([2, 0, 4], np.int32)


def test_loss_of_classes(backend_name):
    losses, tensor = framework(backend_name)
    logits = logits_pair(4, width=5)[0]
    expected = -np.mean([log_softmax(row)[label] for row, label in zip(logits, LABELS, strict=True)])
    found = losses.task_loss(CLASSIFICATION, (tensor(logits),), {"labels": tensor(LABELS)})
    assert float(found) == pytest.approx(expected, rel=TOLERANCE)


def test_loss_of_a_regression(backend_name):
    losses, tensor = framework(backend_name)
    logits, values = logits_pair(5, width=1)[0], np.array([0.5, -1.0, 3.25], np.float32)
    expected = np.mean((logits[:, 0].astype(np.float64) - values) ** 2)
    found = losses.task_loss(CLASSIFICATION, (tensor(logits),), {"label_values": tensor(values)})
    assert float(found) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("kind", ["tf", "pytorch"])
def test_distillation_of_classes(backend_name, kind):
    """As of spans, with the classes in the place of the positions, and no padding."""
    losses, tensor = framework(backend_name)
    student, teacher = logits_pair(6, width=5)
    inputs = {"input_mask": tensor(mask_of(9)), "labels": tensor(LABELS), "teacher_logits": tensor(teacher)}
    settings = DistillationSettings(kind, sequence_length=384)
    found = losses.distillation_loss(CLASSIFICATION, (tensor(student),), inputs, settings)
    of_classes = DistillationSettings(kind, sequence_length=5)
    expected = expected_distillation_loss((student,), (teacher,), of_classes, [5, 5, 5])
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_distillation_of_a_regression(backend_name):
    losses, tensor = framework(backend_name)
    student, teacher = logits_pair(7, width=1)
    inputs = {"label_values": tensor(np.zeros(3, np.float32)), "teacher_logits": tensor(teacher)}
    found = losses.distillation_loss(CLASSIFICATION, (tensor(student),), inputs, DistillationSettings())
    expected = np.mean((student.astype(np.float64) - teacher) ** 2)
    assert float(found) == pytest.approx(expected, rel=TOLERANCE)
