"""What an export costs: time, memory and file size of BERT-base, by the command a user runs, in a process of its own.

python -m benchmarks.export_cost [--shape base|mini] [--backend pytorch] [--output FILE]

A checkpoint of random weights with ranges is written as a Hugging Face folder; then `python -m export onnx` makes
models of it, with its check and without. Memory is the peak resident set of that process by the kernel's count, as a
multiple of the fp32 weights.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends import BACKEND_NAMES
from benchmarks.export_models import rough_source
from benchmarks.steps import SHAPES
from checkpoints.hugging_face import write_hugging_face
from twinquant.files import write_json_atomically
from twinquant.main import run_main

SECONDS, MEMORY_RATIO, MEGABYTES = 60.0, 2.5, 111.0
FLAGS = {
    "fp32": ["--precision=fp32"],
    "int8 ort": ["--precision=int8", "--quant_mode=ort"],
    "int8 ort, int8 embeddings": ["--precision=int8", "--quant_mode=ort", "--int8_embeddings"],
    "int8-dynamic": ["--precision=int8-dynamic"],
}
SMALLEST = "int8 ort, int8 embeddings"


@dataclass(frozen=True)
class Cost:
    """Of one export: seconds of the clock, peak memory over the fp32 weights, and the model file's size."""

    model: str
    checked: bool
    seconds: float
    memory_ratio: float
    megabytes: float

    def __str__(self) -> str:
        check = "with the check" if self.checked else "without a check"
        return (
            f"  {self.model:28} {check:16} {self.seconds:6.1f} s   peak memory {self.memory_ratio:5.2f} times the fp32 "
            f"weights   file {self.megabytes:7.2f} MB"
        )


def write_checkpoint(shape: str, folder: Path) -> int:
    """Writes the random checkpoint; returns the bytes of its weights."""
    source = rough_source(SHAPES[shape][0], True)
    write_hugging_face(folder, source.checkpoint)
    return sum(array.nbytes for array in source.tensors.values())


def run_export(model: str, checkpoint: Path, output: Path, weights: int, backend: str | None) -> Cost:
    """Runs the command; backend None: without its check. RuntimeError with the command's words where it fails."""
    words = [sys.executable, "-m", "export", "onnx", f"--checkpoint={checkpoint}", f"--output={output}", *FLAGS[model]]
    words += ["--nocheck"] if backend is None else [f"--backend={backend}", "--threads=1"]
    log = output.parent / "export.log"
    with open(log, "w", encoding="utf-8") as file:
        started = time.perf_counter()
        process = subprocess.Popen(words, cwd=Path(__file__).parents[1], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{log.read_text(encoding='utf-8')}")
    size = (output / "model.onnx").stat().st_size
    return Cost(model, backend is not None, seconds, 1024 * usage.ru_maxrss / weights, size / 1e6)


def judge(costs: list[Cost]) -> dict[str, bool]:
    """The figures of BERT-base: whether every export kept within its bound; memory apart for the writing alone."""
    return {
        f"every export and its check in under {SECONDS:.0f} s": all(cost.seconds < SECONDS for cost in costs),
        f"peak memory at most {MEMORY_RATIO} times the fp32 weights, without the check": all(
            cost.memory_ratio <= MEMORY_RATIO for cost in costs if not cost.checked
        ),
        f"peak memory at most {MEMORY_RATIO} times the fp32 weights, with the check": all(
            cost.memory_ratio <= MEMORY_RATIO for cost in costs if cost.checked
        ),
        f"file with int8 embeddings at most {MEGABYTES:.0f} MB": all(
            cost.megabytes <= MEGABYTES for cost in costs if cost.model == SMALLEST
        ),
    }


def measure(shape: str, backend: str) -> dict[str, Any]:
    """Prints a line per export and the verdicts; returns all for JSON."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint")
        # In another process: the kernel counts the memory of the process that starts a command to that command's peak.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            weights = pool.apply(write_checkpoint, (shape, checkpoint))
        print(f"{shape}: {weights / 1e6:.1f} MB of fp32 weights; checked on {backend}")
        costs = []
        for model in FLAGS:
            for checked_on in (None, backend):
                output = Path(folder, f"{model} {checked_on}")
                costs.append(run_export(model, checkpoint, output, weights, checked_on))
                print(costs[-1], flush=True)
    verdicts = judge(costs) if shape == "base" else {}
    for what, reached in verdicts.items():
        print(f"  {what}: {'reached' if reached else 'NOT REACHED'}")
    return {"shape": shape, "backend": backend, "costs": [asdict(cost) for cost in costs], "figures": verdicts}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--backend", choices=BACKEND_NAMES, default="pytorch", help="of the check's reference")
    parser.add_argument("--output", help="a JSON file for all numbers")
    arguments = parser.parse_args(argv)
    found = measure(arguments.shape, arguments.backend)
    if arguments.output is not None:
        write_json_atomically(arguments.output, found)


if __name__ == "__main__":
    sys.exit(run_main(main, "benchmarks.export_cost"))
