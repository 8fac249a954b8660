"""The steps of the demo in their order, and what each one wrote, as a row of the table."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from backends import BACKEND_NAMES
from benchmarks.commands import LOG, Command, same_answers
from benchmarks.demo_report import Row
from checkpoints.checkpoint_state import latest_checkpoint
from twinquant.errors import UserError

QUESTIONS, SENTENCES = "questions", "sentences"
FP32, FT2, FT1, DYNAMIC, ONNX = "fp32", "int8 ft2", "int8 ft1", "int8 dynamic", "int8 ft1 as ONNX"
ONNXRUNTIME = "onnxruntime"

_WINDOW = "--max_seq_length=64 --max_query_length=24"
_QUESTION_FLAGS = (
    f"--train_file=samples/squad_short_train.json --predict_file=samples/squad_short_dev.json {_WINDOW} "
    "--doc_stride=32 --do_predict=True --predict_batch_size=32"
)
_LEARN_QUESTIONS = "--do_train=True --train_batch_size=8 --learning_rate=2e-4 --num_train_epochs=9 --log_freq=40"
_SENTENCE_FLAGS = (
    "--train_file=samples/classification_train.tsv --validation_file=samples/classification_dev.tsv "
    "--max_seq_length=64 --do_eval"
)
_LEARN_SENTENCES = "--do_train --train_batch_size=16 --learning_rate=5e-5 --num_train_epochs=2 --log_freq=20"
_CALIBRATE = "--do_calib=True --if_quant=True --quant_mode={mode} --train_batch_size=16 --calib_batch=8"
# Its four timed batches are 32 sentences then.
_DYNAMIC = "--quant_scheme=dynamic --predict_batch_size=8"
_EXPORT = (
    f"--precision=int8 {_WINDOW} --check_data=samples/squad_short_dev.json --check_examples=1000 "
    "--predict_batch_size=32 --min_equal_answers=97 --max_score_difference=3"
)


@dataclass
class Step:
    """One command of the demo.

    task: QUESTIONS or SENTENCES. precision: what the model computes in; steps of one task and precision start from the
    same checkpoint, and should give the same answers. start: the step whose checkpoint this one takes; None is the
    pretrained model.
    """

    task: str
    precision: str
    title: str
    backend: str
    flags: str
    start: "Step | None" = None
    command: Command | None = field(default=None, init=False)

    def run(self, folder: Path, model: Path) -> None:
        """Runs the command, with `folder` for its results and `model` as the pretrained model."""
        start = model if self.start is None else latest_checkpoint(self.start.finished.folder)
        if start is None:
            raise UserError(f"{self.start.finished.folder} holds no checkpoint" if self.start else f"no model {model}")
        exported = self.backend == ONNXRUNTIME
        flag = "--checkpoint" if exported else "--init_checkpoint"
        self.command = Command(
            f"{self.task}: {self.title}",
            "pytorch" if exported else self.backend,
            f"{self.flags} {flag}={shlex.quote(str(start))}",
            folder,
            self.program,
            "--output" if exported else "--output_dir",
        )
        self.command.run()

    @property
    def program(self) -> str:
        if self.backend == ONNXRUNTIME:
            return "-m export onnx"
        return "run_squad.py" if self.task == QUESTIONS else "run_glue.py"

    @property
    def finished(self) -> Command:
        if self.command is None:
            raise RuntimeError(f"{self.title} has not run yet")
        return self.command

    def answers(self) -> dict:
        """The answer to every question, or the class of every sentence by its number."""
        if self.task == QUESTIONS:
            return self.finished.result("predictions.json")
        return dict(enumerate(self.finished.result("predictions_dev.json")["predictions"]))


def plan() -> list[Step]:
    """Every step in order: each backend trains one task, and the other one takes that checkpoint over."""
    other = {"pytorch": "tensorflow", "tensorflow": "pytorch"}
    steps = []
    for task, trainer, flags, learn in (
        (SENTENCES, "tensorflow", _SENTENCE_FLAGS, _LEARN_SENTENCES),
        (QUESTIONS, "pytorch", _QUESTION_FLAGS, _LEARN_QUESTIONS),
    ):
        trained = Step(task, FP32, "fine-tune", trainer, f"{flags} {learn}")
        steps += [trained, Step(task, FP32, "predict", other[trainer], flags, trained)]
        calibrate = f"{flags} {_CALIBRATE}"
        steps += [Step(task, FT2, "calibrate", name, calibrate.format(mode="ft2"), trained) for name in BACKEND_NAMES]
        ft1 = Step(task, FT1, "calibrate", "pytorch", calibrate.format(mode="ft1"), trained)
        steps.append(ft1)
        if task == SENTENCES:
            steps.append(Step(task, DYNAMIC, "quantize", "pytorch", f"{flags} {_DYNAMIC}", trained))
        else:
            steps.append(Step(task, ONNX, "export", ONNXRUNTIME, _EXPORT, ft1))
    return steps


def rows(steps: list[Step]) -> list[Row]:
    """A row for every finished step, with its agreement with its twin: the other backend from the same checkpoint."""
    found = []
    for step in steps:
        row = _exported_row(step) if step.backend == ONNXRUNTIME else _row(step)
        twins = [
            other
            for other in steps
            if other is not step and (other.task, other.precision) == (step.task, step.precision)
        ]
        if len(twins) == 1:
            row.agreement = same_answers(step.answers(), twins[0].answers())
        found.append(row)
    return found


def _row(step: Step) -> Row:
    command = step.finished
    scores = command.result("eval_results.json")
    if step.task == QUESTIONS:
        shown = {"EM": scores["exact_match"], "F1": scores["f1"]}
    else:
        shown = {"accuracy": 100.0 * scores["acc"]}
    row = Row(step.task, step.title, step.precision, step.backend, shown, command.seconds, command.processor_seconds)
    if step.precision == DYNAMIC:
        report = command.result("dynamic.json")
        row.comparison = dynamic_comparison(report)
    return row


def dynamic_comparison(report: dict) -> dict[str, float]:
    """Megabytes on the disk, and milliseconds for the timed batches with the best number of threads, of fp32 and int8.

    Args:
        report: what `run_glue.py --quant_scheme=dynamic` writes to dynamic.json.
    """
    seconds = {name: min(by_threads.values()) for name, by_threads in report["seconds"].items()}
    return {
        "fp32_mb": report["sizes"]["float_bytes"] / 1e6,
        "int8_mb": report["sizes"]["int8_bytes"] / 1e6,
        "fp32_ms": 1000.0 * seconds["fp32"],
        "int8_ms": 1000.0 * seconds["int8 dynamic"],
    }


def _exported_row(step: Step) -> Row:
    log = (step.finished.folder / LOG).read_text()
    scores, agreement, megabytes = exported_scores(log, str(step.finished.folder / LOG))
    command = step.finished
    row = Row(step.task, step.title, step.precision, step.backend, scores, command.seconds, command.processor_seconds)
    row.agreement, row.comparison = agreement, {"int8_mb": megabytes}
    return row


def exported_scores(log: str, name: str) -> tuple[dict[str, float], float, float]:
    """What `python -m export onnx` said of a model that it checked on SQuAD data.

    Returns:
        EM and F1 of the exported model, the percentage of its answers that are the checkpoint's, and its megabytes.
    """
    patterns = {
        "EM": r"exact_match: ([\d.]+) of the model",
        "F1": r"f1: ([\d.]+) of the model",
        "agreement": r"answers: (\d+) of (\d+) differ",
        "megabytes": r"file: ([\d.]+) MB",
    }
    found = {key: re.search(pattern, log) for key, pattern in patterns.items()}
    missing = [key for key, match in found.items() if match is None]
    if missing:
        raise UserError(f"{name} does not say the {', '.join(missing)} of the exported model")
    numbers = {key: [float(number) for number in match.groups()] for key, match in found.items() if match is not None}
    different, total = numbers["agreement"]
    scores = {"EM": numbers["EM"][0], "F1": numbers["F1"][0]}
    return scores, 100.0 * (1.0 - different / total), numbers["megabytes"][0]
