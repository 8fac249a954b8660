"""Scores during training: kept in evaluations.json, and the best model so far as model.ckpt-best."""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import Checkpoint
from tasks.base import Task
from training.saves import RunFolder
from twinquant.errors import UserError
from twinquant.files import sha256_of_file, write_json_atomically
from twinquant.json_text import parse_json

logger = logging.getLogger("twinquant")

FILE = "evaluations.json"
BEST = "best"
MODEL = "model_sha256"
"""In the entry of an evaluation that was the best so far: of the weights that were then saved as model.ckpt-best."""


class Evaluations:
    """The evaluations of one training run, and which of them was the best."""

    def __init__(self, folder: RunFolder, task: Task, first_step: int) -> None:
        """Takes over what an earlier part of the run found up to `first_step`; 0 starts anew.

        Where model.ckpt-best is another model than the best of these, as after a run that went on beyond `first_step`
        before it was killed, these stay in the file, but the best is chosen among the evaluations that follow.
        """
        self.folder, self.task = folder, task
        self.path = Path(folder.folder) / FILE
        self.found: list[dict] = []
        if first_step and self.path.exists():
            self.found = [entry for entry in _read(self.path) if entry["step"] <= first_step]
        self.compared = self._since_the_best()  # those that the best is chosen among

    def _since_the_best(self) -> list[dict]:
        """What was found from the evaluation on whose model is model.ckpt-best; earlier ones were not as good."""
        known = [number for number, entry in enumerate(self.found) if MODEL in entry]
        if not known:  # written by an earlier version
            return list(self.found)
        sha256 = self._sha256()
        same = [number for number in known if self.found[number][MODEL] == sha256]
        if not same:
            logger.warning(
                "warning: %s is the model of none of the evaluations up to step %d, from which training goes on: the "
                "best is chosen among those that follow", self.folder.path(BEST), self.found[-1]["step"],
            )  # fmt: skip
        return self.found[same[-1] :] if same else []

    def add(self, step: int, scores: Mapping[str, float], as_checkpoint: Callable[[], Checkpoint]) -> None:
        """Records the scores after `step` steps, and saves the model if none before it was as good."""
        logger.info("evaluation after step %d: %s", step, describe_scores(scores))
        score = self.task.main_score(scores)
        entry = {"step": step, "score": score, "scores": dict(scores)}
        if all(score > other["score"] for other in self.compared):
            # The model first: a run killed in between finds the entry missing, and evaluates again.
            path = self.folder.save(BEST, as_checkpoint(), latest=False)
            entry[MODEL] = self._sha256()
            logger.info("the best so far: saved %s", path)
        self.found.append(entry)
        self.compared.append(entry)
        write_json_atomically(self.path, self.found)

    @property
    def best(self) -> dict | None:
        """The entry of the best evaluation, the earliest of equals: step, score, scores. None before the first."""
        return max(self.compared, key=lambda entry: entry["score"], default=None)

    def _sha256(self) -> str | None:
        """Of the weights of model.ckpt-best; None where there is none."""
        path = self.folder.path(BEST)
        data = path.with_name(f"{path.name}.data-00000-of-00001")
        file = data if self.folder.backend == "tensorflow" else path / "model.safetensors"
        return sha256_of_file(file) if file.is_file() else None


def remove_evaluations(folder: RunFolder, kept: Iterable[str | None]) -> None:
    """Removes what an earlier run left of its evaluations, before training starts anew.

    A run that is killed before its first evaluation and resumed would take it for its own. `kept`: checkpoints that
    the run needs; model.ckpt-best stays where it is one of them.
    """
    (Path(folder.folder) / FILE).unlink(missing_ok=True)
    best = folder.path(BEST)
    if best not in {Path(name) for name in kept if name}:
        for form in (folder, folder.other):
            form.remove_form(best)


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
