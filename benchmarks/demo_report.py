"""The demo's tables, and what must hold of them: a demo that cannot fail shows nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

LEAST_AGREEMENT = 97.0
_LABELS = {"EM": "EM", "F1": "F1", "accuracy": "accuracy"}


@dataclass
class Row:
    """What one step gave.

    scores: in percent. seconds: of the clock; processor_seconds: of all threads together. agreement: percentage of
    answers that are the same on the other backend from the same checkpoint; None where there is nothing to compare.
    comparison: sizes in megabytes and times in milliseconds, where the step measures them.
    """

    task: str
    title: str
    precision: str
    backend: str
    scores: dict[str, float]
    seconds: float
    processor_seconds: float
    agreement: float | None = None
    comparison: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bounds:
    """What the rows of a task must keep: the score that counts, its floor for the fp32 model, and the most that each
    int8 model may lose against the fp32 model, in points."""

    score: str
    floor: float
    largest_loss: dict[str, float]


def table(rows: Sequence[Row]) -> str:
    """The rows of one task as aligned text."""
    scores = list(rows[0].scores)
    header = f"{'step':11} {'precision':17} {'backend':11}" + "".join(f" {name:>9}" for name in scores)
    lines = [f"{header} {'seconds':>8}   same answers"]
    for row in rows:
        numbers = "".join(f" {row.scores[name]:9.2f}" for name in scores)
        agreement = "" if row.agreement is None else f"   {row.agreement:10.1f} %"
        lines.append(f"{row.title:11} {row.precision:17} {row.backend:11}{numbers} {row.seconds:8.1f}{agreement}")
    return "\n".join(lines)


def broken_promises(rows: Sequence[Row], bounds: Bounds) -> list[str]:
    """One sentence for each thing that the demo claims of a task and the rows do not show; empty when all hold."""
    broken = [
        f"{row.task}: {row.precision} on {row.backend} agrees in {row.agreement:.1f} % of the answers, "
        f"expected at least {LEAST_AGREEMENT:.0f} %"
        for row in rows
        if row.agreement is not None and row.agreement < LEAST_AGREEMENT
    ]
    fp32 = rows[0].scores[bounds.score]
    if fp32 < bounds.floor:
        broken.append(
            f"{rows[0].task}: {bounds.score} of the fine-tuned fp32 model is {fp32:.2f}, "
            f"expected at least {bounds.floor:.0f}"
        )
    for row in rows[1:]:
        loss, most = fp32 - row.scores[bounds.score], bounds.largest_loss.get(row.precision, 0.0)
        if row.precision != rows[0].precision and loss > most:
            broken.append(
                f"{row.task}: {row.precision} on {row.backend} loses {loss:.2f} points of {bounds.score}, "
                f"expected at most {most:.0f}"
            )
    for row in rows:
        sizes = row.comparison
        if "fp32_mb" in sizes and sizes["int8_mb"] >= sizes["fp32_mb"]:
            broken.append(
                f"{row.task}: the {row.precision} file has {sizes['int8_mb']:.1f} MB, "
                f"not less than the {sizes['fp32_mb']:.1f} MB of fp32"
            )
    return broken
