"""What fuzzing found, each as a plain example: these files once ended in a traceback, a hang or a wrong sentence."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from readers import READERS, ROW, make_bundle, make_calibration, make_onnx, make_shards, make_state, prepare

from checkpoints.checkpoint import load_checkpoint
from checkpoints.checkpoint_state import write_checkpoint_state
from checkpoints.config import BertConfig
from checkpoints.tf_bundle import BundleReader, write_bundle
from export.commands import run_check
from export.compare import unfinished
from tasks.squad_examples import read_squad_examples
from tasks.text_classification import OwnDataSource
from training.evaluations import Evaluations
from training.saves import RunFolder
from twinquant.arguments_file import split_arguments_file
from twinquant.errors import UserError
from twinquant.main import LONGEST_LINE, one_line, run_main
from twinquant.model_files import trained_model_in
from twinquant.squad_flags import parse_squad_flags

DEEP = "[" * 100_000
DIGITS = "9" * 5000


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, expected at most 1000"),
        ("vocab_size", 2**31, "vocab_size is 2147483648, expected at most 2147483647"),
        ("initializer_range", 10**400, "initializer_range is 1000+, expected a number"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps is nan, expected a number"),
        ("hidden_act", "a" * 5000, "hidden_act is 'a{39}, expected one of"),
        ("id2label", {str(n): "x" * 100 for n in range(1, 99)}, "id2label is .{200}, expected an object"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_config(tmp_path: Path, key: str, value: object, sentence: str) -> None:
    """A billion layers took all memory: their tensors were named before the first was looked for."""
    make_bundle(tmp_path)
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=f"bert_config.json: {sentence}"):
        load_checkpoint(tmp_path / "model.ckpt-7")


@pytest.mark.parametrize(
    "text", [DEEP, f'{{"vocab_size": {DIGITS}}}', '{"a": "\\ud800"}'], ids=["deep", "digits", "half"]
)
def test_text_of_a_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        BertConfig.from_json_file(tmp_path / "config.json")


def test_an_index_of_shards_that_lists_itself(tmp_path: Path) -> None:
    """It was opened without end."""
    make_shards(tmp_path)
    path = tmp_path / "model/model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["x"] = path.name
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="lists model.safetensors.index.json, which is an index itself"):
        load_checkpoint(tmp_path / "model")


def test_folders_that_name_each_other(tmp_path: Path) -> None:
    for name, other in (("a", "../b"), ("b", "../a")):
        (tmp_path / name).mkdir()
        write_checkpoint_state(tmp_path / name, other, [other])
    with pytest.raises(UserError, match="checkpoint names .*b, a folder that holds no weights"):
        load_checkpoint(tmp_path / "a")
    assert trained_model_in(str(tmp_path / "a")) is not None
    with pytest.raises(UserError, match="--bert_config_file is required, and .*b holds no bert_config.json"):
        parse_squad_flags([f"--init_checkpoint={tmp_path}/a", f"--output_dir={tmp_path}/out", "--do_predict",
                           f"--predict_file={__file__}"])  # fmt: skip


@pytest.mark.parametrize("step", [np.zeros(0, np.int64), np.array([1, 2]), np.array(np.nan, np.float32)])
def test_global_step(tmp_path: Path, step: np.ndarray) -> None:
    make_bundle(tmp_path)
    reader = BundleReader(tmp_path / "model.ckpt-7")
    write_bundle(
        tmp_path / "model.ckpt-7", {name: reader.read(name) for name in reader.entries} | {"global_step": step}
    )
    with pytest.raises(UserError, match="global_step of .*model.ckpt-7.index is .*, expected one whole number"):
        load_checkpoint(tmp_path / "model.ckpt-7")


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '"x"'], ids=["list", "deep", "text"])
def test_the_fingerprint_of_a_training_state(tmp_path: Path, text: str) -> None:
    from safetensors.numpy import save_file

    make_state(tmp_path)
    save_file({"a": np.zeros(1)}, tmp_path / "out/model.ckpt-4.training_state.safetensors", {"fingerprint": text})
    with pytest.raises(UserError, match="model.ckpt-4.training_state.safetensors"):
        RunFolder(tmp_path / "out", "pytorch", 3).fingerprint(4)


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("bert/embeddings/LayerNorm/beta/adam_m", None, "beta/adam_m is missing, expected float32"),
        ("bert/embeddings/LayerNorm/beta/adam_v", np.zeros(3, np.float32), r"beta/adam_v is float32 \[3\], expected"),
        ("loss_scale", np.array([np.nan, 1]), r"loss_scale is \[nan  1.\], expected a scale above zero"),
    ],
)
def test_the_optimizer_of_a_training_state(tmp_path: Path, backend_name, name: str, array, sentence: str) -> None:
    """On both backends: KeyError and framework errors before."""
    from tiny_bert import make_backend

    make_state(tmp_path)
    checkpoint = load_checkpoint(tmp_path / "out/model.ckpt-4")
    backend = make_backend(backend_name, checkpoint.config, checkpoint.tensors)
    state = dict(backend.optimizer_state())
    if backend_name == "pytorch":
        state = dict(RunFolder(tmp_path / "out", "pytorch", 3).load(4)[1].optimizer)
    else:
        shapes = {each: array.shape for each, array in checkpoint.tensors.items()}
        slots = {f"{each}/adam_{s}": np.zeros(shape, np.float32) for each, shape in shapes.items() for s in "mv"}
        state |= slots
    backend.load_optimizer_state(state)
    state = {key: value for key, value in state.items() if key != name} | ({} if array is None else {name: array})
    with pytest.raises(UserError, match=sentence):
        backend.load_optimizer_state(state)


@pytest.mark.parametrize(
    "content", ["{}", '[{"step": true, "score": 1, "scores": {}}]', '[{"step": 1, "score": NaN, "scores": {}}]', DEEP,
                '[{"step": 1, "score": 1}]'], ids=["object", "step", "nan", "deep", "scores"],
)  # fmt: skip
def test_evaluations(tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluations.json").write_text(content)
    with pytest.raises(UserError, match="evaluations.json is not a list of evaluations"):
        Evaluations(RunFolder(tmp_path, "pytorch", 3), None, 5)


@pytest.mark.parametrize("text", [DEEP, f'{{"a": {DIGITS}}}'], ids=["deep", "digits"])
def test_calibration_json(tmp_path: Path, text: str) -> None:
    """It was taken for absent, or ended in a traceback."""
    from export.source import load_source

    make_calibration(tmp_path)
    (tmp_path / "model/calibration.json").write_text(text)
    with pytest.raises(UserError, match="calibration.json"):
        load_source(str(tmp_path / "model"))


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(f'{{"data": [], "version": {DIGITS}}}')
    with pytest.raises(UserError, match="squad.json is not SQuAD JSON: a number in it has thousands of digits"):
        read_squad_examples(tmp_path / "squad.json", True)
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "label": {DIGITS}}}\n')
    with pytest.raises(UserError, match="a.jsonl, line 1: a number in it has thousands of digits"):
        OwnDataSource(tmp_path / "a.jsonl").train()


def test_a_label_of_thousands_of_digits(tmp_path: Path) -> None:
    """It is a class like any other, the last in their order."""
    (tmp_path / "a.csv").write_text(f"text,label\na,{DIGITS}\nb,1\n")
    assert OwnDataSource(tmp_path / "a.csv").label_names == ["1", DIGITS]


def test_a_nested_file_of_arguments(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(DEEP)
    with pytest.raises(UserError, match="run.json is not a JSON file of arguments: it is nested too deeply"):
        split_arguments_file([str(tmp_path / "run.json")])


def test_a_name_too_long_for_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> None:
        Path("a" * 5000).is_file()

    assert run_main(main, "run") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("run: error: cannot use aaa") and printed.endswith(": File name too long\n")
    assert len(printed) < 3 * LONGEST_LINE and printed.count("\n") == 1


def test_other_system_errors_keep_their_traceback() -> None:
    def main(argv: object) -> None:
        raise FileNotFoundError(2, "No such file", "x")

    with pytest.raises(FileNotFoundError):
        run_main(main, "run")


def test_long_sentences_are_cut() -> None:
    assert one_line("a\n b") == "a b"
    cut = one_line("begin " + "x" * 9999 + " end")
    assert cut.startswith("begin x") and cut.endswith("x end") and "characters left out" in cut
    assert len(cut) < LONGEST_LINE + 40


def edit(path: Path, change) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def prop(key: str, value: str):
    def change(model: onnx.ModelProto) -> None:
        next(entry for entry in model.metadata_props if entry.key == f"twinquant.{key}").value = value

    return change


ONNX = {
    "precision": (prop("precision", "int7"), "its twinquant.precision is 'int7', expected one of 'fp32', 'int8',"),
    "task": (prop("task", "poetry"), "its twinquant.task is 'poetry', expected one of 'squad', 'glue'"),
    "mode": (prop("quant_mode", ""), "twinquant.precision 'int8' with twinquant.quant_mode '', and a mode belongs to"),
    "mode of no name": (prop("quant_mode", "ft9"), "model.onnx has the mode 'ft9', which cannot be checked"),
    "excluded": (prop("quant_exclude", "{"), "its twinquant.quant_exclude is no JSON list of names"),
    "type of a constant": (
        lambda model: setattr(model.graph.initializer[0], "data_type", 99), "the constant .* has the unknown type 99"
    ),
    "shape of a constant": (
        lambda model: model.graph.initializer[0].dims.append(3), "the constant .* of shape .* takes .* bytes, expected"
    ),
    "data elsewhere": (
        lambda model: model.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd"),
        "lies in '../../etc/passwd', expected a file beside the model",
    ),
    "an operator that is none": (
        lambda model: setattr(model.graph.node[0], "op_type", "Poem"), "onnxruntime cannot load .*model.onnx"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), ONNX.values(), ids=ONNX)
def test_onnx(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, change, sentence: str) -> None:
    pytest.importorskip("torch")
    made = tmp_path_factory.getbasetemp() / "onnx-finds"
    if not made.exists():
        made.mkdir()
        make_onnx(made)
    shutil.copytree(made, tmp_path / "in")
    edit(tmp_path / "in/onnx/model.onnx", change)
    with pytest.raises(UserError, match=sentence):
        run_check([f"--model={tmp_path}/in/onnx", f"--checkpoint={tmp_path}/in/model", "--threads=1"])


def test_a_name_in_onnx_that_is_no_text(tmp_path: Path) -> None:
    make_onnx(tmp_path)
    path = tmp_path / "onnx/model.onnx"
    path.write_bytes(path.read_bytes().replace(b"twinquant.vnni", b"twinquant.vn\xff\xff"))
    with pytest.raises(UserError, match="model.onnx is damaged"):
        run_check([f"--model={tmp_path}/onnx", f"--checkpoint={tmp_path}/model"])


@pytest.mark.parametrize(("name", "value"), [("answers", []), ("main_metric", 1), ("seconds", 0), ("rows", None)])
def test_a_row_of_an_interrupted_comparison(tmp_path: Path, name: str, value: object) -> None:
    """A damaged one is measured anew."""
    unfinished.save(tmp_path, "0", ROW)
    assert unfinished.load(tmp_path, "0") == ROW
    path = tmp_path / "unfinished/0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert unfinished.load(tmp_path, "0") is None


def test_every_reader_takes_its_valid_file(tmp_path: Path) -> None:
    """Without this, a fuzz test could pass by refusing everything."""
    pytest.importorskip("torch")
    for number, reader in enumerate(READERS.values()):
        prepare(reader, tmp_path / str(number))
