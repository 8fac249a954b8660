"""python -m export compare on tiny models: what it measures, beside predictions that the test makes itself."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compare_page import check_page
from tiny_bert import make_backend, require
from tiny_exports import tiny_checkpoint

from checkpoints.hugging_face import write_hugging_face
from checkpoints.value import Checkpoint
from export.__main__ import main
from export.compare import rows as rows_module
from export.compare import unfinished
from export.compare.accuracy import Accuracy
from export.compare.latency import parse_threads
from export.compare.measure import Processes, measure_answers
from export.compare.models import ModelSpec
from export.compare.prepare import checkpoint_bytes
from export.compare.process import RowError, RowProcess
from export.compare.report import Report
from export.compare.rows import Kind, Row
from export.source import load_source
from tasks.metrics import exact_score
from twinquant.errors import UserError

WORDS = "water river bridge stone engine museum village market winter garden letter music island forest north".split()
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"filler{n}" for n in range(97 - 5 - len(WORDS)))]
QUICK = ["--rounds=1", "--threads=1", "--batches", "2x16", "--max_query_length=10", "--max_seq_length=48"]
QUESTIONS = 40


@pytest.fixture(autouse=True)
def one_thread() -> None:
    require("pytorch")
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """squad, glue: with ranges for ft2 and a vocabulary; bare: squad's without ranges; questions.json; MRPC/dev.tsv."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "words.txt").write_text("\n".join(TOKENS) + "\n")
    rng = np.random.default_rng(0)
    pairs = [[rng.choice(WORDS, count).tolist() for count in (6, 5)] for _ in range(60)]
    for name, task, mode in (("squad", "squad", "ft2"), ("bare", "squad", None), ("glue", "glue", "ft2")):
        checkpoint = tiny_checkpoint(task, mode)
        if task == "glue":
            checkpoint.tensors["output_weights"] = checkpoint.tensors["output_weights"][:2]
            checkpoint.tensors["output_bias"] = checkpoint.tensors["output_bias"][:2]
            assert checkpoint.config is not None
            checkpoint.config = checkpoint.config.with_labels(["0", "1"])
            checkpoint.tensors["output_bias"][1] -= median_margin(checkpoint, pairs)
        checkpoint.vocab_file = folder / "words.txt"
        write_hugging_face(folder / name, checkpoint)
    paragraphs = []
    for number in range(QUESTIONS):
        words = rng.choice(WORDS, 30).tolist()
        answers = [{"text": words[5], "answer_start": len(" ".join(words[:5])) + 1}]
        question = {"id": str(number), "question": " ".join(rng.choice(WORDS, 4)), "answers": answers}
        paragraphs.append({"context": " ".join(words), "qas": [question]})
    (folder / "questions.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    (folder / "MRPC").mkdir()
    rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    rows += [f"{row % 2}\t{row}\t{row}\t{' '.join(one)}\t{' '.join(two)}" for row, (one, two) in enumerate(pairs)]
    (folder / "MRPC/dev.tsv").write_text("\n".join(rows) + "\n")
    return folder


def median_margin(checkpoint: Checkpoint, pairs: list[list[list[str]]]) -> np.float32:
    """By how much class 1 is ahead of class 0 in the median: without it, half of the texts are of each class."""
    texts = [["[CLS]", *one, "[SEP]", *two, "[SEP]"] for one, two in pairs]
    ids = np.array([[TOKENS.index(word) for word in text] for text in texts], np.int32)
    segments = np.repeat(np.array([[0] * 8 + [1] * 6], np.int32), len(ids), axis=0)
    batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": segments}
    assert checkpoint.config is not None
    backend = make_backend("pytorch", checkpoint.config, checkpoint.tensors, head="classification", num_labels=2)
    logits = backend.predict(batch)["logits"]
    return np.median(logits[:, 1] - logits[:, 0])


def compare(folder: Path, output: Path, *flags: str, task: str = "squad") -> tuple[int, Report]:
    data = {"squad": [f"--data={folder}/questions.json"], "glue": [f"--data={folder}/MRPC", "--task_name=MRPC"]}[task]
    words = ["compare", *data, *QUICK, f"--output={output}", "--quant_mode=ft2", *flags]
    if not any(flag.startswith("--checkpoint") for flag in flags):
        words.append(f"--checkpoint={folder}/{task}")
    code = main(words)
    return code, json.loads((output / "report.json").read_text())


def check_answers(folder: Path, task: str, model: Path) -> dict:
    """Answers of an exported model, as `python -m export check` has them written, by a second way: plain onnxruntime,
    one example at a time and without the comparison's processes."""
    from export.data import make_task
    from export.flags import parse_check_flags
    from export.runtime import OnnxPredictor, read_model
    from export.source import load_source

    words = [f"--model={model}", f"--checkpoint={folder}/{task}", *QUICK[-2:]]
    words += ["--task_name=MRPC"] if task == "glue" else []
    arguments = parse_check_flags(words)
    source = load_source(f"{folder}/{task}")
    made = make_task(arguments, source, str(folder / {"glue": "MRPC", "squad": "questions.json"}[task]), None)
    predictor = OnnxPredictor(model, read_model(model)[1], 1)
    (prediction_set,) = made.prediction_sets()
    features = prediction_set.features()
    outputs: dict[str, list[np.ndarray]] = {}
    for index in range(len(features)):
        for name, logits in predictor.predict(features.batch([index])).items():
            outputs.setdefault(name, []).append(logits[0])
    if task == "glue":
        return dict(enumerate(np.argmax(outputs["logits"], axis=1).tolist()))
    prediction_set.finish(outputs, model.parent)
    return json.loads((model.parent / "predictions.json").read_text())


@pytest.mark.parametrize("task", ["squad", "glue"])
def test_agreement(task: str, folder: Path, tmp_path: Path) -> None:
    flags = ["--rows", "onnxruntime-fp32", "onnxruntime-int8", f"--keep_models={tmp_path}/models"]
    code, report = compare(folder, tmp_path / "out", *flags, task=task)
    assert code == 0
    fp32, int8 = report["rows"]
    assert fp32["name"] == "onnxruntime-fp32" and fp32["is_reference"] and fp32["int8_share"] == 0
    assert int8["int8_share"] > 0.9 and report["baseline"] == f"{task}/onnxruntime-fp32"
    answers = [
        check_answers(folder, task, tmp_path / f"models/{task}/{row['name']}/model.onnx") for row in (fp32, int8)
    ]
    different = sum(answers[0][key] != answers[1][key] for key in answers[0])
    assert 0 < different < len(answers[0]), "the test's model must answer some examples differently"
    paragraphs = json.loads((folder / "questions.json").read_text())["data"][0]["paragraphs"]
    gold = {question["id"]: question["answers"][0]["text"] for p in paragraphs for question in p["qas"]}

    def is_right(key: object, answer: object) -> bool:
        return answer == int(key) % 2 if task == "glue" else bool(exact_score(str(answer), gold[str(key)]))  # type: ignore[call-overload]

    right = [[is_right(key, answer) for key, answer in found.items()] for found in answers]
    found = int8["agreement"]
    assert found["answers"] == len(answers[0]) and found["different"] == different
    assert found["percent"] == pytest.approx(100 * (1 - different / len(answers[0])))
    assert found["only_fp32_right"] == sum(a and not b for a, b in zip(*right, strict=True))
    assert found["only_this_right"] == sum(b and not a for a, b in zip(*right, strict=True))
    metric = {"squad": "exact_match", "glue": "acc"}[task]
    for row, known in zip((fp32, int8), right, strict=True):
        assert row["scores"][metric] == pytest.approx(100 * np.mean(known))
        assert row["file_bytes"] == (tmp_path / f"models/{task}/{row['name']}/model.onnx").stat().st_size
        assert row["peak_rss_bytes"] > 20e6 and row["examples_per_second"] > 0
        assert row["latency"]["1"]["2x16"]["p50_ms"] > 0


def test_backends_and_what_cannot_be_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints, one of them without ranges; a framework that is missing; PyTorch beside onnxruntime."""
    monkeypatch.setitem(rows_module.MODULES, "openvino", "a_module_that_is_not_there")
    patterns = ["squad/pytorch-*", "squad/onnxruntime-fp32", "squad/openvino-fp32", "bare/onnxruntime-*"]
    checkpoints = [f"--checkpoint={folder}/squad", f"--checkpoint={folder}/bare"]
    code, report = compare(folder, tmp_path, *checkpoints, "--rows", *patterns)
    assert code == 0
    rows = {row["id"]: row for row in report["rows"]}
    measured = {name for name, row in rows.items() if not row["reason"]}
    assert measured == {
        "squad/pytorch-fp32", "squad/pytorch-int8", "squad/pytorch-int8-dynamic", "squad/onnxruntime-fp32",
        "bare/onnxruntime-fp32", "bare/onnxruntime-int8-dynamic",
    }  # fmt: skip
    assert rows["squad/openvino-fp32"]["reason"].startswith("a_module_that_is_not_there is not installed; pip install")
    assert rows["bare/onnxruntime-int8"]["reason"].startswith("the checkpoint has no ranges")
    assert rows["squad/onnxruntime-fp32"]["agreement"]["percent"] == 100.0  # as PyTorch's fp32, which is the reference
    assert report["references"] == {"squad": "squad/pytorch-fp32", "bare": "bare/onnxruntime-fp32"}
    assert rows["squad/pytorch-int8"]["agreement"]["different"] > 0
    weights = (folder / "squad/model.safetensors").stat().st_size
    ranges = (folder / "squad/quantization_ranges.safetensors").stat().st_size
    assert rows["squad/pytorch-fp32"]["file_bytes"] == weights
    assert rows["squad/pytorch-int8"]["file_bytes"] == weights + ranges
    assert 0.5 < rows["squad/pytorch-int8-dynamic"]["int8_share"] < 1
    assert rows["squad/pytorch-int8-dynamic"]["file_bytes"] < weights

    text = capsys.readouterr().out
    for row in report["rows"]:
        assert f"| {row['id']} " in text
        assert (f"not measured: {row['id']}: {row['reason']}" in text) == bool(row["reason"])
    markdown = (tmp_path / "report.md").read_text()
    assert "not measured: bare/onnxruntime-int8: the checkpoint has no ranges" in markdown
    assert (
        report["machine"]["cpu"] in markdown
        and f"onnxruntime {report['machine']['versions']['onnxruntime']}" in markdown
    )
    page = (tmp_path / "report.html").read_text()
    check_page(page)
    assert page.count("<tr class=") == len(rows) + 1 and "not measured: the checkpoint has no ranges" in page


def test_without_right_answers(folder: Path, tmp_path: Path) -> None:
    """Nothing is scored, but answers still agree or not."""
    content = json.loads((folder / "questions.json").read_text())
    for paragraph in content["data"][0]["paragraphs"]:
        for question in paragraph["qas"]:
            del question["answers"]
    (tmp_path / "asked.json").write_text(json.dumps(content))
    flags = [f"--data={tmp_path}/asked.json", "--rows", "onnxruntime-fp32", "onnxruntime-int8"]
    code, report = compare(folder, tmp_path / "out", *flags)
    found = report["rows"][1]["agreement"]
    assert code == 0 and report["metrics"] == [] and found["different"] > 0 and found["mcnemar_p"] is None
    check_page((tmp_path / "out/report.html").read_text(), images=2)


def test_tensorflow(folder: Path, tmp_path: Path) -> None:
    """The slowest process to start: once, its fp32 beside onnxruntime's."""
    require("tensorflow")
    code, report = compare(folder, tmp_path, "--rows", "tensorflow-fp32", "onnxruntime-fp32", "--max_examples=5")
    first, second = report["rows"]
    assert code == 0 and first["is_reference"] and second["agreement"]["percent"] == 100.0
    assert first["peak_rss_bytes"] > 3 * second["peak_rss_bytes"] and report["examples"] == 5


def test_openvino(folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    code, report = compare(folder, tmp_path, "--rows", "openvino-*", "onnxruntime-fp32")
    rows = {row["name"]: row for row in report["rows"]}
    assert code == 0 and rows["onnxruntime-fp32"]["is_reference"]
    assert rows["openvino-fp32"]["agreement"]["percent"] == 100.0 and rows["openvino-fp32"]["int8_share"] == 0
    assert rows["openvino-int8"]["int8_share"] > 0.9 and rows["openvino-int8"]["agreement"]["percent"] > 50


def test_an_interrupted_run_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--rows", "onnxruntime-fp32", "onnxruntime-int8"]
    with monkeypatch.context() as patch:
        patch.setattr("export.compare.command.measure_latencies", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compare(folder, tmp_path, *flags)
    assert len(list((tmp_path / unfinished.FOLDER).iterdir())) == 2 and not (tmp_path / "report.json").exists()
    capsys.readouterr()
    code, report = compare(folder, tmp_path, *flags)
    messages = capsys.readouterr().err
    assert messages.count("taken from the run that was interrupted") == 2 and code == 0
    assert report["rows"][1]["agreement"]["answers"] == QUESTIONS and report["rows"][1]["latency"]
    assert not (tmp_path / unfinished.FOLDER).exists()
    compare(folder, tmp_path, *flags)
    assert "taken from" not in capsys.readouterr().err


def test_kept_rows_are_of_the_same_data(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("export.compare.command.measure_latencies", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compare(folder, tmp_path, "--rows", "onnxruntime-fp32", "--max_examples=3")
    _, report = compare(folder, tmp_path, "--rows", "onnxruntime-fp32", "--max_examples=4")
    assert report["examples"] == 4 and "taken from" not in capsys.readouterr().err


def test_kept_rows_are_of_the_same_quantizers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two lists of equal length, and of a data folder's files at any depth."""
    keys = []
    data = tmp_path / "glue"
    (data / "MRPC").mkdir(parents=True)
    (data / "MRPC" / "dev.tsv").write_text("one")
    row = Row("squad", Kind("pytorch", "int8"))
    source = load_source(f"{folder}/squad", "squad")
    for excluded, content in ((["a"], "one"), (["b"], "one"), (["b"], "two"), (["b"], "two")):
        (data / "MRPC" / "dev.tsv").write_text(content)
        row.spec = ModelSpec("pytorch", f"{folder}/squad", quant_mode="ft1", quant_exclude=excluded)
        keys.append(unfinished.row_key(row, source, str(data), None, {}, {"versions": {}, "cpu": "", "cpu_flags": []}))
    assert len(set(keys)) == 3 and keys[2] == keys[3]


def test_a_row_with_answers_that_cannot_be_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = Row("squad", Kind("onnxruntime", "fp32"))
    row.spec = ModelSpec("onnxruntime", str(tmp_path / "no.onnx"), session=SESSION)

    def measure(*_: object) -> Accuracy:
        raise UserError("the logits of question 3 are not finite")

    class Started(Processes):
        def start(self, row: Row, threads: int) -> Any:
            self.by_row[row.id] = SimpleNamespace(wait_until_ready=lambda: None, close=lambda: None)
            return self.by_row[row.id]

    with Started() as processes:
        measure_answers([row], 1, processes, measure, kept=lambda row: None, keep=lambda row, accuracy: None)
    assert row.failed and row.reason == "the logits of question 3 are not finite" and row.accuracy is None


@pytest.mark.parametrize("word", ["0", "\u00b2", "1.5", "-1"])
def test_numbers_of_threads(word: str) -> None:
    with pytest.raises(UserError, match="--threads: found .*, expected whole numbers of at least 1"):
        parse_threads([word])


def test_the_size_of_a_hub_model_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_bytes("organization/model", with_ranges=True) is None


def test_without_matplotlib(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else real(name))
    code, _ = compare(folder, tmp_path, "--rows", "onnxruntime-fp32", "--max_examples=3")
    messages = capsys.readouterr().err.splitlines()
    said = [number for number, line in enumerate(messages) if "there will be no report.html: matplotlib" in line]
    assert code == 0 and said and said[0] < next(n for n, line in enumerate(messages) if "row 1 of 1" in line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rows", "onx*"], "--rows: 'onx\\*' fits no row; expected .*onnxruntime-int8"),
        (["--batches", "8by128"], "--batches: found '8by128', expected rows x positions"),
        (["--threads", "0"], "--threads: found '0'"),
        (["--baseline=pytorch-fp16"], "--baseline=pytorch-fp16 is no row that is measured"),
        (["--checkpoint=nowhere.ckpt"], "nowhere.ckpt does not exist"),
        (["--checkpoint"], "--checkpoint was given no value"),
    ],
)
def test_bad_flags(flags: list[str], sentence: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        compare(folder, tmp_path, *flags)


def test_required_flags() -> None:
    with pytest.raises(UserError, match="--checkpoint is required"):
        main(["compare", "--data=x", "--output=y"])


def test_a_process_that_cannot_go_on(folder: Path, tmp_path: Path) -> None:
    process = RowProcess(ModelSpec("onnxruntime", str(tmp_path / "no.onnx"), session=SESSION), 1)
    try:
        with pytest.raises(RowError, match="onnxruntime cannot load .*no.onnx") as caught:
            process.wait_until_ready()
        assert not caught.value.defect
    finally:
        process.close()
    process = RowProcess(ModelSpec("pytorch", f"{folder}/squad", task="squad"), 1)
    try:
        process.wait_until_ready()
        process.process.kill()
        with pytest.raises(RowError, match="killed .signal 9.*memory is full") as caught:
            process.predict({})
        assert caught.value.defect
    finally:
        process.close()


SESSION = {"target": "onnxruntime", "reduce_range": "true"}


def test_the_memory_is_the_row_s_own(folder: Path, tmp_path: Path) -> None:
    """What the parent holds is not counted, though getrusage would; and the process sees its number of threads."""
    ballast = np.ones(60_000_000)  # 480 MB, written to
    process = RowProcess(ModelSpec("pytorch", f"{folder}/squad", task="squad"), 1)
    try:
        process.wait_until_ready()
        assert 50e6 < process.peak_bytes() < 0.9 * ballast.nbytes
        variables = Path(f"/proc/{process.process.pid}/environ")
        if variables.exists():
            assert b"OMP_NUM_THREADS=1" in variables.read_bytes().split(b"\0")
    finally:
        process.close()


def test_help(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "export", "compare", "--help"]
    root = Path(__file__).resolve().parents[2]
    text = subprocess.run(words, capture_output=True, text=True, cwd=root, check=True).stdout
    assert "--rounds N" in text and "Default: 1x128 8x128 1x384." in text
