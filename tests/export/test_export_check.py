"""python -m export check: what it reports, and when it fails."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_bert import require
from tiny_exports import LABELS, tiny_checkpoint

from checkpoints.hugging_face import write_hugging_face
from export.__main__ import main
from export.check import Comparison
from export.flags import parse_check_flags
from export.settings import ExportSettings
from export.verdict import Bounds, Verdict
from quantization.modes import get_mode
from twinquant.errors import UserError

WORDS = "water river bridge stone engine museum village market winter garden letter music island forest north".split()
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"filler{n}" for n in range(97 - 5 - len(WORDS)))]
QUICK = ["--max_seq_length=48", "--max_query_length=10", "--threads=1"]


@pytest.fixture(autouse=True)
def torch() -> None:
    require("pytorch")
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """squad and glue: checkpoints with ranges for ft2 and a vocabulary; questions.json; MRPC/ with a dev set."""
    (tmp_path / "words.txt").write_text("\n".join(TOKENS) + "\n")
    for task in ("squad", "glue"):
        checkpoint = tiny_checkpoint(task, "ft2")
        if task == "glue":
            checkpoint.tensors["output_weights"] = checkpoint.tensors["output_weights"][:2]
            checkpoint.tensors["output_bias"] = checkpoint.tensors["output_bias"][:2]
            assert checkpoint.config is not None
            checkpoint.config = checkpoint.config.with_labels(["0", "1"])
        checkpoint.vocab_file = tmp_path / "words.txt"
        write_hugging_face(tmp_path / task, checkpoint)
    rng = np.random.default_rng(0)
    paragraphs = []
    for number in range(6):
        words = rng.choice(WORDS, 30).tolist()
        answers = [{"text": words[5], "answer_start": len(" ".join(words[:5])) + 1}]
        questions = [
            {"id": f"{number}-{q}", "question": " ".join(rng.choice(WORDS, 4)), "answers": answers} for q in "ab"
        ]
        paragraphs.append({"context": " ".join(words), "qas": questions})
    (tmp_path / "questions.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    (tmp_path / "MRPC").mkdir()
    rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    rows += [
        f"{row % 2}\t{row}\t{row}\t{' '.join(rng.choice(WORDS, 6))}\t{' '.join(rng.choice(WORDS, 5))}"
        for row in range(12)
    ]
    (tmp_path / "MRPC/dev.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def export(folder: Path, task: str, *flags: str) -> None:
    assert main(["onnx", f"--checkpoint={folder}/{task}", f"--output={folder}/{task}-onnx", "--nocheck", *flags]) == 0


def check(folder: Path, task: str, *flags: str) -> tuple[int, dict]:
    words = [f"--model={folder}/{task}-onnx", f"--checkpoint={folder}/{task}", f"--json_summary={folder}/out.json"]
    code = main(["check", *words, *QUICK, *flags])
    return code, json.loads((folder / "out.json").read_text())


INT8 = ["--precision=int8", "--quant_mode=ft2", "--cpu=avx2"]


@pytest.mark.parametrize("flags", [[], INT8], ids=["fp32", "int8"])
def test_questions(flags: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(folder, "squad", *flags)
    capsys.readouterr()
    code, report = check(folder, "squad", f"--data={folder}/questions.json")
    text, messages = capsys.readouterr()
    assert code == 0, text
    assert "predictions" not in messages  # of files that nobody can find
    assert report["passed"] and report["comparison"]["answers"] == 12
    assert report["comparison"]["equal_percent"] == 100.0 and report["comparison"]["largest"] < 1e-4
    assert set(report["comparison"]["model_scores"]) == {"exact_match", "f1"}
    assert "answers: 0 of 12 differ (100.00 % are equal)" in text and text.splitlines()[-1] == "passed"
    assert re.search(r"^f1: \S+ of the model, \S+ of the checkpoint$", text, re.MULTILINE)
    share = float(re.search(r"([\d.]+) % of the multiplications in int8", text)[1])  # type: ignore[index]
    assert share > 98 if flags else share == 0
    size = (folder / "squad-onnx/model.onnx").stat().st_size
    assert sum(report["file_bytes"].values()) == size
    kernels = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert kernels <= report["file_bytes"].get("int8", 0) < kernels + 100 if flags else True


def test_tensorflow(folder: Path) -> None:
    """The other backend; without compiling, which takes most of the time of so small a model."""
    tensorflow = pytest.importorskip("tensorflow")
    export(folder, "squad", *INT8)
    tensorflow.config.run_functions_eagerly(True)
    try:
        code, report = check(folder, "squad", f"--data={folder}/questions.json", "--backend=tensorflow")
    finally:
        tensorflow.config.run_functions_eagerly(False)
    assert code == 0 and report["comparison"]["largest"] < 1e-4 and max(report["layer_differences"]) < 0.05


def test_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    export(folder, "glue", *INT8)
    code, report = check(folder, "glue", f"--data={folder}/MRPC", "--task_name=MRPC")
    assert code == 0, report
    assert report["comparison"]["answers"] == 12 and report["comparison"]["equal_answers"] == 12
    assert set(report["comparison"]["model_scores"]) == {"acc", "f1", "acc_and_f1"}
    code, report = check(folder, "glue", f"--data={folder}/MRPC", "--task_name=MRPC", "--max_examples=5")
    assert code == 0 and report["comparison"]["answers"] == 5


def test_a_reference_that_pads_further(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint on a GPU is predicted in longer batches than the model under onnxruntime."""
    export(folder, "squad")
    found = check(folder, "squad", f"--data={folder}/questions.json")
    for backend in ("pytorch.backend.PyTorchBackend", "tensorflow.backend.TensorFlowBackend"):
        monkeypatch.setattr(f"backends.{backend}.length_multiple", 16)
    code, report = check(folder, "squad", f"--data={folder}/questions.json")
    assert code == found[0] == 0
    assert report["comparison"]["model_scores"] == found[1]["comparison"]["model_scores"]


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl"])
def test_texts_of_ones_own(folder: Path, name: str) -> None:
    """As run_glue.py reads them, with the classes of the checkpoint."""
    pytest.importorskip("sklearn")
    rows = [line.split("\t") for line in (folder / "MRPC/dev.tsv").read_text().splitlines()[1:]]
    if name.endswith("csv"):
        lines = ["grade,first,second", *(f"{row[0]},{row[3]},{row[4]}" for row in rows)]
    else:
        lines = [json.dumps({"grade": row[0], "first": row[3], "second": row[4]}) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    flags = [f"--data={folder}/{name}", "--label_column=grade", "--text_column", "first", "second"]
    words = [f"--checkpoint={folder}/glue", f"--output={folder}/glue-onnx", *INT8, *QUICK]
    assert main(["onnx", *words, *flags, "--max_examples=4"]) == 0
    code, report = check(folder, "glue", *flags)
    assert code == 0 and report["comparison"]["answers"] == 12, report
    assert set(report["comparison"]["model_scores"]) == {"acc", "f1"}
    mrpc = check(folder, "glue", f"--data={folder}/MRPC", "--task_name=MRPC")[1]
    assert report["comparison"]["model_scores"]["acc"] == mrpc["comparison"]["model_scores"]["acc"]
    with pytest.raises(UserError, match="the label is .*expected one of '0', '1'"):
        check(folder, "glue", f"--data={folder}/{name}", "--label_column=first", "--text_column=second")


def test_values_of_a_regression_are_compared_by_their_score(folder: Path) -> None:
    """Two runtimes' values are never quite equal."""
    pytest.importorskip("scipy")
    checkpoint = tiny_checkpoint("glue", "ft2")
    for name in ("output_weights", "output_bias"):
        checkpoint.tensors[name] = checkpoint.tensors[name][:1]
    assert checkpoint.config is not None
    checkpoint.config = checkpoint.config.with_labels(["LABEL_0"])
    checkpoint.vocab_file = folder / "words.txt"
    write_hugging_face(folder / "values", checkpoint)
    (folder / "STS-B").mkdir()
    rng = np.random.default_rng(1)
    rows = [
        [str(row), *["x"] * 6, *(" ".join(rng.choice(WORDS, 6)) for _ in "ab"), f"{row / 3:.3f}"] for row in range(12)
    ]
    lines = ["\t".join(["index", *["x"] * 6, "sentence1", "sentence2", "score"]), *("\t".join(row) for row in rows)]
    (folder / "STS-B/dev.tsv").write_text("\n".join(lines) + "\n")
    export(folder, "values", *INT8)
    code, report = check(folder, "values", f"--data={folder}/STS-B", "--task_name=STS-B", "--max_score_difference=5")
    assert code == 0, report
    assert report["comparison"]["answers"] == 0 and report["comparison"]["rows"] == 12
    assert report["comparison"]["largest"] > 0 and "pearson" in report["comparison"]["model_scores"]


@pytest.mark.parametrize("flags", [[], INT8, ["--precision=int8-dynamic"], [*INT8, "--target=openvino"]], ids=str)
def test_random_tokens(flags: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(folder, "squad", *flags)
    code, report = check(folder, "squad")
    assert code == 0, report
    assert report["comparison"]["answers"] == 0 and report["comparison"]["rows"] == 7
    assert (report["comparison"]["relative"] is None) == (flags == [])
    assert any("openvino" in note for note in report["notes"]) == ("--target=openvino" in flags)


def change(path: Path, name: str, factor: float) -> None:
    """Multiplies a constant of the model."""
    model = onnx.load(path)
    for constant in model.graph.initializer:
        if constant.name == name:
            array = numpy_helper.to_array(constant) * np.asarray(factor)
            constant.raw_data = array.astype(numpy_helper.to_array(constant).dtype).tobytes()
            onnx.save(model, path)
            return
    raise AssertionError(f"no constant {name}")


def test_a_wrong_model_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(folder, "squad")
    change(folder / "squad-onnx/model.onnx", "bert/encoder/layer_1/output/dense/bias", 1.1)
    code, report = check(folder, "squad")
    assert code == 1 and not report["passed"]
    assert re.search(r"logits differ by up to \S+, --max_logit_difference is 0.0001", report["failures"][0])
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAILED: logits differ")
    assert check(folder, "squad", "--max_logit_difference=10")[0] == 0


def test_a_wrong_scale_fails(folder: Path) -> None:
    export(folder, "squad", *INT8)
    change(folder / "squad-onnx/model.onnx", "bert/encoder/layer_0/intermediate/dense/kernel/scale", 3.0)
    code, report = check(folder, "squad")
    assert code == 1 and report["layer_differences"][0] > 0.5 > report["layer_differences"][1]
    expected = r"layer 0 differs by \S+ of what quantization changes in it, --max_layer_difference is 0.1"
    assert re.search(expected, report["failures"][0])
    flags = ["--max_layer_difference=100", "--max_relative_difference=0.01"]
    failures = check(folder, "squad", *flags)[1]["failures"]
    assert re.search("of what quantization changes, --max_relative_difference is 0.01", failures[0])
    flags = ["--max_layer_difference=100", f"--data={folder}/questions.json"]
    failures = check(folder, "squad", *flags)[1]["failures"]
    assert re.search("% of 12 answers are equal, --min_equal_answers is 99.9", failures[0]), failures
    assert check(folder, "squad", *flags, "--min_equal_answers=0", "--max_score_difference=100")[0] == 0


def test_another_checkpoint_fails(folder: Path) -> None:
    export(folder, "squad", *INT8)
    other = tiny_checkpoint("squad", "ft2", seed=1)
    write_hugging_face(folder / "other", other)
    words = ["check", f"--model={folder}/squad-onnx/model.onnx", f"--json_summary={folder}/out.json"]
    assert main([*words, f"--checkpoint={folder}/other"]) == 1
    failures = json.loads((folder / "out.json").read_text())["failures"]
    assert failures == [f"the model was made from other weights than those of {folder}/other"]
    same = tiny_checkpoint("squad", "ft2")
    same.ranges["bert/encoder/layer_0/intermediate/dense/input_quantizer"] *= np.float32(2)
    write_hugging_face(folder / "other", same)
    assert main([*words, f"--checkpoint={folder}/other"]) == 1
    failures = json.loads((folder / "out.json").read_text())["failures"]
    assert failures == [f"the model was made with other ranges than those of {folder}/other"]


def test_the_check_at_the_end_takes_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["onnx", f"--checkpoint={folder}/squad", f"--output={folder}/new", *INT8, *QUICK]
    assert main([*words, f"--check_data={folder}/questions.json", "--check_examples=4"]) == 0
    assert "answers: 0 of 4 differ" in capsys.readouterr().err


def test_the_bound_is_told_whether_it_holds_or_not() -> None:
    """A reader of "passed" on 32 examples shall know why two of 94 fail, and what to do then."""
    settings = ExportSettings("int8", get_mode("ft1"), reduce_range=True)
    bound = "must be equal, and a single one may always differ"
    for equal, passes in ((31, True), (30, False)):
        verdict = Verdict(settings, Comparison(1, 5.0, 0, answers=32, equal_answers=equal))
        verdict.judge(Bounds())
        (answers,) = [line for line in verdict.lines() if line.startswith("answers: ")]
        assert answers.endswith(f"of the checkpoint with weights of 7 bits as well; at least 99.9 % {bound}")
        assert verdict.lines()[-1] == "passed" if passes else "--min_equal_answers=90" in verdict.lines()[-1]
    assert verdict.lines()[-1].startswith("next: a share of more examples")
    plain = Verdict(ExportSettings(), Comparison(1, 2e-4, 0, answers=32, equal_answers=31))
    plain.judge(Bounds())
    assert plain.failures and not plain.next_step and "answers: 1 of 32 differ (96.88 % are equal)" in plain.lines()
    guessed = Verdict(settings, Comparison(1, 5.0, 0, relative=3.0))
    guessed.judge(Bounds())
    assert guessed.lines()[-1].startswith("next: logits of random tokens say little: check on data")
    chosen = Verdict(settings, Comparison(1, 5.0, 0, answers=32, equal_answers=31))
    chosen.judge(Bounds(min_equal_answers=50.0, one_may_differ=False))
    assert any(line.endswith("as well; at least 50 % must be equal") for line in chosen.lines())


@pytest.mark.parametrize(
    ("comparison", "settings", "broken"),
    [
        (Comparison(1, 9e-5, 0), ExportSettings(), False),
        (Comparison(1, 2e-4, 0), ExportSettings(), True),
        (Comparison(1, float("nan"), 0), ExportSettings(), True),
        (Comparison(1, 5.0, 0, answers=1000, equal_answers=999), ExportSettings("int8", get_mode("ft1")), False),
        (Comparison(1, 5.0, 0, answers=1000, equal_answers=998), ExportSettings("int8", get_mode("ft1")), True),
        # One answer of a sample, with what it does to the score, breaks nothing; two do.
        (
            Comparison(1, 5.0, 0, answers=32, equal_answers=31, main_scores=(88.0, 91.1)),
            ExportSettings("int8", get_mode("ft1")),
            False,
        ),
        (
            Comparison(1, 5.0, 0, answers=32, equal_answers=30, main_scores=(88.0, 88.0)),
            ExportSettings("int8", get_mode("ft1")),
            True,
        ),
        (Comparison(1, 0, 0, main_scores=(88.0, 88.09)), ExportSettings("int8", get_mode("ft1")), False),
        (Comparison(1, 0, 0, main_scores=(88.0, 88.2)), ExportSettings("int8", get_mode("ft1")), True),
        (Comparison(1, 0, 0, relative=float("nan")), ExportSettings("int8", get_mode("ft1")), True),
    ],
)
def test_bounds(comparison: Comparison, settings: ExportSettings, broken: bool) -> None:
    verdict = Verdict(settings, comparison)
    verdict.judge(Bounds())
    assert bool(verdict.failures) is broken, verdict.failures


@pytest.mark.parametrize("flag", ["--min_equal_answers=99.9", "--max_score_difference=0.1"])
def test_a_bound_that_is_given_is_kept_to_the_answer(flag: str) -> None:
    bounds = parse_check_flags(["--model=m", "--checkpoint=c", "--data=d", flag]).bounds("int8")
    verdict = Verdict(
        ExportSettings("int8", get_mode("ft1")),
        Comparison(1, 5.0, 0, answers=32, equal_answers=31, main_scores=(88.0, 91.1)),
    )
    verdict.judge(bounds)
    assert len(verdict.failures) == 2, verdict.failures


def test_labels_of_the_wrong_task(folder: Path) -> None:
    from twinquant.errors import UserError

    write_hugging_face(folder / "three", tiny_checkpoint("glue", "ft2"))
    assert len(LABELS) == 3
    export(folder, "three")
    flags = [f"--data={folder}/MRPC", "--task_name=MRPC", f"--vocab_file={folder}/words.txt"]
    with pytest.raises(UserError, match="--task_name=MRPC has 2 labels, .*three has 3"):
        check(folder, "three", *flags)
    with pytest.raises(UserError, match="MRPC/dev.tsv is not a folder; --task_name=MRPC reads the folder of"):
        check(folder, "three", *[word.replace("/MRPC", "/MRPC/dev.tsv") for word in flags])
