"""The same run with several seeds: every score's mean and standard deviation."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinquant.files import write_json_atomically
from twinquant.settings import CommonSettings

logger = logging.getLogger("twinquant")


def run_repeatedly(
    settings: CommonSettings, count: int, run: Callable[[Any], dict[str, float]], writes: bool = True
) -> dict[str, dict[str, float]]:
    """Runs with the seeds seed to seed + count - 1, each in a folder of its own, and summarizes the scores.

    Args:
        run: executes a run with the settings it is given; a run that was finished before trains no step again.
        writes: of several processes only rank 0 has scores, and writes them.

    Returns:
        What `summarize` gives, which is also written to runs.json in the output folder, with the scores of each run.
    """
    found = {}
    for seed in range(settings.seed, settings.seed + count):
        folder = Path(settings.output_dir) / f"seed-{seed}"
        logger.info("run with seed %d, in %s", seed, folder)
        curves = settings.logging_dir and str(Path(settings.logging_dir) / folder.name)  # a folder is one run's curves
        found[seed] = run(dataclasses.replace(settings, seed=seed, output_dir=str(folder), logging_dir=curves))
    if not writes:
        return {}
    summary = summarize(list(found.values()))
    runs = [{"seed": seed, "scores": scores} for seed, scores in found.items()]
    write_json_atomically(Path(settings.output_dir) / "runs.json", {"runs": runs, "summary": summary})
    for name, values in summary.items():
        logger.info(
            "%s: %.4f +- %.4f (mean and standard deviation of %d runs)",
            name, values["mean"], values["standard_deviation"], count,
        )  # fmt: skip
    return summary


def summarize(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By the name of each score: its mean and its sample standard deviation (0 for a single run)."""
    summary = {}
    for name in scores[0]:
        values = np.array([one[name] for one in scores], np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        summary[name] = {"mean": float(values.mean()), "standard_deviation": deviation}
    return summary
