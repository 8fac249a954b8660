"""The data of a check as a task: a SQuAD file, a GLUE task's folder, or a file of one's own texts."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.names import CLASSIFICATION
from export.flags import DATA_FLAGS, Arguments
from export.source import Source
from tasks.base import Task
from tasks.classification_source import ClassificationSource
from twinquant.errors import UserError
from twinquant.words import no_effect

logger = logging.getLogger("twinquant")

_OF_SQUAD = (
    "doc_stride", "max_query_length", "n_best_size", "max_answer_length", "version_2_with_negative",
    "null_score_diff_threshold",
)  # fmt: skip
_OF_TEXTS = ("text_column", "label_column", "class_file")
_DEFAULT_LENGTHS = {True: 128, False: 384}  # of a classification, of question answering


def max_seq_length(arguments: Arguments, source: Source) -> int:
    """--max_seq_length or its default, at most the model's positions."""
    length = arguments["max_seq_length"] or _DEFAULT_LENGTHS[source.head == CLASSIFICATION]
    return min(length, source.config.max_position_embeddings)


@dataclass(frozen=True)
class Reading:
    """How texts become rows of tokens: cut to `longest`, lower-cased or not; `is_told`: by a flag or a file."""

    longest: int
    do_lower_case: bool
    is_told: bool


def reading(arguments: Arguments, source: Source) -> Reading:
    """As the flags say, the checkpoint's files, or BERT's defaults."""
    lower, told = arguments["do_lower_case"], source.checkpoint.metadata.get("do_lower_case")
    is_told = lower is not None or told is not None
    return Reading(max_seq_length(arguments, source), told != "false" if lower is None else lower, is_told)


def make_task(arguments: Arguments, source: Source, data: str, examples: int | None) -> Task:
    """The task that the head is for, on that data, its first `examples`; UserError for what does not fit."""
    vocab_file = arguments["vocab_file"] or source.checkpoint.vocab_file
    if vocab_file is None:
        raise UserError(f"--vocab_file is required: {source.name} has no vocab.txt beside it")
    how = reading(arguments, source)
    shared: dict[str, Any] = {
        "vocab_file": Path(vocab_file),
        "do_lower_case": how.do_lower_case,
        "max_seq_length": how.longest,
        "max_position_embeddings": source.config.max_position_embeddings,
        "vocab_size": source.config.vocab_size,
    }
    _warn_of_idle(arguments, source)
    if source.head == CLASSIFICATION:
        return _classification(arguments, source, data, examples, shared)
    if arguments["task_name"] is not None:
        raise UserError(f"--task_name={arguments['task_name']} is for classification; {source.name} answers questions")
    from tasks.squad import SquadTask

    own = {name: arguments[name] for name in _OF_SQUAD}
    return SquadTask(predict_file=data, max_predict_examples=examples, **shared, **own)


def _warn_of_idle(arguments: Arguments, source: Source) -> None:
    """Of flags for the data of the other head."""
    idle = _OF_TEXTS if source.head != CLASSIFICATION else _OF_SQUAD
    defaults = {flag.name: flag.default for flag in DATA_FLAGS}
    given = [f"--{name}" for name in idle if (arguments[name] or None) != (defaults[name] or None)]
    if given:
        logger.warning("warning: %s: %s is for %s", no_effect(given), source.name, source.head)


def _classification(arguments: Arguments, source: Source, data: str, examples: int | None, shared: dict) -> Task:
    from tasks.classification import ClassificationTask
    from tasks.glue import GlueSource

    texts: ClassificationSource
    if arguments["task_name"] is not None:
        if not Path(data).is_dir():
            raise UserError(
                f"{data} is not a folder; --task_name={arguments['task_name']} reads the folder of the GLUE data"
            )
        texts = GlueSource(arguments["task_name"], data, source.label_names)
        named = f"--task_name={arguments['task_name']}"
    elif Path(data).is_dir():
        raise UserError(f"--task_name is required: the GLUE task of {data}")
    else:
        texts, named = _own_texts(arguments, source, data), data
    task = ClassificationTask(source=texts, max_eval_samples=examples, **shared)
    if task.num_labels != source.num_labels:
        raise UserError(f"{named} has {task.num_labels} labels, {source.name} has {source.num_labels}")
    return task


def _own_texts(arguments: Arguments, source: Source, data: str) -> ClassificationSource:
    from tasks.text_classification import OwnDataSource

    return OwnDataSource(
        validation_file=data,
        text_column=arguments["text_column"],
        label_column=arguments["label_column"],
        class_file=arguments["class_file"],
        do_regression=source.num_labels == 1,
        label_names=source.label_names,
    )
