"""What a run begins with: the checkpoint, the configuration and the vocabulary that the flags mean."""

import dataclasses
import logging
import re
from pathlib import Path
from typing import TypeVar

from checkpoints.checkpoint import Checkpoint
from checkpoints.checkpoint_state import latest_checkpoint
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION
from tasks.base import Task
from training.evaluations import BEST
from training.saves import RunFolder
from twinquant.errors import UserError
from twinquant.settings import CommonSettings

logger = logging.getLogger("twinquant")

# Keys of config.json beside id2label and label2id.
_OF_A_TASK = ("problem_type", "num_labels", "finetuning_task")

Settings = TypeVar("Settings", bound=CommonSettings)


def start_of(settings: CommonSettings) -> str | None:
    """The checkpoint to begin with; None: random weights, which the flags allow for training only."""
    latest = None
    if getattr(settings, "load_quantized_model", False):
        return settings.init_checkpoint  # the int8 file there, and nothing else
    only_export = not (settings.do_train or settings.do_calib or settings.predicts)
    if only_export and settings.init_checkpoint:
        return settings.init_checkpoint
    if settings.dialect == "tensorflow" and not (settings.do_train or settings.do_calib):
        # As the original's Estimator: prediction alone takes what the output folder holds.
        latest = latest_checkpoint(settings.output_dir) if Path(settings.output_dir).is_dir() else None
    if latest is not None:
        if settings.init_checkpoint and Path(latest) != Path(settings.init_checkpoint):
            logger.warning(
                "predicting with %s, the newest in --output_dir; --init_checkpoint %s would be used only if "
                "--output_dir held none", latest, settings.init_checkpoint
            )  # fmt: skip
        return latest
    return settings.init_checkpoint


def check_start_stays(settings: CommonSettings, folder: RunFolder) -> None:
    """Raises UserError where training anew would remove or replace a checkpoint that the run needs until its end.

    These are --init_checkpoint, whose vocabulary goes into every save and with which a quantized model is compared, and
    --teacher. Training removes the training checkpoints of `folder`, and an evaluation replaces its best one.
    """
    lost = {folder.path(step).resolve() for step in (*folder.steps(), *folder.other.steps())}
    if settings.evaluate_per_epoch or settings.evaluate_steps:
        lost.add(folder.path(BEST).resolve())
    for flag, name in (("--init_checkpoint", settings.init_checkpoint), ("--teacher", settings.teacher)):
        if not name:
            continue
        # A prefix, its index, a folder, a file in it, or the folder above, which stands for its newest.
        path = Path(name.removesuffix(".index"))
        newest = latest_checkpoint(path) if path.is_dir() else None
        if lost & {each.resolve() for each in (path, path.parent, Path(newest or path))}:
            raise UserError(
                f"{flag} {name} would be lost: training anew in the same --output_dir replaces it, and the run needs "
                "it until its end; give another --output_dir"
            )


def config_of(settings: CommonSettings, checkpoint: Checkpoint) -> BertConfig:
    """The model's configuration: the file that was named, or that beside the checkpoint."""
    if settings.bert_config_file is not None:
        return BertConfig.from_json_file(settings.bert_config_file)
    if checkpoint.config is None:
        raise UserError(f"--bert_config_file is missing, and {checkpoint.source} has no config beside it")
    return checkpoint.config


def vocab_file_of(settings: CommonSettings, checkpoint: Checkpoint) -> Path:
    """The vocabulary: the file that was named, or that beside the checkpoint."""
    found = settings.vocab_file or checkpoint.vocab_file
    if found is None:
        raise UserError("--vocab_file is missing, and no file of the model's folder can take its place")
    beside = checkpoint.vocab_file
    if beside is not None and Path(beside).is_file() and Path(beside).read_bytes() != Path(found).read_bytes():
        logger.warning(
            "warning: %s is another vocabulary than %s, which lies beside the checkpoint: with ids that mean other "
            "words the model's answers are noise", found, beside,
        )  # fmt: skip
    return Path(found)


def lower_case_of(settings: Settings, checkpoint: Checkpoint) -> Settings:
    """The settings with the lower-casing of a model of the hub, whose files the flags' rules have not seen.

    A flag that was given stays, with a warning, and so does the default of the PyTorch twin's scripts, which knew no
    other way. Of a folder or file, those rules have settled it.
    """
    told = checkpoint.metadata.get("do_lower_case")
    if not checkpoint.fetched_into or told is None or (lower := told == "true") == settings.do_lower_case:
        return settings
    file = f"tokenizer_config.json of {checkpoint.source}"
    if "do_lower_case" in settings.explicit or settings.dialect == "pytorch":
        logger.warning("warning: do_lower_case is %s, but %s says %s", settings.do_lower_case, file, lower)
        return settings
    logger.info("do_lower_case is %s, as %s says", lower, file)
    return dataclasses.replace(settings, do_lower_case=lower)


def config_with_labels(config: BertConfig, task: Task, checkpoint: Checkpoint) -> BertConfig:
    """The config that is saved: with the classes of the task, as transformers names them.

    Warns where the checkpoint's as many classes have wholly or partly other names. Numbers, and the names that
    transformers gives where it knows none, say nothing of the classes.

    Raises UserError where the checkpoint was trained for the same classes in another order.
    """
    found = checkpoint.label_names
    if task.head != CLASSIFICATION:
        return config
    if found != task.label_names:  # what else the configuration says is of the task before
        config = dataclasses.replace(config, extra={k: v for k, v in config.extra.items() if k not in _OF_A_TASK})
    if task.label_names is None:
        config = config.with_labels(["LABEL_0"])
        return dataclasses.replace(config, extra={**config.extra, "problem_type": "regression"})
    if found and found != task.label_names and sorted(found) == sorted(task.label_names):
        raise UserError(
            f"{checkpoint.source} was trained for the classes {', '.join(found)} in this order, the data has "
            f"{', '.join(task.label_names)}: name them in the checkpoint's order (--class_file)"
        )
    same = not found or found == task.label_names or len(found) != len(task.label_names)
    if found and not same and not all(re.fullmatch(r"(LABEL_)?\d+", name) for name in found):
        logger.warning(
            "warning: %s was trained for the classes %s; here its outputs stand for %s, in this order",
            checkpoint.source, ", ".join(found), ", ".join(task.label_names),
        )  # fmt: skip
    return config.with_labels(task.label_names)
