"""The table of measured results of run_glue.py: scores of fp32, PTQ, QAT, q8bert and dynamic int8, over several seeds.

python -m benchmarks.glue_results --model FOLDER --data_dir GLUE_FOLDER --output_dir FOLDER
    [--tasks mrpc cola sst-2 thucnews] [--backends pytorch tensorflow] [--stages fp32 ft2-p99.99 ...] [--num_runs 3]
    [--num_train_epochs 3] [--train_batch_size 16] [--max_seq_length 128] [--max_train_samples N] [--threads 2]
    [--group_by_length] [--further_epochs 1] [--further_learning_rate 2e-5]

The model is a pre-trained Hugging Face folder; every number is one run_glue.py command. For each task, backend, seed:

  fp32           fine-tunes the pre-trained model
  ft2-p99.99     calibrates and quantizes that fine-tuned model: also ft1, ft3, ort; p99.999, mse
  qat-ft2        calibrates the pre-trained model and fine-tunes it quantized, for as many epochs: also qat-ft1
  tuned-qat-ft2  calibrates the fine-tuned model and trains it further, quantized: also tuned-qat-ft1, tuned-q8bert
  qat-kd-ft2     the same with the fine-tuned model in fp32 as teacher: also qat-kd-ft1
  fp32-trained   trains the fine-tuned model further in fp32, to compare those with
  q8bert         fine-tunes the pre-trained model by NLP Architect's scheme; q8bert-ema0.99: with ranges that follow
                 the activations of the last hundred steps, and not of ten thousand
  dynamic        PyTorch's dynamic quantization of the fine-tuned model (on PyTorch alone)

Training further takes as long as fine-tuning, at its learning rate, where --further_epochs and --further_learning_rate
do not say otherwise.

glue_<task>.json in the output folder holds mean, standard deviation and the scores of every seed, the machine and the
versions; it is written anew after every command. Commands that an earlier call has finished are not run again, so the
table can be filled in pieces; a finished command with other flags is refused. --tasks thucnews takes train.txt,
dev.txt and class.txt of --news_dir. Models are removed once they are scored, but for the fp32 ones, which others need.
"""

import argparse
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from backends import BACKEND_NAMES
from benchmarks.commands import Command, same_answers, use_threads
from benchmarks.result_files import GLUE, write_results
from benchmarks.result_stages import DISTILLATION, PTQ, QAT
from checkpoints.checkpoint_state import latest_checkpoint
from training.repeats import summarize
from twinquant.errors import UserError
from twinquant.main import run_main

NEWS = "thucnews"
TASKS = {"mrpc": "MRPC", "cola": "CoLA", "sst-2": "SST-2", "rte": "RTE", "sts-b": "STS-B", "qnli": "QNLI", "qqp": "QQP"}
FP32, DYNAMIC = "fp32", "dynamic"
Q8BERT = "--quant_scheme=q8bert"
TRAIN = (
    "--do_train --train_batch_size={batch} --learning_rate={rate} --num_train_epochs={epochs} --seed={seed}{grouped} "
    "--save_checkpoints_steps=0"
)


@dataclass(frozen=True)
class Stage:
    """What one row of the table adds to a run_glue.py command.

    fine_tuned: it starts from the fp32 stage's model; what trains then trains further.
    """

    flags: str
    fine_tuned: bool = False


STAGES = {
    FP32: Stage(TRAIN),
    **{name: Stage(flags, fine_tuned=True) for name, flags in PTQ.items()},
    **{name: Stage(f"{TRAIN} {flags}") for name, flags in QAT.items()},
    "q8bert": Stage(f"{TRAIN} {Q8BERT}"),
    "q8bert-ema0.99": Stage(f"{TRAIN} {Q8BERT} --ema_decay=0.99"),
    "fp32-trained": Stage(TRAIN, fine_tuned=True),
    **{f"tuned-{name}": Stage(f"{TRAIN} {flags}", fine_tuned=True) for name, flags in QAT.items()},
    **{
        name.replace("qat", "qat-kd"): Stage(f"{TRAIN} {flags} {DISTILLATION}", fine_tuned=True)
        for name, flags in QAT.items()
    },
    "tuned-q8bert": Stage(f"{TRAIN} {Q8BERT}", fine_tuned=True),
    DYNAMIC: Stage("--quant_scheme=dynamic", fine_tuned=True),
}
DEFAULT_STAGES = [FP32, "ft2-p99.99", "qat-ft2", "q8bert", DYNAMIC]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.glue_results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder = dict(type=lambda path: str(Path(path).resolve()), metavar="FOLDER")
    parser.add_argument("--model", required=True, **folder)
    parser.add_argument("--data_dir", help="the folder of MRPC, CoLA, SST-2 and so on", **folder)
    parser.add_argument("--news_dir", help=f"of --tasks {NEWS}: the folder of train.txt, dev.txt, class.txt", **folder)
    parser.add_argument("--output_dir", required=True, **folder)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS, NEWS], default=["mrpc", "cola", "sst-2"])
    parser.add_argument("--backends", nargs="+", choices=BACKEND_NAMES, default=list(BACKEND_NAMES))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=DEFAULT_STAGES)
    parser.add_argument("--num_runs", type=int, default=1, help="seeds: 42, 43 and so on (default: 1)")
    parser.add_argument("--num_train_epochs", type=float, default=3.0)
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--further_epochs", type=float, help="of training further (default: --num_train_epochs)")
    parser.add_argument("--further_learning_rate", type=float, help="of training further (default: --learning_rate)")
    parser.add_argument("--max_seq_length", type=int, default=128)
    parser.add_argument("--group_by_length", action="store_true", help="train on batches of texts of like length")
    parser.add_argument("--max_train_samples", "--train_examples", type=int, help="train on the first examples only")
    parser.add_argument("--max_eval_samples", type=int, help="evaluate the first examples only")
    parser.add_argument("--threads", type=int, help="threads of each command (default: as many as there are cores)")
    arguments = parser.parse_args(argv)
    if NEWS in arguments.tasks and arguments.news_dir is None:
        raise UserError(f"--tasks {NEWS} needs --news_dir, the folder of train.txt, dev.txt and class.txt")
    if set(arguments.tasks) - {NEWS} and arguments.data_dir is None:
        raise UserError("GLUE tasks need --data_dir, the folder that holds MRPC, CoLA and so on")
    for name in ("further_epochs", "further_learning_rate"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            raise UserError(f"--{name} is {value:g}; expected a number above 0")
    if arguments.num_runs < 1:
        raise UserError(f"--num_runs is {arguments.num_runs}; expected at least 1")
    return arguments


def main(argv: list[str]) -> None:
    arguments = parse(argv)
    use_threads(arguments.threads)
    for task in arguments.tasks:
        measure(task, arguments)


def measure(task: str, arguments: argparse.Namespace) -> list[dict]:
    """Runs what is missing of one task, seed by seed, and returns its rows, which glue_<task>.json holds."""
    output = Path(arguments.output_dir)
    finished: dict[tuple[str, str], list[Command]] = {}
    rows: list[dict] = []
    for seed in range(42, 42 + arguments.num_runs):
        for backend in arguments.backends:
            for stage in arguments.stages:
                if stage == DYNAMIC and backend != "pytorch":
                    continue
                command = make_command(task, backend, stage, seed, arguments)
                if not command.done:
                    command.run()
                remove_models(command.folder, keep=stage == FP32)
                finished.setdefault((stage, backend), []).append(command)
                rows = [row(*key, commands) for key, commands in finished.items()]
                write_results(output / f"glue_{task}.json", GLUE, vars(arguments), rows)
        print_table(task, rows)
    return rows


def make_command(task: str, backend: str, stage: str, seed: int, arguments: argparse.Namespace) -> Command:
    """The run_glue.py command of one stage. Raises UserError where the fp32 stage that it starts from is missing."""
    folder = Path(arguments.output_dir) / task / f"{stage}_{backend}" / f"seed-{seed}"
    start: Path | None = Path(arguments.model)
    rate, epochs = arguments.learning_rate, arguments.num_train_epochs
    if STAGES[stage].fine_tuned:
        rate, epochs = arguments.further_learning_rate or rate, arguments.further_epochs or epochs
        source = folder.parents[1] / f"{FP32}_{backend}" / folder.name
        start = latest_checkpoint(source) if source.is_dir() else None
        if start is None:
            raise UserError(f"the stage {stage} starts from the stage {FP32}, of which {source} holds no checkpoint")
    flags = STAGES[stage].flags.format(
        batch=arguments.train_batch_size,
        rate=rate,
        epochs=epochs,
        seed=seed,
        grouped=" --group_by_length" if arguments.group_by_length else "",
        teacher=shlex.quote(str(start)),
    )
    words = [data_flags(task, arguments), flags, f"--init_checkpoint={shlex.quote(str(start))}", "--do_eval"]
    words += [f"--max_seq_length={arguments.max_seq_length}", "--predict_batch_size=32"]
    words += [f"--cache_dir={shlex.quote(str(folder.parents[1] / 'features'))}"]
    if arguments.max_train_samples:
        words += [f"--max_train_samples={arguments.max_train_samples}"]
    if arguments.max_eval_samples:
        words += [f"--max_eval_samples={arguments.max_eval_samples}"]
    return Command(f"{task} {stage}, seed {seed}", backend, " ".join(words), folder, "run_glue.py")


def data_flags(task: str, arguments: argparse.Namespace) -> str:
    """Where run_glue.py finds the task."""
    if task != NEWS:
        return f"--task_name={TASKS[task]} --data_dir={shlex.quote(arguments.data_dir)}"
    names = {"train_file": "train.txt", "validation_file": "dev.txt", "class_file": "class.txt"}
    return " ".join(f"--{flag}={shlex.quote(str(Path(arguments.news_dir, name)))}" for flag, name in names.items())


def remove_models(folder: Path, keep: bool) -> None:
    """Frees the disk of what a finished command no longer needs; `keep`: the model itself stays."""
    for path in folder.glob("model.ckpt-*"):
        if not keep or path.name.endswith(".training_state.safetensors"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder / "fp32" / "model", folder / "int8"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*.safetensors"):
        path.unlink()


def row(stage: str, backend: str, commands: list[Command]) -> dict:
    """One row of the table: the scores of every seed, their mean and standard deviation, agreement with fp32.

    "same_as_fp32": percent of the dev set's classes that are those of the fp32 stage of the same seed and backend;
    None where that stage has not run, or for a regression.
    """
    scores = [command.result("eval_results.json") for command in commands]
    agreements = [agreement(command) for command in commands]
    return {
        "stage": stage,
        "backend": backend,
        "seeds": [int(command.folder.name.removeprefix("seed-")) for command in commands],
        "seconds": [round(command.seconds) for command in commands],
        "summary": summarize(scores),
        "scores": scores,
        "same_as_fp32": None if None in agreements else agreements,
    }


def agreement(command: Command) -> float | None:
    """See `row`."""
    name = "predictions_dev.json"
    parent = command.folder.parents[1] / f"{FP32}_{command.backend}" / command.folder.name / name
    if not parent.is_file():
        return None
    fp32, predictions = (
        Command("", "", "", folder).result(name)["predictions"] for folder in (parent.parent, command.folder)
    )
    if any(isinstance(value, float) for value in predictions):
        return None
    return same_answers(dict(enumerate(fp32)), dict(enumerate(predictions)))


def print_table(task: str, rows: list[dict]) -> None:
    """The results so far as a Markdown table."""
    names = list(rows[0]["summary"])
    print(f"\n| {task} | backend | runs | {' | '.join(names)} | as fp32 | seconds a run |")
    print("|" + "---|" * (len(names) + 5))
    for each in rows:
        same = each["same_as_fp32"]
        cells = [each["stage"], each["backend"], len(each["seeds"])]
        cells += [score_cell(each["summary"][name], len(each["seeds"])) for name in names]
        cells += ["" if same is None else f"{sum(same) / len(same):.2f} %"]
        cells += [round(sum(each["seconds"]) / len(each["seconds"]))]
        print(f"| {' | '.join(str(cell) for cell in cells)} |")
    print(flush=True)


def score_cell(values: dict[str, float], runs: int) -> str:
    """Mean and, of several runs, standard deviation, in percent: "83.10 ± 0.52"."""
    if runs == 1:
        return f"{100 * values['mean']:.2f}"
    return f"{100 * values['mean']:.2f} ± {100 * values['standard_deviation']:.2f}"


if __name__ == "__main__":
    sys.exit(run_main(main, "glue_results"))
