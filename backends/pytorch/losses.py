"""Training losses in PyTorch; the formulae are stated in backends/base.py. Mirrors backends/tensorflow/losses.py."""

import torch
import torch.nn.functional as F

from backends.base import MASK_VALUE, DistillationSettings

Logits = tuple[torch.Tensor, torch.Tensor]


def span_loss(logits: Logits, positions: Logits, input_mask: torch.Tensor) -> torch.Tensor:
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
    student: Logits, teacher: Logits, input_mask: torch.Tensor, settings: DistillationSettings
) -> torch.Tensor:
    """KL divergence between the teacher's and the student's softened spans, start plus end: DistillationSettings."""
    padding = (1.0 - input_mask.float()) * MASK_VALUE
    total = torch.zeros((), device=input_mask.device)
    for student_logits, teacher_logits in zip(student, teacher, strict=True):
        student_logits = student_logits / settings.temperature + padding
        teacher_logits = teacher_logits / settings.temperature + padding
        if settings.loss == "tf":
            p, q = F.softmax(student_logits, -1) + 1e-9, F.softmax(teacher_logits, -1) + 1e-9
            total = total + (p * torch.log(p / q)).sum(-1).mean()
        else:
            log_p, log_q = F.log_softmax(teacher_logits, -1), F.log_softmax(student_logits, -1)
            total = total + (log_p.exp() * (log_p - log_q)).sum(-1).mean() / settings.sequence_length
    return total
