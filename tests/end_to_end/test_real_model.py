"""A real fine-tuned model on real questions: both frameworks give the same answers, and good ones."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file
from small_runs import BACKENDS, Outcome, flags, saved, succeed

import training.run
from checkpoints.names import hugging_face_name, is_transposed
from tasks.tokenization import load_tokenizer

pytestmark = pytest.mark.real
QUESTIONS = 40
CALIBRATION_QUESTIONS = 16
COMMON = flags(
    "--train_file=train.json --predict_file=dev.json --max_seq_length=256 --do_predict --predict_batch_size=8"
)
PTQ = flags("--do_calib --if_quant --quant_mode=ft1 --calib_batch=2 --train_batch_size=8")


@pytest.fixture(scope="module")
def model(shared_data: Path) -> Path:
    return shared_data / "models/minilm-squad"


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dev.json: the first questions of XQuAD; train.json: some of SQuAD's, to calibrate on."""
    folder = tmp_path_factory.mktemp("real")
    _cut(shared_data / "squad/xquad.en.json", folder / "dev.json", QUESTIONS)
    _cut(shared_data / "squad/train-v1.1.subset11877.json", folder / "train.json", CALIBRATION_QUESTIONS)
    return folder


def _cut(source: Path, target: Path, count: int) -> None:
    kept: list[dict] = []
    for article in json.loads(source.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            questions = paragraph["qas"][:count]
            count -= len(questions)
            kept += [{"context": paragraph["context"], "qas": questions}] if questions else []
    target.write_text(json.dumps({"data": [{"title": "first", "paragraphs": kept}]}), encoding="utf-8")


@pytest.fixture(scope="module")
def logits() -> Iterator[dict[str, dict[str, list[np.ndarray]]]]:
    """What each backend's model gave in float, recorded while the script runs."""
    recorded: dict[str, dict[str, list[np.ndarray]]] = {}
    predict_all = training.run.predict_all

    def record(backend, *arguments, **keywords):  # type: ignore[no-untyped-def]
        outputs = predict_all(backend, *arguments, **keywords)
        recorded.setdefault(backend.name, outputs)
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "predict_all", record)
        yield recorded


@pytest.fixture(scope="module")
def outcomes(model: Path, folder: Path, logits: dict) -> dict[str, Outcome]:
    """Float first, then ft1 after training, with each backend; output folders `<backend>-float` and `<backend>-ft1`."""
    found = {}
    for backend in BACKENDS:
        for name, more in (("float", []), ("ft1", PTQ)):
            where = [f"--init_checkpoint={model}", f"--backend={backend}", f"--output_dir={backend}-{name}"]
            found[f"{backend}-{name}"] = succeed(*COMMON, *where, *more, cwd=folder)
    return found


def _answers(folder: Path, name: str) -> dict[str, str]:
    return json.loads((folder / name / "predictions.json").read_text(encoding="utf-8"))


def test_float_answers_are_equal_and_good(outcomes: dict[str, Outcome], folder: Path) -> None:
    answers = [_answers(folder, f"{backend}-float") for backend in BACKENDS]
    assert answers[0] == answers[1] and len(answers[0]) == QUESTIONS
    assert all(outcomes[f"{backend}-float"].scores["f1"] > 60 for backend in BACKENDS)


def test_float_logits_agree(outcomes: dict[str, Outcome], logits: dict) -> None:
    for name in ("start_logits", "end_logits"):
        rows = zip(logits["tensorflow"][name], logits["pytorch"][name], strict=True)
        assert max(abs(one - other).max() for one, other in rows) < 1e-4, name


def test_ft1_answers_agree(outcomes: dict[str, Outcome], folder: Path) -> None:
    first, second = (_answers(folder, f"{backend}-ft1") for backend in BACKENDS)
    assert sum(first[key] == second[key] for key in first) >= 0.95 * QUESTIONS
    assert all(outcomes[f"{backend}-ft1"].scores["f1"] > 55 for backend in BACKENDS)


def test_ranges_agree(outcomes: dict[str, Outcome], folder: Path) -> None:
    first, second = (saved(folder / f"{backend}-ft1/model.ckpt-calibrated").ranges for backend in BACKENDS)
    for scope, amax in first.items():
        np.testing.assert_allclose(second[scope], amax, rtol=2e-3, err_msg=scope)


@pytest.mark.parametrize("backend", BACKENDS)
def test_saved_weights_are_the_model_s_bits(
    outcomes: dict[str, Outcome], folder: Path, model: Path, backend: str
) -> None:
    """Read from the model's own file and saved by the script, as a TensorFlow bundle and as a folder."""
    expected = load_file(model / "model.safetensors")
    checkpoint = saved(folder / f"{backend}-ft1/model.ckpt-calibrated")
    for name, array in checkpoint.tensors.items():
        source = expected[hugging_face_name(name)]
        np.testing.assert_array_equal(array, source.T if is_transposed(name) else source, err_msg=name, strict=True)
    assert len(checkpoint.tensors) == 5 + 16 * checkpoint.config.num_hidden_layers + 2


def test_tokenizer(model: Path, folder: Path) -> None:
    """30,522 entries, and the same pieces as the tokenizer.json that the model was published with."""
    tokenizer = load_tokenizer(model / "vocab.txt")
    assert len(tokenizer.tokens) == 30522
    published = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    published.no_truncation()
    published.no_padding()
    for paragraph in json.loads((folder / "dev.json").read_text())["data"][0]["paragraphs"]:
        for text in (paragraph["context"], *(qa["question"] for qa in paragraph["qas"])):
            pieces = [tokenizer.tokens[index] for index in tokenizer.encode_texts([text])[0]]
            assert pieces == published.encode(text, add_special_tokens=False).tokens
