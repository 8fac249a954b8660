"""An exported folder loads unchanged in optimum, and transformers' pipelines run on it.

optimum needs an environment of its own: `make optimum` makes it and runs these tests, which are skipped without it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_exports import LABELS, int8, tiny_checkpoint

from backends.base import Batch
from checkpoints.checkpoint import load_checkpoint
from checkpoints.value import Checkpoint
from export.check import random_batches
from export.commands import export_model
from export.runtime import OnnxPredictor, model_feeds, read_model
from export.settings import ExportSettings
from export.source import Source, make_source
from install.optimum_install import environment_python, requirements
from quantization.modes import get_mode
from tasks.squad import SquadTask
from training.calibration import find_ranges, observe
from twinquant.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"the film was a very good bad one who saw it".split(), "?", "."]
CONTEXT = "The novel was written by Jane Austen in 1813, in a small house in Hampshire."
needs_optimum = pytest.mark.skipif(environment_python() is None, reason="no optimum here: make optimum installs it")


def run_optimum(
    source: Source, settings: ExportSettings, texts: list[str], folder: Path
) -> tuple[dict[str, Any], dict]:
    """What optimum_check.py says of the exported model, and the logits that OnnxPredictor gives for the same batch."""
    export_model(source, settings, folder / "model")
    path = folder / "model/model.onnx"
    batch: Batch = random_batches(source)[1]
    np.savez(folder / "inputs.npz", texts=np.array(texts), **model_feeds(batch))
    script = Path(__file__).with_name("optimum_check.py")
    words = [str(environment_python()), str(script), "model", "inputs.npz", "result.json"]
    outcome = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    expected = OnnxPredictor(path, read_model(path)[1]).predict(batch)
    return json.loads((folder / "result.json").read_text()), expected


def with_vocabulary(checkpoint: Checkpoint, folder: Path) -> Source:
    """The checkpoint with a vocabulary of the words above and as many others as it has rows."""
    assert checkpoint.config is not None
    count = checkpoint.config.vocab_size
    words = WORDS + [f"unused{number}" for number in range(count - len(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(words[:count]) + "\n")
    checkpoint.vocab_file = folder / "vocab.txt"
    return make_source(checkpoint, checkpoint.config)


@pytest.mark.slow
@needs_optimum
@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("glue", int8("ft1")),
        ("glue", int8("ft2", portable=True)),
        ("glue", ExportSettings()),
        ("squad", int8("ort", int8_embeddings=True)),
        ("squad", ExportSettings("int8-dynamic", reduce_range=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.describe(),
)
def test_optimum_runs_the_folder(task: str, settings: ExportSettings, tmp_path: Path) -> None:
    source = with_vocabulary(tiny_checkpoint(task, settings.mode, vocab_size=64), tmp_path)
    texts = ["the film was very good"] if task == "glue" else ["who saw it ?", "the film was a very good one ."]
    found, expected = run_optimum(source, settings, texts, tmp_path)
    kind = "SequenceClassification" if task == "glue" else "QuestionAnswering"
    assert found["class"] == f"ORTModelFor{kind}"
    assert set(found["logits"]) == set(expected)
    for name, logits in expected.items():
        np.testing.assert_array_equal(np.array(found["logits"][name], np.float32), logits, err_msg=name)
    words = " ".join(["[CLS]", texts[0], "[SEP]", *(word for text in texts[1:] for word in (text, "[SEP]"))]).split()
    assert found["ids"] == [WORDS.index(word) for word in words]
    if task == "glue":
        assert found["answer"]["label"] in LABELS and 1 / len(LABELS) <= found["answer"]["score"] <= 1
    else:
        assert found["answer"]["answer"].strip() in texts[1]


@pytest.mark.real
@pytest.mark.slow
@needs_optimum
def test_a_real_model_answers_in_a_pipeline(shared_data: Path, tmp_path: Path) -> None:
    """MiniLM fine-tuned on SQuAD, calibrated for ft1 on four batches of training questions."""
    pytest.importorskip("torch")
    from tiny_bert import make_backend

    checkpoint = load_checkpoint(str(shared_data / "models/minilm-squad"))
    assert checkpoint.config is not None and checkpoint.vocab_file is not None
    train = shared_data / "squad/train-v1.1.subset11877.json"
    task = SquadTask(vocab_file=checkpoint.vocab_file, train_file=train, max_seq_length=192)
    backend = make_backend("pytorch", checkpoint.config, checkpoint.tensors)
    observer = observe(backend, task.calibration_features(32), 8, 4, 192)
    mode = get_mode("ft1")
    checkpoint.ranges = find_ranges(observer, checkpoint.tensors, checkpoint.config, mode, "percentile", 99.99)[0]
    found, expected = run_optimum(
        make_source(checkpoint, checkpoint.config), int8("ft1"), ["Who wrote the novel?", CONTEXT], tmp_path
    )
    assert found["class"] == "ORTModelForQuestionAnswering" and found["answer"]["answer"] == "Jane Austen"
    assert found["answer"]["score"] > 0.5
    for name, logits in expected.items():
        # Two builds of onnxruntime may split sums over threads otherwise; the integers between are the same.
        np.testing.assert_allclose(np.array(found["logits"][name]), logits, atol=1e-4, err_msg=name)


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPTIMUM_ENVIRONMENT", str(tmp_path))
    with pytest.raises(UserError, match=f"OPTIMUM_ENVIRONMENT names {tmp_path}, which holds no bin/python"):
        environment_python()


def test_every_requirement_is_pinned() -> None:
    lines = [line for step in requirements() for line in step]
    assert {line.partition("==")[0] for line in lines} >= {"torch", "optimum-onnx", "transformers", "onnxruntime"}
    assert all(line.count("==") == 1 for line in lines)
