"""What the end-to-end tests share: a tiny model, small SQuAD files, and ways to call run_squad.py.

Most calls are made in this process, because importing TensorFlow takes seconds; `start` makes a real process where the
test is about processes (signals, exit codes, standard output).
"""

import contextlib
import copy
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

import run_squad
from checkpoints.checkpoint import load_checkpoint
from checkpoints.config import BertConfig
from checkpoints.names import QUESTION_ANSWERING, expected_tensors
from checkpoints.tf_bundle import write_bundle
from checkpoints.value import Checkpoint
from training.saves import RunFolder
from twinquant.main import run_main
from twinquant.squad_flags import PROGRAM

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "samples"
BACKENDS = ("tensorflow", "pytorch")
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclasses.dataclass
class Outcome:
    """How a call ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str
    program: str = PROGRAM

    @property
    def scores(self) -> dict[str, float]:
        """The last line of standard output, which is JSON."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def losses(self) -> list[float]:
        """The losses that the log tells, in order."""
        return [float(word) for word in re.findall(r"loss (\S+),", self.err)]

    def error(self) -> str:
        """The one sentence of a refusal: exit code 2, no traceback, nothing on standard output."""
        assert self.code == 2, self
        assert "Traceback" not in self.err and not self.out, self
        start = f"{self.program}: error: "
        lines = [line for line in self.err.splitlines() if line.startswith(start)]
        assert len(lines) == 1 and self.err.splitlines()[-1] == lines[0], self.err
        return lines[0].removeprefix(start)


def run(*arguments: str, cwd: Path, script: ModuleType = run_squad) -> Outcome:
    """Calls the script in this process, as `python run_squad.py <arguments>` in the folder `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_main(script.main, script.PROGRAM, arguments)
    return Outcome(code, out.getvalue(), err.getvalue(), script.PROGRAM)


def succeed(*arguments: str, cwd: Path, script: ModuleType = run_squad) -> Outcome:
    """Like `run`, for a call that must succeed."""
    outcome = run(*arguments, cwd=cwd, script=script)
    assert outcome.code == 0, outcome.err
    return outcome


def start(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts the script as a process of its own; its standard error is read line by line."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "run_squad.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tiny_config(vocab_size: int, positions: int = 128, hidden: int = 32, layers: int = 1) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
    )


def random_tensors(config: BertConfig, head: str | None = QUESTION_ANSWERING, seed: int = 0) -> dict[str, np.ndarray]:
    """An untrained model whose logits differ from position to position."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_tensors(config, head, pooler=True).items():
        mean = 1.0 if name.endswith("gamma") else 0.0
        tensors[name] = rng.normal(mean, 0.1, shape).astype(np.float32)
    return tensors


def vocabulary() -> list[str]:
    """Every word that the samples hold more than once, and every character, alone and as the rest of a word."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(SAMPLES.glob("*.json"))).lower()
    words = Counter(re.findall(r"\w+", text))
    characters = sorted(set(text) - set(" \n\t"))
    common = sorted(word for word, count in words.items() if count > 1 and len(word) > 1)
    return [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *common]


def write_google_folder(folder: Path, positions: int = 128, layers: int = 1) -> BertConfig:
    """bert_config.json, vocab.txt and bert_model.ckpt as Google publishes them: no head for questions, but a pooler,
    the heads of pre-training and the slots of Adam."""
    folder.mkdir(parents=True)
    tokens = vocabulary()
    config = tiny_config(len(tokens), positions, layers=layers)
    tensors = random_tensors(config, head=None)
    extra = {f"{name}/adam_{slot}": np.zeros_like(array) for name, array in tensors.items() for slot in "mv"}
    extra |= {
        "cls/predictions/output_bias": np.zeros(len(tokens), np.float32),
        "cls/predictions/transform/dense/kernel": np.zeros((32, 32), np.float32),
        "cls/seq_relationship/output_weights": np.zeros((2, 32), np.float32),
        "global_step": np.array(1000000, np.int64),
    }
    write_bundle(folder / "bert_model.ckpt", tensors | extra)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (folder / "bert_config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return config


def write_squad_folder(folder: Path, train: int = 28, dev: int = 10) -> None:
    """train-v1.1.json and dev-v1.1.json with the first questions of the samples."""
    folder.mkdir(parents=True)
    cut_squad("squad_train.json", folder / "train-v1.1.json", train)
    cut_squad("squad_dev.json", folder / "dev-v1.1.json", dev)


def cut_squad(sample: str, target: Path, questions: int) -> None:
    """Writes the first questions of a file of samples/, the same number of each of the first paragraphs."""
    articles = json.loads((SAMPLES / sample).read_text(encoding="utf-8"))["data"]
    kept = []
    for article in copy.deepcopy(articles):
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = paragraph["qas"][: max(0, questions)]
            questions -= len(paragraph["qas"])
        article["paragraphs"] = [paragraph for paragraph in article["paragraphs"] if paragraph["qas"]]
        kept += [article] if article["paragraphs"] else []
    assert questions <= 0, f"{sample} has too few questions"
    target.write_text(json.dumps({"version": "1.1", "data": kept}), encoding="utf-8")


def saved(path: Path) -> Checkpoint:
    """A checkpoint from disk; the test fails if it is damaged."""
    return load_checkpoint(str(path))


def assert_equal_arrays(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Equal names and equal bits."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def assert_equal_saves(found: RunFolder, expected: RunFolder) -> None:
    """Equal bits in every checkpoint of a training run and in what optimizer and predictions left beside them."""
    for step in expected.steps():
        (checkpoint, state), (whole, whole_state) = found.load(step), expected.load(step)
        assert_equal_arrays(checkpoint.tensors, whole.tensors)
        assert_equal_arrays(checkpoint.ranges, whole.ranges)
        assert_equal_arrays(state.optimizer, whole_state.optimizer)
    for name in ("predictions.json", "nbest_predictions.json", "eval_results.json", "checkpoint"):
        assert (found.folder / name).read_bytes() == (expected.folder / name).read_bytes(), name


def checkpoint_files(prefix: str, backend: str) -> list[str]:
    """What a checkpoint of that name consists of, relative to its folder."""
    if backend == "tensorflow":
        return [f"{prefix}.index", f"{prefix}.data-00000-of-00001"]
    return [f"{prefix}/model.safetensors", f"{prefix}/config.json", f"{prefix}/vocab.txt"]


def flags(text: str, **values: object) -> Sequence[str]:
    """A command line as a guide prints it, over several lines, split into words."""
    return text.format(**values).replace("\\\n", " ").split()
