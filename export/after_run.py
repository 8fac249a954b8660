"""What run_squad.py and run_glue.py export after their last phase: as `python -m export onnx` of the checkpoint."""

import logging
from functools import partial
from pathlib import Path

from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION
from export.commands import CheckFailed, describe_files, export_as_told
from export.flags import Arguments, onnx_arguments
from export.folder import MODEL_NAME, check_place, model_path
from export.source import Source, load_source
from export.triton import TritonSettings, check_free, copy_model, place_version
from tasks.base import Task
from training.cards import data_name
from twinquant.settings import CommonSettings

logger = logging.getLogger("twinquant")

REPOSITORY = "trtis_models"  # in the output folder, as the original's


def check_places(settings: CommonSettings, config: BertConfig, vocab_file: Path) -> None:
    """Before the first phase: UserError where a model of that config and vocabulary could not be written."""
    choice = settings.export or {}
    if choice["triton"] is not None:
        check_free(Path(settings.output_dir) / REPOSITORY, TritonSettings(**choice["triton"]))
    if choice["onnx"] is not None:
        check_place(choice["onnx"], config, vocab_file)


def export_result(
    checkpoint: str,
    settings: CommonSettings,
    backend_name: str,
    head: str,
    task: Task | None,
    config_file: str | None,
    vocab_file: Path,
    command: str,
) -> None:
    """Writes what --export_onnx and --export_trtis ask for, checked against the same checkpoint.

    Args:
        checkpoint: the one that the run ended with, from which the model is read.
        head: the task's.
        task: the data to check on; None: random tokens.
        config_file: the model's configuration, where that beside the checkpoint is not meant.
        vocab_file: put beside the model where none lies beside the checkpoint.
        command: of the run, for the model's card.

    Raises UserError where a model cannot be made, cannot be written or fails its check; that one is not written.
    """
    choice = settings.export or {}
    form = {name: value for name, value in choice.items() if name not in ("onnx", "triton")}
    source = load_source(checkpoint, "glue" if head == CLASSIFICATION else "squad", config_file)
    if source.checkpoint.vocab_file is None:
        source.checkpoint.vocab_file = vocab_file
    source.checkpoint.metadata.setdefault("do_lower_case", str(settings.do_lower_case).lower())
    arguments = onnx_arguments(
        **form,
        quant_exclude=settings.quant_exclude if form["precision"] == "int8" else (),
        backend=backend_name,
        predict_batch_size=settings.predict_batch_size,
        max_seq_length=settings.max_seq_length,
        check_data=None if task is None else data_name(settings),
    )
    try:
        written = _export(source, arguments, settings, choice, task, command)
    except CheckFailed as error:
        raise CheckFailed(
            f"{error}. The rest of the run is in its place; `python -m export onnx --checkpoint={checkpoint} "
            "--output=...` takes bounds of its own"
        ) from None
    for line in describe_files(written):
        logger.info("%s", line)


def _export(
    source: Source, arguments: Arguments, settings: CommonSettings, choice: dict, task: Task | None, command: str
) -> list[Path]:
    written = []
    if choice["onnx"] is not None:
        written += export_as_told(source, arguments, choice["onnx"], task, command=command)
    if choice["triton"] is not None:
        triton = TritonSettings(**choice["triton"])
        repository = Path(settings.output_dir) / REPOSITORY
        if written:
            fill = partial(copy_model, model_path(choice["onnx"]))
        else:
            final = triton.folder(repository) / MODEL_NAME
            fill = partial(_export_into, source, arguments, task, final, command)
        written += place_version(repository, triton, fill)
    return written


def _export_into(
    source: Source, arguments: Arguments, task: Task | None, final: Path, command: str, folder: Path
) -> None:
    export_as_told(source, arguments, folder, task, final, command)
