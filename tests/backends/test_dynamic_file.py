"""Saving and loading dynamic int8 models: really int8, no pickle, bit-equal in a fresh process, clear refusals."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")

from dynamic_models import BATCH, HEADS, float_backend, tensors_of  # noqa: E402

from backends.pytorch import dynamic_torch  # noqa: E402
from backends.pytorch.dynamic import DynamicModel, DynamicSettings  # noqa: E402
from backends.pytorch.dynamic_report import TableRow, size_report, speed, table  # noqa: E402
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING  # noqa: E402
from checkpoints.safetensors_file import write_safetensors  # noqa: E402
from twinquant.errors import UserError  # noqa: E402

WEIGHTS, DESCRIPTION = "model_int8.safetensors", "dynamic.json"
FRESH_PROCESS = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
from backends.pytorch.dynamic import DynamicModel
batch = dict(np.load(sys.argv[1]))
for folder in sys.argv[2:]:
    np.savez(folder + "/logits.npz", **DynamicModel.load(folder).predict(batch))
"""


def saved(folder: Path, head: str = CLASSIFICATION, **settings) -> DynamicModel:
    model = DynamicModel.from_backend(float_backend(head), DynamicSettings(**settings))
    model.save(folder)
    return model


def test_a_fresh_process_gives_the_same_logits(tmp_path):
    choices = [{"engine": engine, "per_channel": engine != "onednn"} for engine in dynamic_torch.available_engines()]
    choices += [{"per_row": True}, {"engine": "onednn", "per_row": True, "per_channel": True}]
    if torchao_is_there():
        choices += [{"library": "torchao", "per_channel": True}, {"library": "torchao", "per_row": True}]
    np.savez(tmp_path / "batch.npz", **BATCH)
    models = {}
    for number, choice in enumerate(choices):
        head = list(HEADS)[number % 2]
        models[str(tmp_path / str(number))] = saved(tmp_path / str(number), head, **choice)
    command = [sys.executable, "-c", FRESH_PROCESS, str(tmp_path / "batch.npz"), *models]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    for folder, model in models.items():
        with np.load(folder + "/logits.npz") as found:
            for name, logits in model.predict(BATCH).items():
                np.testing.assert_array_equal(found[name], logits, err_msg=f"{model.settings}")


def torchao_is_there() -> bool:
    try:
        import torchao  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("per_channel", [False, True], ids=["per_tensor", "per_channel"])
def test_the_weights_in_the_file_are_int8(tmp_path, per_channel):
    saved(tmp_path, per_channel=per_channel)
    tensors = safetensors.numpy.load_file(tmp_path / WEIGHTS)
    floats = tensors_of(CLASSIFICATION)
    kernels = [name for name in floats if name.endswith("/kernel")]
    assert len(kernels) == 2 * 6 + 1  # the pooler's too
    for name in kernels:
        integers, scale = tensors.pop(name), tensors.pop(f"{name}_scale")
        assert integers.dtype == np.int8 and integers.shape == floats[name].shape[::-1]
        assert scale.shape == ((len(integers),) if per_channel else ())
        error = np.abs(integers * scale.reshape(-1, 1) - floats.pop(name).T)
        assert (error <= 0.51 * scale.reshape(-1, 1)).mean() > 0.9 and error.max() <= 1.01 * scale.max()
    assert tensors.keys() == floats.keys()
    assert all(np.array_equal(array, floats[name]) for name, array in tensors.items())


def test_the_files_hold_no_pickle_and_say_what_they_are(tmp_path):
    saved(tmp_path, engine="fbgemm", per_row=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [DESCRIPTION, WEIGHTS]
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    assert description["settings"] == {"engine": "fbgemm", "library": "torch", "per_channel": False, "per_row": True}
    assert description["engine"] == "fbgemm"
    assert (description["head"], description["num_labels"]) == (CLASSIFICATION, 3)


def test_saving_again_replaces_the_files(tmp_path):
    saved(tmp_path, QUESTION_ANSWERING)
    expected = saved(tmp_path, CLASSIFICATION, per_channel=True).predict(BATCH)
    np.testing.assert_array_equal(DynamicModel.load(tmp_path).predict(BATCH)["logits"], expected["logits"])


def test_a_loaded_model_saves_the_same_files(tmp_path):
    saved(tmp_path / "first", per_channel=True)
    DynamicModel.load(tmp_path / "first").save(tmp_path / "second")
    assert (tmp_path / "first" / WEIGHTS).read_bytes() == (tmp_path / "second" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(tmp_path, name, share):
    saved(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert_refused(tmp_path, f"{name} is truncated or is not a ")


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_missing_file(tmp_path, name):
    saved(tmp_path)
    (tmp_path / name).unlink()
    assert_refused(tmp_path, f"cannot read .*{name}: ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "other"}, "the format is 'other', expected 'twinquant dynamic int8, version 1'"),
        ({"head": "translation"}, "head 'translation' with num_labels 3"),
        ({"num_labels": None}, "num_labels None"),
        ({"settings": {"engine": "fbgemm", "bits": 4}}, "bits"),
        ({"settings": {"library": "jax"}}, "jax"),
        ({"settings": 7}, "does not describe"),
        ({"config": {}}, "the key vocab_size is missing"),
        ({"config": 3}, "does not describe"),
        ({"engine": "npu"}, "quantized for the engine 'npu', .*--quantized_engine"),
    ],
    ids=["format", "head", "labels", "settings", "library", "settings_type", "config", "config_type", "engine"],
)
def test_a_foreign_description(tmp_path, change, sentence):
    saved(tmp_path)
    values = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps(values | change))
    assert_refused(tmp_path, sentence)


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("bert/pooler/dense/kernel", None, "has no tensor bert/pooler/dense/kernel$"),
        (
            "bert/pooler/dense/kernel",
            np.zeros((32, 32), np.float32),
            r"is float32 \[32, 32\], expected int8 \[32, 32\]$",
        ),
        ("output_bias", np.zeros(4, np.float32), r"is float32 \[4\], expected float32 \[3\]$"),
        ("bert/pooler/dense/kernel_scale", np.float32(np.nan), "must be finite and above zero$"),
    ],
    ids=["missing", "type", "shape", "scale"],
)
def test_a_foreign_tensor(tmp_path, name, array, sentence):
    saved(tmp_path)
    tensors = safetensors.numpy.load_file(tmp_path / WEIGHTS)
    del tensors[name]
    safetensors.numpy.save_file(tensors | ({} if array is None else {name: np.asarray(array)}), tmp_path / WEIGHTS)
    assert_refused(tmp_path, sentence)


def assert_refused(folder: Path, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        DynamicModel.load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_another_engine_at_loading(tmp_path):
    saved(tmp_path, engine="fbgemm")
    model = DynamicModel.load(tmp_path, engine="onednn")
    assert model.engine == model.settings.engine == "onednn" and "engine onednn" in model.describe()


def test_sizes_count_every_byte(tmp_path):
    saved(tmp_path, per_channel=True)
    write_safetensors(tmp_path / "model.safetensors", tensors_of(CLASSIFICATION))
    report = size_report(tmp_path / "model.safetensors", tmp_path / WEIGHTS)
    kernels = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32
    assert report.bytes_by_dtype["int8"] == kernels
    assert report.float_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert report.int8_bytes == (tmp_path / WEIGHTS).stat().st_size
    header = report.int8_bytes - sum(report.bytes_by_dtype.values())
    assert 0 < header < 10_000
    assert "int8 0.0 MB" in str(report) and "times smaller" in str(report)


def test_speed_gives_the_threads_back(tmp_path):
    seen = []
    torch.set_num_threads(1)
    seconds = speed({"a": lambda _: seen.append(torch.get_num_threads()), "b": lambda _: None}, BATCH, 2, rounds=3)
    assert seen == [2] * 4 and torch.get_num_threads() == 1
    assert list(seconds) == ["a", "b"] and all(value >= 0.0 for value in seconds.values())


def test_the_table_of_the_guides():
    lines = table(
        "f1",
        [
            TableRow("float32", 438_000_000, 0.9019, {1: 160.0, 2: 85.0}),
            TableRow("int8", 181_500_000, 0.902, {1: 90.0, 2: 46.0}),
        ],
    ).splitlines()
    assert lines[0] == "| model | size MB | f1 | 1 thread s | 2 threads s |"
    assert lines[3] == "| int8 | 181.5 | 0.9020 | 90.0000 | 46.0000 |"
