"""Dynamic loss scaling for float16 gradients (Micikevicius et al., 2017, arXiv 1710.03740)."""

from dataclasses import dataclass, field

import numpy as np

from twinquant.errors import UserError

FIRST = 2.0**16
PERIOD = 1000  # finite steps after which the scale doubles
MANY = 20  # steps skipped in a row although the scale cannot fall: such a run learns nothing


@dataclass
class LossScale:
    """The factor on the loss. Constant unless `dynamic`; steps that overflow are skipped where it is `used`."""

    used: bool
    dynamic: bool
    value: float
    finite_steps: int = 0
    skipped: int = field(default=0, compare=False)  # steps, since this process started
    in_a_row: int = field(default=0, compare=False)  # of these the latest, at a scale that could not fall

    @classmethod
    def create(cls, half: bool, fixed: float) -> "LossScale":
        """1 without float16, else the fixed scale (--loss_scale), or a dynamic one where that is 0."""
        return cls(half, half and fixed == 0.0, (fixed or FIRST) if half else 1.0)

    def update(self, finite: bool) -> None:
        """Counts an overflow (whose step is skipped) and halves after it, doubles after many steps without one.

        Raises UserError after MANY overflows in a row at a scale that is fixed, or 1 already.
        """
        if not self.used:
            return
        lowest = not self.dynamic or self.value == 1.0
        self.skipped += not finite
        self.in_a_row = self.in_a_row + 1 if lowest and not finite else 0
        if self.in_a_row == MANY:
            flag = "--use_fp16: at a loss scale of 1" if self.dynamic else f"--loss_scale {self.value:g}:"
            way_out = "train without --use_fp16" if self.dynamic else "lower it, or give 0, which adapts it"
            raise UserError(
                f"{flag} the gradients of {MANY} steps in a row overflowed, and none was applied; {way_out}"
            )
        if not self.dynamic:
            return
        self.finite_steps = self.finite_steps + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2.0)
        elif self.finite_steps % PERIOD == 0:
            self.value *= 2.0

    def to_array(self) -> np.ndarray:
        return np.array([self.value, self.finite_steps], np.float64)

    def from_array(self, array: np.ndarray | None) -> None:
        """Restores what `to_array` gave, where the scale is dynamic here too; without it the first scale stays.

        A run may go on in other products: what a GPU found for float16 must not scale the float32 gradients of a CPU,
        which nothing divides again. UserError for anything that `to_array` cannot have given.
        """
        if array is None:
            return
        if array.shape != (2,) or not (np.isfinite(array).all() and array[0] > 0 and array[1] >= 0):
            raise UserError(f"loss_scale is {array}, expected a scale above zero and a number of steps")
        if self.dynamic:
            self.value, self.finite_steps = float(array[0]), int(array[1])
