"""A real fine-tuned model, calibrated on a few questions: what is exported answers as the fake-quantized model does."""

import json
from pathlib import Path

import pytest
from tiny_bert import make_backend

from checkpoints.checkpoint import load_checkpoint
from checkpoints.hugging_face import write_hugging_face
from checkpoints.value import Checkpoint
from export.__main__ import main
from quantization.modes import get_mode
from tasks.squad import SquadTask
from training.calibration import find_ranges, observe

pytestmark = pytest.mark.real
QUESTIONS = 16


@pytest.fixture(scope="module")
def calibrated(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face folders ft1 and ft2: ranges from 12 training questions; dev.json: the first questions of XQuAD."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = load_checkpoint(str(shared_data / "models/minilm-squad"))
    assert checkpoint.config is not None and checkpoint.vocab_file is not None
    train = shared_data / "squad/train-v1.1.subset11877.json"
    task = SquadTask(vocab_file=checkpoint.vocab_file, train_file=train, max_seq_length=256)
    backend = make_backend("pytorch", checkpoint.config, checkpoint.tensors)
    observer = observe(backend, task.calibration_features(12), 6, 2, 256)
    for mode in ("ft1", "ft2"):
        found = find_ranges(observer, checkpoint.tensors, checkpoint.config, get_mode(mode), "percentile", 99.99)[0]
        ranged = Checkpoint(
            checkpoint.tensors, found, checkpoint.config, "", checkpoint.vocab_file, checkpoint.metadata
        )
        write_hugging_face(folder / mode, ranged)
    article = json.loads((shared_data / "squad/xquad.en.json").read_text(encoding="utf-8"))["data"][0]
    kept, count = [], QUESTIONS
    for paragraph in article["paragraphs"]:
        kept.append({"context": paragraph["context"], "qas": paragraph["qas"][:count]})
        count -= len(kept[-1]["qas"])
    (folder / "dev.json").write_text(json.dumps({"data": [{"title": "first", "paragraphs": kept}]}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("flags", "equal", "size"),
    [
        ("--precision=fp32", QUESTIONS, 91),
        ("--precision=int8 --quant_mode=ft1 --cpu=avx2", QUESTIONS - 2, 59),
        ("--precision=int8 --quant_mode=ort --cpu=avx2 --int8_embeddings", QUESTIONS - 2, 24.1),
        ("--precision=int8 --quant_mode=ft2 --cpu=avx2", QUESTIONS - 2, 59),
        ("--precision=int8-dynamic --cpu=avx2", QUESTIONS // 2, 59),
    ],
)
def test_answers(flags: str, equal: int, size: float, calibrated: Path, tmp_path: Path) -> None:
    """Rounding that is amplified from layer to layer may cost an answer or two; every layer by itself is exact."""
    checkpoint = calibrated / ("ft2" if "ft2" in flags else "ft1")
    words = [f"--checkpoint={checkpoint}", "--threads=1"]
    assert main(["onnx", *words, f"--output={tmp_path}", *flags.split()]) == 0
    assert (tmp_path / "model.onnx").stat().st_size < size * 1e6
    data = [
        f"--data={calibrated}/dev.json",
        "--max_seq_length=256",
        "--max_score_difference=8",
        "--min_equal_answers=0",
    ]
    assert main(["check", *words, f"--model={tmp_path}", f"--json_summary={tmp_path}/report.json", *data]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["comparison"]["answers"] == QUESTIONS and report["comparison"]["equal_answers"] >= equal, report
    assert max(report["layer_differences"], default=0.0) < 0.02, report
    if "fp32" in flags:
        assert report["comparison"]["largest"] < 1e-4 and report["comparison"]["reference_scores"]["f1"] > 60
    else:
        assert report["kernels"]["int8_share"] > (0.9 if "dynamic" in flags else 0.999)
