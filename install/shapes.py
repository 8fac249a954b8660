"""Installs every extra alone, not editable, and runs a small real job in each: `python -m install.shapes`.

`make shapes` calls it with the interpreter of the Makefile; `python -m install.shapes python3.12 pytorch export` takes
another one, and some of the shapes. Every environment is made in a temporary folder and removed again. A wheel is
built first, in an environment of its own, so that what is installed is what would be published: its lists of packages
and modules are part of what is proven.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from install.lock import ROOT, version_of
from twinquant.errors import UserError
from twinquant.main import run_main

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32,
}  # fmt: skip
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran who where ? . good bad".split()
_SQUAD = [
    "run_squad.py", "--vocab_file={job}/vocab.txt", "--bert_config_file={job}/bert_config.json", "--max_seq_length=24",
    "--max_query_length=8", "--doc_stride=8", "--predict_file={job}/squad.json", "--predict_batch_size=2",
]  # fmt: skip
_QUANTIZE = [
    *_SQUAD, "--init_checkpoint={job}/model.ckpt-1", "--train_file={job}/squad.json", "--do_calib", "--calib_batch=1",
    "--train_batch_size=2", "--do_predict", "--if_quant", "--quant_mode=ft2", "--output_dir={out}/quantized",
]  # fmt: skip
_PREDICT = [
    *_SQUAD, "--init_checkpoint={out}/quantized/model.ckpt-calibrated", "--do_predict", "--if_quant",
    "--quant_mode=ft2", "--output_dir={out}/predicted",
]  # fmt: skip
_EXPORT = ["-m", "export", "onnx", "--checkpoint={job}/model.ckpt-1", "--precision=int8-dynamic", "--output={out}/onnx"]
# Commands by shape: the words behind `python`, {job} the folder of the inputs, {out} that of the results.
JOBS = {
    "tensorflow": [_QUANTIZE],
    "pytorch": [_QUANTIZE],
    "export": [_EXPORT],
    "tensorflow,pytorch": [[*_QUANTIZE, "--backend=tensorflow"], [*_PREDICT, "--backend=pytorch"]],
}  # fmt: skip


def write_job(folder: Path) -> None:
    """Writes bert_config.json, vocab.txt, model.ckpt-1 with a head for questions, glue/, squad.json and train.csv."""
    import numpy as np

    from checkpoints.config import BertConfig
    from checkpoints.hugging_face import write_hugging_face
    from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
    from checkpoints.tf_checkpoint import write_tf_checkpoint
    from checkpoints.value import Checkpoint
    from training.initialization import random_checkpoint

    vocab_file = folder / "vocab.txt"
    words = [*WORDS, *(f"word{number}" for number in range(SIZES["vocab_size"] - len(WORDS)))]
    vocab_file.write_text("\n".join(words) + "\n", encoding="utf-8")
    config = BertConfig.from_dict({**SIZES, "initializer_range": 0.2}, "the job's model")
    tensors = random_checkpoint(config, QUESTION_ANSWERING, 0).tensors
    for name in list(tensors):
        tensors[name] = np.asarray(tensors[name], np.float32)
    write_tf_checkpoint(folder / "model.ckpt-1", Checkpoint(tensors, config=config, vocab_file=vocab_file), 1)
    classes = random_checkpoint(config, CLASSIFICATION, 0, 2).tensors
    labeled = config.with_labels(["bad", "good"])
    write_hugging_face(folder / "glue", Checkpoint(classes, config=labeled, vocab_file=vocab_file))
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")  # for the sentence about what reading it needs
    context = "the cat sat on the mat ."
    questions = [
        {"id": f"q{number}", "question": "where sat the cat ?", "answers": [{"text": "mat", "answer_start": 19}]}
        for number in range(4)
    ]
    data = [{"title": "Cats", "paragraphs": [{"context": context, "qas": questions}]}]
    (folder / "squad.json").write_text(json.dumps({"version": "1.1", "data": data}), encoding="utf-8")
    (folder / "train.csv").write_text("text,label\nthe cat sat,good\na dog ran,bad\n", encoding="utf-8")


def try_shape(python: str, wheel: Path, shape: str, folder: Path) -> float:
    """Makes an environment in `folder` with the wheel and its extras, and runs the jobs there; returns seconds.

    Raises UserError where a command fails, with the end of what it said.
    """
    begin = time.monotonic()
    job, out, environment = folder / "job", folder / "out", folder / "environment"
    job.mkdir()
    out.mkdir()
    own = environment / "bin/python"
    _call([python, "-m", "venv", str(environment)], folder)
    # torch first and alone, as install/environment.py does; the other extras must not bring another build of it.
    install = [str(own), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    for extra in sorted(shape.split(","), key=lambda extra: extra != "pytorch"):
        _call([*install, f"{wheel}[{extra}]"], folder)
    _call([str(own), "-c", "from pathlib import Path; from job_files import write_job; write_job(Path('job'))"], folder)
    for words in JOBS[shape]:
        filled = [word.format(job=job, out=out) for word in words]
        if filled[0] != "-m":  # the installed module, from a folder where no checkout is found
            filled = ["-m", filled[0].removesuffix(".py"), *filled[1:]]
        _call([str(own), *filled], folder)
    written = [path for path in out.rglob("*") if path.is_file()]
    if not written:
        raise UserError(f"the jobs of {shape} wrote nothing")
    return time.monotonic() - begin


def build_wheel(python: str, folder: Path) -> Path:
    """A wheel of the checkout, built from a copy, so that no build folder is left in it."""
    copy = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, tracked)):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    _call([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)], folder)
    return next(folder.glob("twinquant-*.whl"))


def _call(words: Sequence[str], folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "1"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        last = " / ".join(done.stdout.strip().splitlines()[-6:])
        raise UserError(f"this failed with exit code {done.returncode}: {' '.join(words)}: {last}")


def main(arguments: Sequence[str]) -> int:
    """[PYTHON] [SHAPE ...]: an interpreter (default: this one) and shapes of JOBS (default: all)."""
    python, shapes = sys.executable, list(arguments)
    if shapes and shapes[0] not in JOBS:
        python, *shapes = shapes
    if unknown := [shape for shape in shapes if shape not in JOBS]:
        raise UserError(f"found {unknown[0]}; expected some of {' '.join(JOBS)}")
    version = version_of(python)
    if version is None:
        raise UserError(f"{python} does not run; expected a Python interpreter")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the environments are removed
    with tempfile.TemporaryDirectory(prefix="twinquant-shapes-") as temporary:
        wheel = build_wheel(python, Path(temporary))
        for shape in shapes or JOBS:
            folder = Path(temporary, "shape")
            folder.mkdir()
            # The inputs are written by the installed package itself.
            shutil.copyfile(__file__, folder / "job_files.py")
            (folder / "install").mkdir()
            for name in ("__init__.py", "lock.py"):
                shutil.copyfile(ROOT / "install" / name, folder / "install" / name)
            seconds = try_shape(python, wheel, shape, folder)
            print(f"shapes: Python {version}, [{shape}]: {len(JOBS[shape])} commands, {seconds:.0f} s", flush=True)
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, "install.shapes"))
