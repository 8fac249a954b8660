"""The model that is exported: a checkpoint of any form, completed and checked, with what lies beside it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.checkpoint import load_checkpoint
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING, head_of
from checkpoints.value import Checkpoint
from quantization.calibration_record import calibrated_exclusion, calibrated_mode, read_calibration
from quantization.exclusion import exclude
from quantization.modes import MODE_NAMES, Q8BERT, Mode, enabled_quantizers, get_mode
from quantization.ranges import Ranges, select_ranges
from training.initialization import complete_tensors
from twinquant.errors import UserError

TASK_HEADS = {"squad": QUESTION_ANSWERING, "glue": CLASSIFICATION}
_HEAD_WEIGHTS = {QUESTION_ANSWERING: "cls/squad/output_weights", CLASSIFICATION: "output_weights"}


@dataclass
class Source:
    """A complete model: float32 `tensors` in the canonical order, its config, head, ranges and label names.

    `num_labels`: of a classification head, 1 for a regression; None for question answering. `calibration`: what
    `quantization.calibration_record.read_calibration` found of the ranges; None where there is nothing.
    """

    checkpoint: Checkpoint
    config: BertConfig
    head: str
    num_labels: int | None
    label_names: list[str] | None
    tensors: dict[str, np.ndarray]
    calibration: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The checkpoint's path, for messages."""
        return self.checkpoint.source

    @property
    def task(self) -> str:
        """ "squad" or "glue"."""
        return next(task for task, head in TASK_HEADS.items() if head == self.head)

    def choose_mode(self, name: str | None, quant_exclude: Sequence[str] = ()) -> Mode:
        """The mode of that name without the quantizers that `quant_exclude` names (`quantization.exclusion.exclude`).

        Where these are not given: those of the checkpoint's calibration.
        """
        mode = self._named_mode(name)
        excluded = quant_exclude or calibrated_exclusion(self.calibration, mode.name, self.name)
        chosen = exclude(mode, excluded, self.config.num_hidden_layers)
        if excluded and not enabled_quantizers(self.config.num_hidden_layers, chosen, self.head):
            raise UserError("--quant_exclude leaves nothing to quantize; --precision=fp32 is the float model")
        return chosen

    def _named_mode(self, name: str | None) -> Mode:
        calibrated = calibrated_mode(self.calibration)
        if calibrated == Q8BERT:
            raise UserError(
                f"{self.name} was trained in mode q8bert, which has ranges for fewer tensors than static int8 needs; "
                "--precision=int8-dynamic or fp32 exports its float32 weights, --do_calib of one of the modes of "
                "--quant_mode finds ranges for int8"
            )
        if name is not None:
            return get_mode(name)
        if calibrated is not None:
            return get_mode(calibrated)
        if not self.checkpoint.ranges:
            raise UserError(
                f"{self.name} was never calibrated: int8 needs ranges; run with --do_calib --quant_mode=ft1 "
                "--percentile=99.999 and start from the model.ckpt-calibrated it writes, or export with "
                "--precision=int8-dynamic, which needs none"
            )
        raise UserError(
            f"--quant_mode is required: {self.name} has ranges, but neither calibration.json nor settings.json beside "
            f"it says for which mode; expected one of {', '.join(MODE_NAMES)}"
        )

    def take_tensors(self) -> dict[str, np.ndarray]:
        """The tensors, which the source has no longer: their memory is the caller's to free."""
        tensors, self.tensors = self.tensors, {}
        self.checkpoint.tensors = {}
        return tensors

    def ranges(self, mode: Mode) -> Ranges:
        """The ranges that the mode needs; UserError for the first that is missing or of the wrong shape."""
        return select_ranges(self.checkpoint.ranges, self.tensors, mode, self.name)


def load_source(path: str, task: str = "auto", config_file: str | None = None) -> Source:
    """Reads a checkpoint of any form (`checkpoints.checkpoint.load_checkpoint`).

    Args:
        task: "squad", "glue", or "auto": whichever head the checkpoint has.
        config_file: the model's configuration, where none lies beside the checkpoint.

    Raises UserError: no config, no head or two, tensors that are missing or of the wrong shape.
    """
    checkpoint = load_checkpoint(path)
    config = BertConfig.from_json_file(config_file) if config_file is not None else checkpoint.config
    if config is None:
        raise UserError(f"--bert_config_file is required: {checkpoint.source} has no configuration beside it")
    return make_source(checkpoint, config, task, read_calibration(checkpoint.fetched_into or path, checkpoint.ranges))


def make_source(
    checkpoint: Checkpoint, config: BertConfig, task: str = "auto", calibration: dict[str, Any] | None = None
) -> Source:
    """A checkpoint in memory as a source; see `load_source`. `calibration`: see `Source`."""
    head = _find_head(checkpoint, task)
    num_labels = None
    label_names = None
    if head == CLASSIFICATION:
        weights = checkpoint.tensors[_HEAD_WEIGHTS[head]]
        if weights.ndim != 2:
            raise UserError(
                f"{checkpoint.source}: output_weights has the shape {list(weights.shape)}, expected [labels, hidden]"
            )
        num_labels = len(weights)
        label_names = config.label_names
        if label_names is None or len(label_names) != num_labels:
            label_names = [f"LABEL_{index}" for index in range(num_labels)]
    tensors = complete_tensors(checkpoint, config, head, 0, False, num_labels)
    return Source(checkpoint, config, head, num_labels, label_names, tensors, calibration)


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes, types and little-endian bytes, in order of names: 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], arrays[name].dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _find_head(checkpoint: Checkpoint, task: str) -> str:
    present = [head for head, name in _HEAD_WEIGHTS.items() if name in checkpoint.tensors]
    if task != "auto":
        head = TASK_HEADS[task]
        if head not in present:
            found = f"its head is for {present[0].replace('_', ' ')}" if present else "it has no head"
            raise UserError(f"--task={task} needs {_HEAD_WEIGHTS[head]}, which {checkpoint.source} lacks: {found}")
        return head
    found_head = head_of(checkpoint.tensors)
    if found_head is None:
        expected = " or ".join(f"{name} ({head.replace('_', ' ')})" for head, name in _HEAD_WEIGHTS.items())
        raise UserError(
            f"{checkpoint.source} has no head that can be exported: expected {expected}; fine-tune it first"
        )
    if len(present) > 1:
        raise UserError(
            f"{checkpoint.source} has a head for question answering and one for classification: say which with "
            "--task=squad or --task=glue"
        )
    return found_head
