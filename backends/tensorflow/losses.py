"""Training losses in TensorFlow; the formulae are stated in backends/base.py. Mirrors backends/pytorch/losses.py."""

import tensorflow as tf

from backends.base import MASK_VALUE, DistillationSettings

Logits = tuple[tf.Tensor, tf.Tensor]


def span_loss(logits: Logits, positions: Logits, input_mask: tf.Tensor) -> tf.Tensor:
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
    student: Logits, teacher: Logits, input_mask: tf.Tensor, settings: DistillationSettings
) -> tf.Tensor:
    """KL divergence between the teacher's and the student's softened spans, start plus end: DistillationSettings."""
    padding = (1.0 - tf.cast(input_mask, tf.float32)) * MASK_VALUE
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
            total = total + divergence / settings.sequence_length
    return total
