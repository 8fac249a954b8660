"""Numbers of steps and learning rates against those that FasterTransformer's guide and scripts give."""

import pytest

from training.schedule import LearningRateSchedule, number_of_steps
from twinquant.errors import UserError

SQUAD_EXAMPLES = 87599


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "expected"),
    [
        (SQUAD_EXAMPLES, 32, 2.0, 5474),
        (SQUAD_EXAMPLES, 32, 10.0, 27374),
        (SQUAD_EXAMPLES, 8, 3.0, 32849),
        (100, 32, 2.0, 6),
        (100, 32, 0.5, 1),
        (3, 4, 1.5, 1),
    ],
    ids=["guide-fine-tuning", "guide-distillation", "defaults", "rounded-down", "half-an-epoch", "small"],
)
def test_number_of_steps(examples, batch, epochs, expected):
    assert number_of_steps(examples, batch, epochs) == expected


def test_max_steps_replaces_the_number():
    assert number_of_steps(SQUAD_EXAMPLES, 32, 2.0, max_steps=10) == 10
    assert number_of_steps(SQUAD_EXAMPLES, 32, 2.0, max_steps=-1) == 5474


def test_less_than_one_step_is_a_user_error():
    with pytest.raises(UserError, match="nothing to train: 3 examples / global batch 32 .* 2.0 epochs"):
        number_of_steps(3, 32, 2.0)


def original_rate(peak, step, steps, warmup):
    """run_squad.py of the original: a decay that starts higher, so that it has come down to `peak` after the warmup."""
    if step < warmup:
        return peak * step / warmup
    start = peak / (1 - warmup / steps)
    return start * (1 - step / steps)


@pytest.mark.parametrize(("steps", "warmup"), [(5474, 547), (10, 1), (10, 0), (20, 19)])
def test_learning_rate_is_the_originals(steps, warmup):
    schedule = LearningRateSchedule(4e-5, steps, warmup)
    for step in range(steps):
        assert schedule(step) == pytest.approx(original_rate(4e-5, step, steps, warmup), rel=1e-12), step


@pytest.mark.parametrize("warmup", [10, 40], ids=["as-long-as-the-run", "longer"])
def test_a_warmup_that_the_run_does_not_reach_the_end_of(warmup):
    """As transformers' get_linear_schedule_with_warmup; it was cut to the run's length, four times as steep."""
    schedule = LearningRateSchedule(1.0, 10, warmup)
    assert [schedule(step) for step in range(10)] == [step / warmup for step in range(10)]


def test_learning_rate_rises_falls_and_never_jumps():
    schedule = LearningRateSchedule(1.0, 100, 10)
    rates = [schedule(step) for step in range(101)]
    assert rates[0] == 0.0 and rates[10] == 1.0 == max(rates) and rates[100] == 0.0
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(abs(after - before) for before, after in zip(rates, rates[1:], strict=False)) <= 0.1 + 1e-12
