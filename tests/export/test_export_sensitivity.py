"""python -m export sensitivity: costs against a plain computation, and a list that does what it promises."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_export_check import QUICK, folder, torch  # noqa: F401 (fixtures)

from backends import create_backend
from checkpoints.checkpoint import load_checkpoint
from checkpoints.hugging_face import write_hugging_face
from checkpoints.names import QUESTION_ANSWERING
from export.__main__ import main
from export.runtime import read_model
from export.sensitivity.costs import QuantizedTensor, TensorCost, quantized_tensors
from export.sensitivity.search import find_exclusion
from quantization.exclusion import exclude
from quantization.modes import enabled_quantizers, get_mode
from quantization.ranges import select_ranges
from tasks.squad import SquadTask
from twinquant.errors import UserError


class FakeEvaluator:
    """A score that drops by the sum of what the tensors cost that are not left out."""

    def __init__(self, drops: dict[str, float]) -> None:
        self.drops = drops
        self.passes = 0

    def evaluate(self, excluded) -> tuple[float, float]:
        self.passes += 1
        drop = sum(drop for scope, drop in self.drops.items() if scope not in set(excluded))
        return drop, drop


def costs_of(drops: dict[str, float], order: str) -> list[TensorCost]:
    return [TensorCost(QuantizedTensor(name, (name,)), drops[name], drops[name]) for name in order]


@pytest.mark.parametrize(
    ("max_drop", "order", "expected"),
    [
        pytest.param(10.0, "abcd", "", id="nothing-needed"),
        pytest.param(3.5, "abcd", "a", id="the-largest"),
        pytest.param(1.5, "abcd", "ab", id="two"),
        pytest.param(0.0, "abcd", "abcd", id="everything"),
        pytest.param(3.5, "dcba", "a", id="wrong-order-is-pruned"),
    ],
)
def test_search_finds_the_shortest_list(max_drop, order, expected):
    drops = {"a": 4.0, "b": 2.0, "c": 1.0, "d": 0.5}
    evaluator = FakeEvaluator(drops)
    found = find_exclusion(evaluator, costs_of(drops, order), max_drop)
    assert "".join(found.scopes) == expected
    assert found.quantized_drop == 7.5
    assert found.drop == pytest.approx(sum(drops[name] for name in drops if name not in expected))
    assert evaluator.passes <= 1 + 3 + 4


@pytest.mark.parametrize("mode", ["ft1", "ft2", "ft3", "trt", "ort"])
def test_every_quantizer_belongs_to_one_tensor(mode):
    tensors = quantized_tensors(get_mode(mode), 3)
    scopes = [scope for tensor in tensors for scope in tensor.scopes]
    assert sorted(scopes) == sorted(enabled_quantizers(3, get_mode(mode)))
    shared = [tensor for tensor in tensors if len(tensor.scopes) > 1]
    assert [tensor.name for tensor in shared] == [
        f"bert/encoder/layer_{layer}/attention/self/{{query,key,value}}/input_quantizer" for layer in range(3)
    ]
    assert len({tensor.name for tensor in tensors}) == len(tensors)


def run(folder: Path, *flags: str) -> tuple[dict, Path]:  # noqa: F811
    output = folder / "report"
    arguments = [f"--checkpoint={folder}/squad", f"--data={folder}/questions.json", f"--output={output}"]
    length = [flag for flag in QUICK if not flag.startswith("--threads")]
    assert main(["sensitivity", *arguments, *length, "--quant_mode=ft2", "--backend=pytorch", *flags]) == 0
    return json.loads((output / "sensitivity.json").read_text()), output


def squad_task(folder: Path) -> SquadTask:  # noqa: F811
    return SquadTask(
        vocab_file=folder / "words.txt", do_lower_case=True, max_seq_length=48, vocab_size=97, max_query_length=10,
        max_position_embeddings=64, predict_file=str(folder / "questions.json"),
    )  # fmt: skip


def logits(folder: Path, words: list[str] | None) -> dict[str, list[np.ndarray]]:  # noqa: F811
    """Logits at tokens, one window at a time, with all quantizers of ft2 but those that `words` name, or in float."""
    checkpoint = load_checkpoint(str(folder / "squad"))
    backend = create_backend("pytorch", checkpoint.config, QUESTION_ANSWERING)
    backend.load(checkpoint.tensors)
    mode = get_mode("ft2")
    if words is not None:
        ranges = select_ranges(checkpoint.ranges, checkpoint.tensors, mode, "tiny")
        backend.set_quantization(exclude(mode, words, checkpoint.config.num_hidden_layers) if words else mode, ranges)
    features = squad_task(folder).prediction_sets()[0].features()
    found: dict[str, list[np.ndarray]] = {"start_logits": [], "end_logits": []}
    for row in range(len(features)):
        batch = {name: array for name, array in features.batch([row]).items() if "position" not in name}
        for name, values in backend.predict(batch).items():
            found[name].append(values[0])
    return found


def mean_difference(one: dict, other: dict) -> float:
    return float(np.mean(np.concatenate([np.abs(a - b) for name in one for a, b in zip(one[name], other[name])])))  # noqa: B905


def test_costs_are_what_a_plain_computation_gives(folder):  # noqa: F811
    report, _ = run(folder, "--also_without", "--max_drop=100")
    assert report["excluded"] == [] and report["rows"] == 12
    real = logits(folder, None)
    assert report["quantized_error"] == pytest.approx(mean_difference(logits(folder, []), real), rel=1e-3)
    by_name = {entry["tensor"]: entry for entry in report["tensors"]}
    assert len(by_name) == len(quantized_tensors(get_mode("ft2"), 2))
    name = "bert/encoder/layer_1/output/dense/aftergemm_quantizer"
    without = logits(folder, [name])
    assert by_name[name]["without_error"] == pytest.approx(mean_difference(without, real), rel=1e-3)
    others = [scope for scope in enabled_quantizers(2, get_mode("ft2")) if scope != name]
    alone = logits(folder, others)
    assert by_name[name]["alone_error"] == pytest.approx(mean_difference(alone, real), rel=1e-3)
    errors = [entry["alone_error"] for entry in report["tensors"]]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0


def harm(folder: Path, scope: str) -> None:  # noqa: F811
    """Makes the float model's answers the right ones, and one range much too small, so that rounding costs score."""
    path = folder / "questions.json"
    task = squad_task(folder)
    real = logits(folder, None)
    task.prediction_sets()[0].finish(real, folder / "answers")
    answers = json.loads((folder / "answers/predictions.json").read_text())
    content = json.loads(path.read_text())
    for paragraph in content["data"][0]["paragraphs"]:
        for question in paragraph["qas"]:
            text = answers[question["id"]]
            question["answers"] = [{"text": text, "answer_start": paragraph["context"].index(text)}]
    path.write_text(json.dumps(content))
    checkpoint = load_checkpoint(str(folder / "squad"))
    checkpoint.ranges[scope] = np.float32(0.01)
    write_hugging_face(folder / "squad", checkpoint)


def test_the_list_is_taken_by_the_exporter(folder, capsys):  # noqa: F811
    harmful = "bert/encoder/layer_1/output/dense/aftergemm_quantizer"
    harm(folder, harmful)
    report, output = run(folder, "--max_drop=1", "--top=3")
    assert report["float_score"] == 100.0
    assert report["quantized_drop"] > 1 >= report["excluded_drop"] == pytest.approx(0, abs=1)
    assert report["tensors"][0]["tensor"] == harmful and harmful in report["excluded"]
    printed = capsys.readouterr().out
    assert printed.count("| bert/encoder/") == 3 and str(output / "quant_exclude.txt") in printed
    model = folder / "onnx"
    flags = ["--precision=int8", "--quant_mode=ft2", f"--quant_exclude={output}/quant_exclude.txt", "--reduce_range"]
    assert main(["onnx", f"--checkpoint={folder}/squad", f"--output={model}", "--threads=1", *flags]) == 0
    metadata = read_model(model / "model.onnx")[1]
    assert metadata.mode == dataclasses.replace(get_mode("ft2"), excluded=frozenset(report["excluded"]))
    assert main(["check", f"--model={model}", f"--checkpoint={folder}/squad", "--threads=1"]) == 0


def test_what_is_off_from_the_start_stays_off(folder):  # noqa: F811
    """And is in the list, which takes the place of the one that it was given by."""
    flag = "--quant_exclude=layer_*/output/dense/aftergemm_quantizer"
    report, output = run(folder, flag, "--max_drop=100")
    off = [f"bert/encoder/layer_{layer}/output/dense/aftergemm_quantizer" for layer in range(2)]
    assert report["quant_exclude"] == off and not set(off) & {entry["tensor"] for entry in report["tensors"]}
    mode = exclude(get_mode("ft2"), [str(output / "quant_exclude.txt")], 2)
    assert mode.excluded == frozenset(off)
    words = [scope for scope in enabled_quantizers(2, get_mode("ft2")) if scope not in report["tensors"][0]["scopes"]]
    expected = mean_difference(logits(folder, words), logits(folder, None))
    assert report["tensors"][0]["alone_error"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--quant_exclude=layer_9"], "'layer_9', which is no file either", id="pattern"),
        pytest.param(["--max_drop=-1"], "--max_drop", id="negative-drop"),
        pytest.param(["--task_name=MRPC"], "is for classification", id="other-task"),
    ],
)
def test_bad_input(folder, flags, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        run(folder, *flags)
    assert not (folder / "report/quant_exclude.txt").exists()


def test_uncalibrated_checkpoint(folder):  # noqa: F811
    for path in (folder / "squad").glob("*ranges*"):
        path.unlink()
    with pytest.raises(UserError, match="was never calibrated"):
        run(folder)
