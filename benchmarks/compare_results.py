"""`python -m export compare` of a SQuAD model on a whole data set: the table of docs/export_compare.md, its picture.

python -m benchmarks.compare_results --model FOLDER --train_file FILE --predict_file FILE --output_dir FOLDER
    [--max_seq_length 384] [--threads 1 2] [--rounds 15]

calibrates the model, a fine-tuned Hugging Face folder, as the stage ft1-p99.999 of benchmarks.squad_results does, and
compares what that leaves in every runtime that is installed. compare.json in the output folder holds the report without
the single times, with the command. A call that was interrupted goes on where it was.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.commands import Command, CommandFailed
from benchmarks.result_files import COMPARE, provenance, read_results, write_results
from benchmarks.result_stages import PTQ
from export.compare.command import run_compare
from export.compare.plots import accuracy_against_latency
from export.compare.table import note_lines, table_lines, unmeasured_lines, words
from twinquant.main import run_main

STAGE = "ft1-p99.999"
SHAPE = "1x128"  # of the picture: the one text at a time of a service


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("model", "train_file", "predict_file", "output_dir"):
        parser.add_argument(f"--{name}", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--max_seq_length", type=int, default=384)
    parser.add_argument("--threads", type=int, nargs="+", help="to time with (default: 1 and one per core)")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args(argv)
    folder = Path(arguments.output_dir)
    calibration = calibrate(arguments, folder / "calibrated")
    if not calibration.done:
        calibration.run()
    flags = [
        f"--checkpoint={calibration.folder / 'model.ckpt-calibrated'}",
        f"--data={arguments.predict_file}",
        f"--max_seq_length={arguments.max_seq_length}",
        "--predict_batch_size=16",
        f"--rounds={arguments.rounds}",
        f"--output={folder / 'report'}",
    ]
    if arguments.threads:
        flags += ["--threads", *map(str, arguments.threads)]
    print(f"$ python -m export compare {shlex.join(flags)}", flush=True)
    if run_compare(flags) != 0:
        raise CommandFailed(f"python -m export compare failed; what it measured is in {folder / 'report'}")
    report = shortened(json.loads((folder / "report" / "report.json").read_text(encoding="utf-8")))
    rows = report.pop("rows")
    write_results(folder / "compare.json", COMPARE, vars(arguments), rows, report)


def calibrate(arguments: argparse.Namespace, folder: Path) -> Command:
    """The command that finds the ranges, on PyTorch; those of TensorFlow are the same."""
    flags = f"{PTQ[STAGE]} --init_checkpoint={shlex.quote(arguments.model)}"
    flags += f" --train_file={shlex.quote(arguments.train_file)} --max_seq_length={arguments.max_seq_length}"
    return Command(STAGE, "pytorch", flags, folder)


def shortened(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without the time of every round, and without the folders above its files."""
    rows = []
    for row in report["rows"]:
        latency = {
            threads: {
                shape: {name: value for name, value in found.items() if name != "seconds"}
                for shape, found in by_shape.items()
            }
            for threads, by_shape in row["latency"].items()
        }
        rows.append({**row, "latency": latency})
    checkpoints = {name: {**facts, "path": Path(facts["path"]).name} for name, facts in report["checkpoints"].items()}
    settings = {**report["settings"], "data": Path(report["settings"]["data"]).name}
    return {**report, "rows": rows, "checkpoints": checkpoints, "settings": settings}


def compare_tables(paths: Iterable[Path]) -> str:
    """The tables of docs/export_compare.md, with what there is to say of their rows."""
    parts = []
    for report in map(read_results, paths):
        if report["kind"] == COMPARE:
            notes = [*words(report), *unmeasured_lines(report), *note_lines(report)]
            text = "\n".join(f"- {note}" for note in notes)
            data = f"{report['examples']:,} examples in {report['model_rows']:,} rows"
            parts.append("\n".join([*table_lines(report), "", text, "", f"{data}. {provenance([report])}"]))
    return "\n\n".join(parts)


def picture(report: dict[str, Any]) -> str:
    """The report's figure of accuracy against latency, as SVG."""
    return accuracy_against_latency(report, SHAPE)


if __name__ == "__main__":
    sys.exit(run_main(main, "compare_results"))
