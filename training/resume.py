"""Where a run goes on: from the newest checkpoint of the same run in its folder, whatever the number of processes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from checkpoints.checkpoint import Checkpoint
from checkpoints.config import BertConfig
from quantization.modes import Mode
from training.processes import Processes
from training.saves import RunFolder, describe_difference
from twinquant.errors import UserError
from twinquant.files import sha256_of_file
from twinquant.settings import CommonSettings

PROCESSES = "processes"
"""The name in a fingerprint of the number of processes that the run was started with. It shapes the result through the
rows of a step and the learning rate, and both stay when the run goes on with another number."""

DEVICE = "device"
"""The name in a saved fingerprint of the place of the computation (`Backend.place`): a run that goes on elsewhere is
warned of, not refused."""

_OF_EARLIER_RUNS = {PROCESSES: 1, "horovod_compression": "none", "group_by_length": False}
# Shape the result, but earlier versions did not tell them: they are taken to have been as they are here.
_NOT_TOLD_EARLIER = ("loss_scale", "scale_learning_rate")


def find_resume_point(folder: RunFolder, fingerprint: Callable[[int], dict], processes: int = 1) -> tuple[int, int]:
    """The step to resume from, 0 for a fresh run, and the number of processes that the run was started with.

    Args:
        fingerprint: of this run, were it started with so many processes.
        processes: how many there are now.

    Raises:
        UserError: the folder holds checkpoints of another run.
    """
    foreign = folder.other.steps()
    if foreign:
        raise UserError(
            f"--output_dir {folder.folder} holds {folder.path(foreign[-1]).name} of another run (backend: "
            f"{folder.other.backend} there, {folder.backend} here); choose another folder, or --overwrite_output_dir "
            "to start anew"
        )
    resumable = [step for step in folder.steps() if folder.has_state(step)]
    if not resumable:
        if folder.steps():
            raise UserError(
                f"--output_dir {folder.folder} holds model.ckpt-{folder.steps()[-1]} without its training state, so "
                "this run cannot resume from it; choose another folder, or --overwrite_output_dir to start anew"
            )
        return 0, processes
    newest = resumable[-1]
    stored = folder.fingerprint(newest)
    started_with = stored.get(PROCESSES, 1)
    expected = fingerprint(started_with)
    # Runs of the time before there were several processes do not tell these two.
    found = {name: value for name, value in _OF_EARLIER_RUNS.items() if name in expected}
    found |= {name: expected[name] for name in _NOT_TOLD_EARLIER if name in expected}
    found |= {name: value for name, value in stored.items() if name != DEVICE}
    if found != expected:
        raise UserError(
            f"--output_dir {folder.folder} holds {folder.path(newest).name} of another run "
            f"({describe_difference(found, expected)}); choose another folder, or --overwrite_output_dir to start "
            "anew"
        )
    return newest, started_with


def describe_change(started_with: int, processes: int, global_batch: int) -> str:
    """What is the same and what is not when a run goes on with another number of processes."""
    return (
        f"the run was started with {started_with} process(es) and goes on with {processes}: every step still takes "
        f"{global_batch} rows, at the same learning rate; the processes' shares of them, and so the dropout and the "
        "last bits of sums, are others than in an unbroken run"
    )


def settings_fingerprint(settings: CommonSettings, mode: Mode) -> dict:
    """The flags that shape the result of training, as values that JSON holds."""
    names = [
        "init_checkpoint", "train_batch_size", "num_accumulation_steps", "learning_rate", "warmup_proportion",
        "warmup_steps", "weight_decay", "adam_epsilon", "max_grad_norm", "seed", "pad_to_max_length",
        "group_by_length", "use_fp16", "use_xla", "if_quant", "do_calib", "distillation", "horovod_compression",
    ]  # fmt: skip
    if settings.use_fp16:
        names += ["loss_scale"]
    if settings.if_quant:
        names += ["quant_mode", "custom_mode"]
    if mode.learns_ranges:
        names += ["start_step", "ema_decay"]
    if settings.do_calib:
        names += ["calib_batch", "calib_method", "percentile", "calib_include_padding"]
    if settings.distillation:
        names += ["teacher", "distillation_loss", "distillation_loss_scale", "distillation_temperature"]
    found: dict = json.loads(json.dumps({name: getattr(settings, name) for name in names}))
    if settings.if_quant and mode.excluded:
        found["quant_exclude"] = sorted(mode.excluded)
    return found


def model_fingerprint(config: BertConfig, vocab_file: Path) -> dict:
    """The model's shape and its vocabulary, as values that JSON holds."""
    return {
        "vocab_file": sha256_of_file(vocab_file),
        "config": json.dumps(dataclasses.asdict(config), sort_keys=True),
    }


def share_checkpoint(
    processes: Processes, checkpoint: Checkpoint | None, config: BertConfig, vocab_file: Path
) -> Checkpoint:
    """A checkpoint of the output folder, which rank 0 has read, on every process.

    The others need not see that folder, and give None.
    """
    if processes.size == 1 and checkpoint is not None:
        return checkpoint
    read = checkpoint or Checkpoint(tensors={})
    source, metadata = processes.share([read.source, read.metadata], "checkpoint")
    tensors = processes.share_arrays(read.tensors, "tensors")
    ranges = processes.share_arrays(read.ranges, "ranges")
    return Checkpoint(tensors, ranges, config, source, vocab_file, metadata)
