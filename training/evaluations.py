"""Scores during training: kept in evaluations.json, and the best model so far as model.ckpt-best."""

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import Checkpoint
from tasks.base import Task
from training.saves import RunFolder
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.json_text import parse_json

logger = logging.getLogger("twinquant")

FILE = "evaluations.json"
BEST = "best"


class Evaluations:
    """The evaluations of one training run, and which of them was the best."""

    def __init__(self, folder: RunFolder, task: Task, first_step: int) -> None:
        """Takes over what an earlier part of the run found up to `first_step`; 0 starts anew."""
        self.folder, self.task = folder, task
        self.path = Path(folder.folder) / FILE
        self.found: list[dict] = []
        if first_step and self.path.exists():
            self.found = [entry for entry in _read(self.path) if entry["step"] <= first_step]

    def add(self, step: int, scores: Mapping[str, float], as_checkpoint: Callable[[], Checkpoint]) -> None:
        """Records the scores after `step` steps, and saves the model if none before it was as good."""
        logger.info("evaluation after step %d: %s", step, describe_scores(scores))
        score = self.task.main_score(scores)
        better = all(score > entry["score"] for entry in self.found)
        if better:
            # The model first: a run killed in between finds the entry missing, and evaluates again.
            path = self.folder.save(BEST, as_checkpoint(), latest=False)
            logger.info("the best so far: saved %s", path)
        self.found.append({"step": step, "score": score, "scores": dict(scores)})
        write_json_atomically(self.path, self.found)

    @property
    def best(self) -> dict | None:
        """The entry of the best evaluation, the earliest of equals: step, score, scores. None before the first."""
        return max(self.found, key=lambda entry: entry["score"], default=None)


def describe_scores(scores: Mapping[str, float]) -> str:
    """Scores as one line, sorted by name."""
    return ", ".join(f"{name} {value:.4f}" for name, value in sorted(scores.items()))


def _read(path: Path) -> list[dict]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    remedy = "is not a list of evaluations (step, score, scores); remove it to go on without them"
    entries = parse_json(content, path, remedy)
    if not isinstance(entries, list) or not all(map(_is_evaluation, entries)):
        raise UserError(f"{path} {remedy}")
    return entries


def _is_evaluation(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("scores"), dict):
        return False
    numbers = [entry.get("score"), *entry["scores"].values()]
    return type(entry.get("step")) is int and all(
        type(n) in (int, float) and abs(n) <= sys.float_info.max for n in numbers
    )
