"""The tables of measured results: made from the JSON files of benchmarks/results, or measured anew first.

python -m benchmarks.results_table                    write the tables from benchmarks/results/*.json
python -m benchmarks.results_table --data FOLDER      measure first (hours), which writes these files

FOLDER holds squad/train-v1.1*.json, squad/dev-v1.1.json, squad/xquad.en.json and models/minilm-squad (a BERT fine-tuned
for SQuAD, as a Hugging Face folder); and glue/MRPC, glue/CoLA, glue/SST-2 with --pretrained, the model to fine-tune for
these (default: make demo's). Parts that are missing are named and left out. docs/results.md says where they come from.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import compare_results, glue_results, squad_results
from benchmarks.commands import ROOT
from benchmarks.demo import find_model
from benchmarks.result_files import COMPARE, GLUE, SQUAD, TITLES, provenance, read_results
from twinquant.errors import UserError
from twinquant.files import make_folder, write_bytes_atomically, write_json_atomically
from twinquant.main import run_main

FOLDER = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
CHOICE_BEGIN, CHOICE_END = "<!-- choice: begin -->", "<!-- choice: end -->"
# Names, or beginnings of names, of files whose table is in docs/results.md and not in README, which is to stay short.
NOT_IN_README = ("squad_xquad", "pretrained_")
# By the name of the file of results: what is predicted, its title, and the stages that are measured on it.
SQUAD_SETS: dict[str, tuple[str, str, list[str]]] = {
    "squad_dev": (
        "dev-v1.1.json",
        "SQuAD dev, 10,570 questions",
        ["fp32", "ft1-p99.99", "ft1-p99.999", "ft1-mse", "ft2-p99.99", "ft2-mse"],
    ),
    "squad_xquad": (
        "xquad.en.json",
        "XQuAD's 1,190 questions",
        [
            "fp32",
            "ft1-p99.99",
            "ft1-mse",
            "ft2-p99.99",
            "ft2-mse",
            "ft3-p99.99",
            "fp32-trained",
            "qat-ft2",
            "qat-kd-ft2",
        ],
    ),
}
COMPARED = "squad_dev"  # whose model is put through every runtime
# What `make results` measures of a GLUE task: stages and flags by the set of results, which begins the file's name.
GLUE_SETS = {
    "glue": (
        ["fp32", "ft1-p99.999", "fp32-trained", "tuned-qat-ft1", "tuned-q8bert"],
        ["--group_by_length", "--further_learning_rate=2e-5"],
    ),
    "pretrained": (["fp32", "ft1-p99.999", "ft2-p99.99", "qat-ft1", "qat-ft2", "q8bert", "dynamic"], []),
}
# Flags of `benchmarks.glue_results` by task, whatever the set.
GLUE_FLAGS = {
    "mrpc": "--num_train_epochs=2 --further_epochs=0.5",
    "sst-2": "--num_train_epochs=2 --further_epochs=1 --train_batch_size=32 --max_seq_length=64 "
    "--max_train_samples=4000",
    "cola": "--num_train_epochs=3 --further_epochs=1 --train_batch_size=32 --max_seq_length=64",
}
# The score that a task's cell shows; of other tasks it is the accuracy.
METRICS = {"mrpc": "f1", "cola": "mcc", "sts-b": "corr", "qqp": "f1"}
STAGE_NAMES = {
    "fp32-trained": "fp32, trained further",
    "qat-ft1": "QAT ft1",
    "qat-ft2": "QAT ft2",
    "tuned-qat-ft1": "QAT ft1 of the fine-tuned model",
    "tuned-qat-ft2": "QAT ft2 of the fine-tuned model",
    "tuned-q8bert": "q8bert of the fine-tuned model",
    "qat-kd-ft1": "QAT ft1 with distillation",
    "qat-kd-ft2": "QAT ft2 with distillation",
    "q8bert": "q8bert",
    "q8bert-ema0.99": "q8bert, ema_decay 0.99",
    "dynamic": "dynamic int8",
}
METHOD_NAMES = {"p99.99": "percentile 99.99", "p99.999": "percentile 99.999", "mse": "mse"}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="measure with the data in this folder first")
    parser.add_argument("--pretrained", type=Path, help="with --data: the model to fine-tune for GLUE")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "build" / "results", help="with --data: for its runs")
    parser.add_argument("--num_runs", type=int, default=3, help="with --data: seeds of GLUE (default: 3)")
    parser.add_argument("--measure", action="store_true", help="refuse to go on without --data")
    arguments = parser.parse_args(argv)
    if arguments.data is not None:
        measure(arguments.data, arguments.pretrained, arguments.output_dir, arguments.num_runs)
    elif arguments.measure:
        raise UserError(
            "make results measures on data that is not shipped: make results DATA=FOLDER, where FOLDER holds squad/, "
            "models/ and glue/ as docs/results.md describes"
        )
    paths = sorted(FOLDER.glob("*.json"))
    write_between(ROOT / "README.md", BEGIN, readme_tables(paths), END)
    write_between(ROOT / "docs" / "results.md", BEGIN, other_tables(paths), END)
    write_between(ROOT / "docs" / "choosing_a_mode.md", CHOICE_BEGIN, choice_table(paths), CHOICE_END)
    write_between(ROOT / "docs" / "export_compare.md", BEGIN, compare_results.compare_tables(paths), END)
    for path in paths:
        results = read_results(path)
        if results["kind"] == COMPARE:
            image = ROOT / "docs" / "images" / f"{path.stem}.svg"
            make_folder(image.parent)
            write_bytes_atomically(image, compare_results.picture(results).encode("utf-8"))


def measure(data: Path, pretrained: Path | None, output: Path, num_runs: int) -> None:
    """Measures what the folder has the data for; the results go to benchmarks/results."""
    if not data.is_dir():
        raise UserError(f"DATA names {data}, which is no folder")
    measured = measure_squad(data, output / "squad") | measure_glue(
        data / "glue", pretrained, output / "glue", num_runs
    )
    if not measured:
        raise UserError(f"{data} holds none of the data: expected squad/, models/ and glue/ as in docs/results.md")
    for name, results in measured.items():
        write_json_atomically(FOLDER / f"{name}.json", results)


def measure_squad(data: Path, output: Path) -> dict[str, dict]:
    """Results by the name of their file; none where a part of the data is missing, which is printed."""
    train, model = sorted((data / "squad").glob("train-v1.1*.json")), data / "models" / "minilm-squad"
    if not train or not model.is_dir():
        print(f"left out: SQuAD, since {data} lacks squad/train-v1.1*.json or models/minilm-squad", flush=True)
        return {}
    found = {}
    for name, (file_name, title, stages) in SQUAD_SETS.items():
        predict = data / "squad" / file_name
        if not predict.is_file():
            print(f"left out: {title}, since {predict} is missing", flush=True)
            continue
        files = [f"--model={model}", f"--train_file={train[0]}", f"--predict_file={predict}"]
        settings = [f"--output_dir={output / name}", "--max_seq_length=256", "--steps=60", "--stages", *stages]
        squad_results.main([*files, *settings])
        found[name] = {"title": title} | read_results(output / name / "squad.json")
        if name == COMPARED:
            compare_results.main([*files, f"--output_dir={output / 'compare'}", "--max_seq_length=256"])
            found[f"compare_{name}"] = read_results(output / "compare" / "compare.json")
    return found


def measure_glue(data: Path, pretrained: Path | None, output: Path, num_runs: int) -> dict[str, dict]:
    """The like for the GLUE tasks that the folder has."""
    tasks = [task for task, name in glue_results.TASKS.items() if (data / name).is_dir()]
    if not tasks:
        print(f"left out: GLUE, since {data} holds no task", flush=True)
        return {}
    found = {}
    for name, (stages, more) in GLUE_SETS.items():
        folders = [f"--model={pretrained or find_model()}", f"--data_dir={data}", f"--output_dir={output / name}"]
        for task in tasks:
            flags = [*GLUE_FLAGS.get(task, "").split(), *more, "--stages", *stages, "--tasks", task]
            glue_results.main([*folders, f"--num_runs={num_runs}", *flags])
            found[f"{name}_{task}"] = read_results(output / name / f"glue_{task}.json")
    return found


def write_between(page: Path, begin: str, text: str, end: str) -> None:
    """Puts a text between two marks of a page. Raises UserError where the page lacks them."""
    before, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise UserError(f"{page} lacks the marks {begin} and {end}, between which the table belongs")
    write_bytes_atomically(page, f"{before}{begin}\n{text}\n{end}{after}".encode())


def readme_tables(paths: Iterable[Path]) -> str:
    """README's tables."""
    return tables(path for path in paths if not path.stem.startswith(NOT_IN_README))


def other_tables(paths: Iterable[Path]) -> str:
    """Those of docs/results.md."""
    return tables(path for path in paths if path.stem.startswith(NOT_IN_README))


def task_of(path: Path) -> str:
    """The GLUE task of a file of results: "mrpc" of glue_mrpc.json and of pretrained_mrpc.json."""
    return path.stem.partition("_")[2]


def tables(paths: Iterable[Path]) -> str:
    """All tables as Markdown: one for each file of SQuAD results, then one of all GLUE tasks."""
    files = {path: read_results(path) for path in paths}
    parts = [squad_table(results) for results in files.values() if results["kind"] == SQUAD]
    glue = {task_of(path): results for path, results in files.items() if results["kind"] == GLUE}
    return "\n\n".join([*parts, glue_table(glue)] if glue else parts)


def squad_table(results: dict) -> str:
    """EM and F1 by stage, a column for each backend, and the answers in which the two differ."""
    rows = results["rows"]
    backends = [name for name in TITLES if any(row["backend"] == name for row in rows)]
    lines = [
        f"| {results.get('title', 'SQuAD')} | {' | '.join(f'{TITLES[name]} EM / F1' for name in backends)} "
        "| answers that differ |",
        "|---" * (len(backends) + 2) + "|",
    ]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        cells = {row["backend"]: row for row in rows if row["stage"] == stage}
        scores = [f"{cells[n]['exact_match']:.2f} / {cells[n]['f1']:.2f}" if n in cells else "" for n in backends]
        compared = next((row for row in cells.values() if "different_answers" in row), None)
        differ = f"{compared['different_answers']} of {compared['questions']:,}" if compared else ""
        if stage.startswith(("qat", "fp32-trained")) and differ:
            differ = "(trained apart)"
        lines.append(f"| {stage_name(stage)} | {' | '.join(scores)} | {differ} |")
    return "\n".join([*lines, "", provenance([results])])


def glue_table(tasks: dict[str, dict]) -> str:
    """The main score of every task by stage and backend, in percent: mean and standard deviation over the seeds."""
    cells = {
        (row["stage"], row["backend"], task): glue_results.score_cell(
            row["summary"][METRICS.get(task, "acc")], len(row["seeds"])
        )
        for task, results in tasks.items()
        for row in results["rows"]
    }
    runs = {len(row["seeds"]) for results in tasks.values() for row in results["rows"]}
    titles = [f"{glue_results.TASKS.get(task, 'THUCNews')} {METRICS.get(task, 'acc')}" for task in tasks]
    seeds = str(max(runs)) if len(runs) == 1 else f"{min(runs)} to {max(runs)}"
    counted = "1 seed" if seeds == "1" else f"{seeds} seeds"
    lines = [f"| run_glue.py, {counted} | backend | {' | '.join(titles)} |", "|---" * (len(tasks) + 2) + "|"]
    measured = {(stage, backend) for stage, backend, _ in cells}
    stages = [stage for stage in glue_results.STAGES if any(stage == name for name, _, _ in cells)]
    for stage, backend in [(stage, name) for stage in stages for name in TITLES if (stage, name) in measured]:
        scores = [cells.get((stage, backend, task), "") for task in tasks]
        lines.append(f"| {stage_name(stage)} | {TITLES[backend]} | {' | '.join(scores)} |")
    return "\n".join([*lines, "", provenance(list(tasks.values()))])


def choice_table(paths: Iterable[Path]) -> str:
    """Points that each stage loses against its float model, on the mean of the backends: F1, or the task's main score.

    What was trained further is compared with the float model that was trained as long, where it was measured.
    """
    files = {path: read_results(path) for path in paths}
    columns: dict[str, dict[str, float]] = {}
    for path, file in files.items():
        if file["kind"] != COMPARE:
            # Of two sets of a task, the first says what both have measured.
            columns[title_of(path, file)] = losses(path, file) | columns.get(title_of(path, file), {})
    lines = [f"| quantization | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    measured = {stage for column in columns.values() for stage in column}
    for stage in (stage for stage in glue_results.STAGES if stage in measured):
        cells = [f"{column[stage]:.2f}" if stage in column else "" for column in columns.values()]
        lines.append(f"| {stage_name(stage)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def title_of(path: Path, results: dict) -> str:
    """The head of a column: "XQuAD's 1,190 questions, F1" or "MRPC f1"."""
    if results["kind"] == SQUAD:
        return f"{results.get('title', 'SQuAD')}, F1"
    task = task_of(path)
    return f"{glue_results.TASKS.get(task, 'THUCNews')} {METRICS.get(task, 'acc')}"


def losses(path: Path, results: dict) -> dict[str, float]:
    """Points lost by stage, in percent; stages of float models are left out."""
    metric = METRICS.get(task_of(path), "acc")
    scores: dict[str, dict[str, float]] = {}
    for row in results["rows"]:
        score = row["f1"] if results["kind"] == SQUAD else 100 * row["summary"][metric]["mean"]
        scores.setdefault(row["stage"], {})[row["backend"]] = score
    found = {}
    for stage, quantized in scores.items():
        trained = stage.startswith(("tuned", "qat-kd")) or (stage.startswith("qat") and results["kind"] == SQUAD)
        parent = scores.get("fp32-trained" if trained and "fp32-trained" in scores else "fp32", {})
        common = quantized.keys() & parent.keys()
        if common and not stage.startswith("fp32"):
            found[stage] = sum(parent[name] - quantized[name] for name in common) / len(common)
    return found


def stage_name(stage: str) -> str:
    """A stage in words: "ft2-p99.99" is "PTQ ft2, percentile 99.99"."""
    mode, _, method = stage.partition("-")
    return f"PTQ {mode}, {METHOD_NAMES[method]}" if method in METHOD_NAMES else STAGE_NAMES.get(stage, stage)


if __name__ == "__main__":
    sys.exit(run_main(main, "results_table"))
