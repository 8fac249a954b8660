"""Training losses in PyTorch; the formulae are stated in backends/base.py. Mirrors backends/tensorflow/losses.py."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from backends.base import MASK_VALUE, OUTPUT_NAMES, DistillationSettings
from checkpoints.names import QUESTION_ANSWERING

Inputs = Mapping[str, torch.Tensor]


def task_loss(head: str, logits: Sequence[torch.Tensor], inputs: Inputs) -> torch.Tensor:
    """The loss on the labels of a batch: of a span, a class or, where the labels are values, a regression."""
    if head == QUESTION_ANSWERING:
        return span_loss(logits, (inputs["start_positions"], inputs["end_positions"]), inputs["input_mask"])
    if "label_values" in inputs:
        return F.mse_loss(logits[0][:, 0], inputs["label_values"])
    return F.cross_entropy(logits[0], inputs["labels"])


def span_loss(
    logits: Sequence[torch.Tensor], positions: Sequence[torch.Tensor], input_mask: torch.Tensor
) -> torch.Tensor:
    """Mean cross entropy of the start and end positions, averaged.

    Padding is left out of the softmax, so that the loss does not depend on how far a batch is padded.

    Args:
        logits: start and end, float32 [B, S].
        positions: start and end, int [B].
        input_mask: int [B, S].
    """
    padding = (1.0 - input_mask.float()) * MASK_VALUE
    losses = [F.cross_entropy(x + padding, position) for x, position in zip(logits, positions, strict=True)]
    return (losses[0] + losses[1]) / 2.0


def distillation_loss(
    head: str, student: Sequence[torch.Tensor], inputs: Inputs, settings: DistillationSettings
) -> torch.Tensor:
    """The difference between the softened spans or classes of teacher and student: see DistillationSettings.

    Args:
        student: the outputs named in OUTPUT_NAMES, float32 [B, S] or [B, num_labels].
        inputs: the batch, with the teacher's outputs.
    """
    teacher = [inputs[f"teacher_{name}"] for name in OUTPUT_NAMES[head]]
    if "label_values" in inputs:
        return F.mse_loss(student[0], teacher[0])
    if head == QUESTION_ANSWERING:
        padding, size = (1.0 - inputs["input_mask"].float()) * MASK_VALUE, settings.sequence_length
    else:
        padding, size = 0.0, float(student[0].shape[-1])
    total = torch.zeros((), device=inputs["input_mask"].device)
    for student_logits, teacher_logits in zip(student, teacher, strict=True):
        student_logits = student_logits / settings.temperature + padding
        teacher_logits = teacher_logits / settings.temperature + padding
        if settings.loss == "tf":
            p, q = F.softmax(student_logits, -1) + 1e-9, F.softmax(teacher_logits, -1) + 1e-9
            total = total + (p * torch.log(p / q)).sum(-1).mean()
        else:
            log_p, log_q = F.log_softmax(teacher_logits, -1), F.log_softmax(student_logits, -1)
            total = total + (log_p.exp() * (log_p - log_q)).sum(-1).mean() / size
    return total
