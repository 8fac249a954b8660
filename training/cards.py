"""What a run's checkpoints say of themselves: the model card beside each."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

from checkpoints.config import BertConfig
from checkpoints.q8bert_file import FILE_NAME as Q8BERT_FILE
from quantization.modes import MODE_NAMES, Q8BERT
from tasks.base import Task
from twinquant.model_card import Card
from twinquant.settings import CommonSettings

TWIN_FILE = "pytorch_model.bin"  # what FasterTransformer's PyTorch scripts save
_TASKS = {"question_answering": "question answering", "classification": "text classification"}


def checkpoint_card(
    name: str,
    settings: CommonSettings,
    config: BertConfig,
    task: Task,
    mode: str,
    backend: str,
    start: str,
    command: str,
    scores: Mapping[str, float],
) -> Card:
    """The card of one checkpoint of a run.

    Args:
        name: the checkpoint's, such as "model.ckpt-5474".
        mode: "fp32", "dynamic" or a mode of quantization/modes.py.
        start: the checkpoint that the run began with.
        scores: of this checkpoint; empty where they are not known.
    """
    kind = _TASKS[task.head]
    data, scores = _scores_of_one_file(settings, scores)
    calibrated_only = name.endswith("-calibrated")
    if mode == "fp32":
        state = "in floating point"
    elif calibrated_only:
        state = f"with the ranges that int8 quantization in mode {mode} needs"
    elif mode == "dynamic":
        state = "with int8 weights, by PyTorch's dynamic quantization"
    else:
        state = f"trained for int8 quantization in mode {mode}"
    layers = f"{config.num_hidden_layers} layer{'s' * (config.num_hidden_layers > 1)}, hidden size {config.hidden_size}"
    return Card(
        name=name,
        head=task.head,
        summary=f"BERT ({layers}) for {kind}, {state}.",
        facts=_facts(settings, task, mode, backend, start, calibrated_only),
        library="transformers" if backend == "pytorch" and mode != "dynamic" else None,
        tags=[f"twinquant-{mode}"] if mode == "fp32" else ["quantization", "int8", f"twinquant-{mode}"],
        data=data,
        part=task.part if scores else "",
        scores={score: value for score, value in scores.items() if isinstance(value, float)},
        score_note=_score_note(settings, mode) if scores else "",
        command=command,
        use=_use(name, task, mode, backend, settings),
        packages=("torch" if backend == "pytorch" else "tensorflow", "numpy"),
    )


def folder_card(card: Card, checkpoint: str, settings: CommonSettings) -> Card:
    """The card of the file that a run leaves in the output folder itself: q8bert's int8 file, or the twin's.

    Args:
        card: of the checkpoint that the file was made of.
        checkpoint: its name.
    """
    folder = Path(settings.output_dir)
    if card.facts["Quantization"] == Q8BERT:
        file, holds = Q8BERT_FILE, "holds int8 weights, int32 biases and the scales of activations, for this project"
        start, flags, does = folder, f"--quant_scheme={Q8BERT} --load_quantized_model", "evaluates from it alone"
    else:
        file, holds = TWIN_FILE, "is FasterTransformer's file: float32 weights, ranges, if any, as `_amax` buffers"
        start, flags, does = folder / TWIN_FILE, _quantization_flags(card.facts["Quantization"], settings), "loads it"
    command = _command(str(start), card.head, flags, settings)
    return dataclasses.replace(
        card,
        name=file,
        summary=f"{card.summary} `{file}` {holds}.",
        library=None,
        use=[
            f"`{command}` {does}, on either backend; `--help` lists the flags for the data.",
            "",
            f"`{_path(checkpoint, settings)}` is the same model as a checkpoint, in float32, to train on or to export.",
        ],
    )


def data_name(settings: CommonSettings) -> str | None:
    """What the scores are of: a GLUE task, or the name of a file."""
    task_name = getattr(settings, "task_name", None)
    if task_name is not None:
        return f"glue/{task_name}"
    file = settings.predict_file or getattr(settings, "validation_file", None)
    return Path(file).name if file is not None else None


def _scores_of_one_file(
    settings: CommonSettings, scores: Mapping[str, float]
) -> tuple[str | None, Mapping[str, float]]:
    """What a card's scores are of, and those of them that are of it.

    Of one's own validation and test file it tells the first; the other's scores are in eval_results.json.
    """
    name = data_name(settings)
    validated = {score: value for score, value in scores.items() if not score.endswith("_test")}
    if scores and not validated:
        return Path(settings.test_file).name, scores  # type: ignore[attr-defined]  # of run_glue.py
    return name, validated


def _score_note(settings: CommonSettings, mode: str) -> str:
    if mode in ("fp32", "dynamic"):
        return ""
    if not settings.if_quant:
        return "The scores are those of the float model: --if_quant was off."
    return "int8 is simulated in these scores (fake quantization)."


def _facts(
    settings: CommonSettings, task: Task, mode: str, backend: str, start: str, calibrated_only: bool
) -> dict[str, str]:
    facts = {"Task": _TASKS[task.head]}
    if task.label_names:
        facts["Classes"] = ", ".join(task.label_names)
    facts["Began with"] = start
    training_data = settings.train_file or getattr(settings, "data_dir", None)
    if settings.do_train and not calibrated_only:
        facts["Training data"] = str(training_data)
        length = f"{settings.max_steps} steps" if settings.max_steps > 0 else f"{settings.num_train_epochs:g} epochs"
        facts["Training"] = (
            f"{length}, batch {settings.train_batch_size * settings.num_accumulation_steps} per process, learning rate "
            f"{settings.learning_rate:g}, seed {settings.seed}{', batches of like length' * settings.group_by_length}"
        )
        if settings.distillation:
            facts["Teacher"] = str(settings.teacher)
    facts["Quantization"] = "none (float32)" if mode == "fp32" else mode
    if settings.do_calib:
        method = settings.calib_method
        if method == "percentile":
            method += f" {settings.percentile:g}"
        facts["Calibration"] = (
            f"{method}, {settings.calib_batch} batches of {settings.train_batch_size} of {training_data}"
        )
    if settings.quant_exclude and mode != "fp32":
        facts["Left in float"] = " ".join(settings.quant_exclude)
    facts["Windows" if task.head == "question_answering" else "Texts"] = f"at most {settings.max_seq_length} tokens"
    facts["Lower case"] = "yes" if settings.do_lower_case else "no"
    facts["Backend"] = backend
    return facts


def _use(name: str, task: Task, mode: str, backend: str, settings: CommonSettings) -> list[str]:
    path = _path(name, settings)
    if mode == "dynamic":
        return [f"`backends.pytorch.dynamic.DynamicModel.load({path!r})` reads the two files."]
    command = _command(path, task.head, _quantization_flags(mode, settings), settings)
    lines = [f"`{command}` loads it, on either backend; `--help` lists the flags for the data."]
    if backend == "pytorch":
        lines += ["", f"`transformers` loads the folder as it is, in float32: `{_CLASSES[task.head]}.from_pretrained`."]
    return lines


def _path(name: str, settings: CommonSettings) -> str:
    return str(Path(settings.output_dir) / name)


def _command(start: str, head: str, flags: str, settings: CommonSettings) -> str:
    script = "run_squad.py" if head == "question_answering" else "run_glue.py"
    # What shapes the windows of questions, where it is not the default: the scores were made with it.
    windows = [
        f"--{name}={getattr(settings, name)}"
        for name in ("max_query_length", "doc_stride", "version_2_with_negative")
        if head == "question_answering" and name in settings.explicit
    ]
    length = f"--max_seq_length={settings.max_seq_length}"
    words = [f"--init_checkpoint={shlex.quote(start)}", length, *windows, flags, "..."]
    return " ".join(["python", script, *filter(None, words)])


def _quantization_flags(mode: str, settings: CommonSettings) -> str:
    if mode == Q8BERT:
        return f"--quant_scheme={Q8BERT}"
    return f"--if_quant --quant_mode={mode}" if mode in MODE_NAMES and settings.quant_mode is not None else ""


_CLASSES = {
    "question_answering": "AutoModelForQuestionAnswering",
    "classification": "AutoModelForSequenceClassification",
}
