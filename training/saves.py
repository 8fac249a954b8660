"""Checkpoints of a training run: written atomically with the optimizer's state, found again, checked, thinned out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from backends import BACKEND_NAMES
from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.checkpoint_state import STATE_FILE, read_checkpoint_state, write_checkpoint_state
from checkpoints.hugging_face import write_hugging_face
from checkpoints.safetensors_file import SafetensorsReader
from checkpoints.tf_checkpoint import write_tf_checkpoint
from twinquant.errors import UserError
from twinquant.files import remove_folder, remove_temporaries, write_bytes_atomically
from twinquant.json_text import parse_json
from twinquant.model_card import FILE as CARD_FILE
from twinquant.model_card import is_ours, write_card

logger = logging.getLogger("twinquant")

_SHAPED_BY = {"steps": " (of --max_steps, or --num_train_epochs and --train_batch_size)"}
"""The flags behind a value of a fingerprint that is none itself."""
STATE_SUFFIX = ".training_state.safetensors"


@dataclass
class TrainingState:
    """What a resumed run needs beside the weights."""

    step: int
    fingerprint: dict
    optimizer: dict[str, np.ndarray]


class RunFolder:
    """`model.ckpt-<step>` and `model.ckpt-calibrated` in an output folder, in the form the backend writes."""

    def __init__(self, folder: str | Path, backend: str, keep: int, card: Callable[[str], str] | None = None) -> None:
        """`card` makes the model card of the checkpoint of that name; None: no cards are written."""
        self.folder, self.backend, self.keep, self.card = Path(folder), backend, keep, card

    def path(self, label: int | str) -> Path:
        """Prefix of the bundle (TensorFlow) or folder (PyTorch) of that step or name."""
        return self.folder / f"model.ckpt-{label}"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there as a whole, in this backend's form, ascending."""
        return self._steps(self.backend)

    @property
    def other(self) -> RunFolder:
        """The same folder as the other backend sees it."""
        return RunFolder(self.folder, next(name for name in BACKEND_NAMES if name != self.backend), self.keep)

    def _steps(self, backend: str) -> list[int]:
        found = []
        pattern = re.compile(r"model\.ckpt-(\d+)" + (r"\.index" if backend == "tensorflow" else ""))
        for entry in self.folder.iterdir() if self.folder.is_dir() else ():
            if match := pattern.fullmatch(entry.name):
                found.append(int(match[1]))
        return sorted(found)

    def latest_step(self) -> Path | None:
        """The training checkpoint that the `checkpoint` file names; None where it names none, or no step's."""
        state = read_checkpoint_state(self.folder)
        steps = {self.path(step).name for step in (*self.steps(), *self.other.steps())}
        return self.folder / Path(state[0]).name if state is not None and Path(state[0]).name in steps else None

    def save(
        self, label: int | str, checkpoint: Checkpoint, state: TrainingState | None = None, latest: bool = True
    ) -> Path:
        """Writes a checkpoint; `state` goes beside it. Whatever was there stays whole until this is.

        One of the same name in the other backend's form is removed then: who reads the name must find this one. A run
        that is killed in between leaves both, which `load_checkpoint` refuses to choose from.

        `latest`: name it in the `checkpoint` file, as the one that a prediction takes.
        """
        path = self.path(label)
        # Bundles share a folder, and its card is that of the newest.
        if self.card is not None and (latest or self.backend == "pytorch"):
            checkpoint.card = self.card(path.name)
        if state is not None:
            self._write_state(path, state)
        if self.backend == "tensorflow":
            write_tf_checkpoint(path, checkpoint, state.step if state else None)
        else:
            write_hugging_face(path, checkpoint)
        self.other.remove_form(path)
        if latest:
            self.mark_latest(label)
        return path

    def write_card(self, path: Path) -> None:
        """Writes the card of a checkpoint anew that is there, when more is known of it; none where it is not there."""
        place = path if self.backend == "pytorch" else self.folder
        if self.card is not None and place.is_dir():
            write_card(place, self.card(path.name))

    def mark_latest(self, label: int | str) -> None:
        """Names that checkpoint in the `checkpoint` file; a step then takes the place of the oldest beyond `keep`.

        A calibration, or the best of several, takes none's place, and no step takes its own.
        """
        path, steps = self.path(label), self.steps()
        surplus = [step for step in steps[: -self.keep] if step != label] if isinstance(label, int) else []
        kept = [self.path(step).name for step in steps if step not in surplus]
        kept += [path.name] if path.name not in kept else []
        # Before the removal: a run killed in between must not leave the file naming a checkpoint that is gone.
        write_checkpoint_state(self.folder, path.name, kept)
        for step in surplus:
            self._remove(self.path(step))
        self._remove_orphans()

    def load(self, step: int) -> tuple[Checkpoint, TrainingState]:
        """The checkpoint of that step and its state; a damaged one is a UserError that names the way out."""
        path = self.path(step)
        try:
            checkpoint = load_checkpoint(str(path))
            state = self._read_state(path, step)
        except UserError as error:
            earlier = [s for s in self.steps() if s < step]
            way_out = f"to resume from {self.path(earlier[-1])}" if earlier else "to start again"
            raise UserError(f"cannot resume: {error}; remove {path}* {way_out}") from error
        return checkpoint, state

    def remove_all(self) -> None:
        """Removes every training checkpoint, of either backend; model.ckpt-calibrated stays."""
        # First the file that may name one of them: a run killed before its first save must not leave it dangling.
        if self.latest_step() is not None:
            (self.folder / STATE_FILE).unlink()
        for folder in (self, self.other):
            for step in folder.steps():
                folder._remove(self.path(step))

    def remove_leftovers(self) -> None:
        """Removes what a killed run left half written."""
        remove_temporaries(self.folder)
        self._remove_orphans()

    def has_state(self, step: int) -> bool:
        """Whether the checkpoint of that step can be resumed from."""
        return self._state_path(self.path(step)).exists()

    def fingerprint(self, step: int) -> dict:
        """The fingerprint of the run that wrote the checkpoint of that step."""
        return self._read_metadata(self.path(step))

    def state_path(self, step: int) -> Path:
        """The file beside the checkpoint of that step which holds the optimizer's state."""
        return self._state_path(self.path(step))

    def _state_path(self, path: Path) -> Path:
        # Beside the bundle or the folder, not in it: it is written first, and the checkpoint's own name commits it.
        return path.with_name(path.name + STATE_SUFFIX)

    def _write_state(self, path: Path, state: TrainingState) -> None:
        metadata = {"step": str(state.step), "fingerprint": json.dumps(state.fingerprint, sort_keys=True)}
        write_bytes_atomically(self._state_path(path), save(dict(state.optimizer), metadata))

    def _read_metadata(self, path: Path) -> dict:
        name = self._state_path(path)
        try:
            with safe_open(name, "numpy") as file:
                fingerprint = parse_json(file.metadata()["fingerprint"], f"the fingerprint in {name}")
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise UserError(f"{name}: not a whole training state ({error})") from error
        if not isinstance(fingerprint, dict) or type(fingerprint.get("processes", 1)) is not int:
            raise UserError(f"{name}: not a whole training state (its fingerprint is no list of settings)")
        return fingerprint

    def _read_state(self, path: Path, step: int) -> TrainingState:
        fingerprint = self._read_metadata(path)
        reader = SafetensorsReader(self._state_path(path))
        return TrainingState(step, fingerprint, {name: reader.read(name) for name in reader.names})

    def _remove_orphans(self) -> None:
        """Removes states and data files whose checkpoint was never finished, or was removed only in part."""
        for state in self.folder.glob(f"model.ckpt-*{STATE_SUFFIX}"):
            path = state.with_name(state.name.removesuffix(STATE_SUFFIX))
            # Of either form: an earlier version let the other backend train into this folder too.
            if not path.is_dir() and not path.with_name(path.name + ".index").exists():
                state.unlink()
        for data in self.folder.glob("model.ckpt-*.data-00000-of-00001"):
            if not Path(str(data).replace(".data-00000-of-00001", ".index")).exists():
                data.unlink()

    def remove_form(self, path: Path) -> None:
        """Removes the checkpoint of that name in this backend's form, if there is one; its training state stays."""
        if self.backend == "pytorch":
            if path.is_dir():
                remove_folder(path)
            return
        index, card = path.with_name(path.name + ".index"), self.folder / CARD_FILE
        if index.exists() and is_ours(card, path.name):
            card.unlink()
        # The index before the data: without it the checkpoint is gone, so no half of one is ever found.
        index.unlink(missing_ok=True)
        for file in self.folder.glob(path.name + ".*"):
            if not file.name.endswith(STATE_SUFFIX):
                file.unlink()

    def _remove(self, path: Path) -> None:
        self.remove_form(path)
        self._state_path(path).unlink(missing_ok=True)


def describe_difference(found: Mapping, expected: Mapping) -> str:
    """The settings in which two fingerprints differ, as words."""
    names = sorted(set(found) | set(expected))
    differing = [name for name in names if found.get(name) != expected.get(name)]
    parts = [f"{n}{_SHAPED_BY.get(n, '')}: {found.get(n)} there, {expected.get(n)} here" for n in differing]
    return "; ".join(parts)
