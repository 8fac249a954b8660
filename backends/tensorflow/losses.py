"""Training losses in TensorFlow; the formulae are stated in backends/base.py. Mirrors backends/pytorch/losses.py."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from backends.base import MASK_VALUE, OUTPUT_NAMES, DistillationSettings
from checkpoints.names import QUESTION_ANSWERING

Inputs = Mapping[str, tf.Tensor]


def task_loss(head: str, logits: Sequence[tf.Tensor], inputs: Inputs) -> tf.Tensor:
    """The loss on the labels of a batch: of a span, a class or, where the labels are values, a regression."""
    if head == QUESTION_ANSWERING:
        return span_loss(logits, (inputs["start_positions"], inputs["end_positions"]), inputs["input_mask"])
    if "label_values" in inputs:
        return tf.reduce_mean(tf.square(logits[0][:, 0] - inputs["label_values"]))
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(inputs["labels"], logits[0]))


def span_loss(logits: Sequence[tf.Tensor], positions: Sequence[tf.Tensor], input_mask: tf.Tensor) -> tf.Tensor:
    """Mean cross entropy of the start and end positions, averaged.

    Padding is left out of the softmax, so that the loss does not depend on how far a batch is padded.

    Args:
        logits: start and end, float32 [B, S].
        positions: start and end, int [B].
        input_mask: int [B, S].
    """
    padding = (1.0 - tf.cast(input_mask, tf.float32)) * MASK_VALUE
    losses = [
        tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(position, x + padding))
        for x, position in zip(logits, positions, strict=True)
    ]
    return (losses[0] + losses[1]) / 2.0


def distillation_loss(
    head: str, student: Sequence[tf.Tensor], inputs: Inputs, settings: DistillationSettings
) -> tf.Tensor:
    """The difference between the softened spans or classes of teacher and student: see DistillationSettings.

    Args:
        student: the outputs named in OUTPUT_NAMES, float32 [B, S] or [B, num_labels].
        inputs: the batch, with the teacher's outputs.
    """
    teacher = [inputs[f"teacher_{name}"] for name in OUTPUT_NAMES[head]]
    if "label_values" in inputs:
        return tf.reduce_mean(tf.square(student[0] - teacher[0]))
    if head == QUESTION_ANSWERING:
        padding, size = (1.0 - tf.cast(inputs["input_mask"], tf.float32)) * MASK_VALUE, settings.sequence_length
    else:
        padding, size = 0.0, float(student[0].shape[-1])
    total = tf.zeros(())
    for student_logits, teacher_logits in zip(student, teacher, strict=True):
        student_logits = student_logits / settings.temperature + padding
        teacher_logits = teacher_logits / settings.temperature + padding
        if settings.loss == "tf":
            p, q = tf.nn.softmax(student_logits, -1) + 1e-9, tf.nn.softmax(teacher_logits, -1) + 1e-9
            total = total + tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p / q), -1))
        else:
            log_p, log_q = tf.nn.log_softmax(teacher_logits, -1), tf.nn.log_softmax(student_logits, -1)
            divergence = tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1))
            total = total + divergence / size
    return total
