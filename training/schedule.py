"""How many steps a run takes and the learning rate of each (google-research/bert, FasterTransformer's run_squad.py)."""

from dataclasses import dataclass

from twinquant.errors import UserError


def number_of_steps(examples: int, global_batch_size: int, epochs: float, max_steps: int = -1) -> int:
    """int(examples / global batch * epochs): examples, not windows, as the original counts.

    SQuAD v1.1's 87,599 examples at a global batch of 32 and 2 epochs give 5474. `max_steps` > 0 replaces the result.
    """
    steps = max_steps if max_steps > 0 else int(examples / global_batch_size * epochs)
    if steps < 1:
        raise UserError(
            f"nothing to train: {examples} examples / global batch {global_batch_size} * {epochs} epochs is less than "
            "one step; lower --train_batch_size or raise --num_train_epochs"
        )
    return steps


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warmup from 0, then linear decay to 0 at `total_steps`, without a jump between the two.

    A warmup that is longer than the run is cut off by its end, as in transformers: `peak` is not reached.
    """

    peak: float
    total_steps: int
    warmup_steps: int

    def __call__(self, step: int) -> float:
        """The learning rate of the step that follows `step` completed ones; the very first is 0, as the original's."""
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        # The decay reaches `peak` exactly at the end of the warmup.
        return self.peak * (self.total_steps - step) / (self.total_steps - self.warmup_steps)
