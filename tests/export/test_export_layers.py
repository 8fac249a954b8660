"""Every layer by itself: next to nothing differs where a model is right, and a wrong layer is named."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_bert import make_backend, make_batch, require, tiny_config
from tiny_exports import TASKS, exported, int8, tiny_source

import export.commands
from export.layers import layer_differences
from export.metadata import Metadata
from export.settings import ExportSettings
from export.source import Source
from quantization.exclusion import exclude
from quantization.modes import MODE_NAMES, get_mode

FORMS = {
    "contrib": {},
    "portable": {"portable": True},
    "openvino": {"target": "openvino"},
    "int8 embeddings": {"int8_embeddings": True},
}


@pytest.fixture(autouse=True)
def torch() -> None:
    require("pytorch")
    make_backend("pytorch", tiny_config())  # sets one thread


def differences(path: Path, metadata: Metadata, source: Source, settings: ExportSettings) -> list[float]:
    batches = [
        make_batch(source.config, lengths, seed=seed) for seed, lengths in enumerate([(9, 5), (17,), (1,), (3, 2)])
    ]
    return layer_differences(path, metadata, source, settings, "pytorch", batches)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_layers_are_right(mode: str, task: str, form: str, tmp_path: Path) -> None:
    source, settings = tiny_source(task, mode, num_hidden_layers=3), int8(mode, **FORMS[form])
    found = differences(*exported(source, settings, tmp_path), source, settings)
    assert len(found) == 3 and max(found) < 0.05, found


@pytest.mark.parametrize("form", ["contrib", "openvino"])
def test_a_layer_left_in_float_is_right(form: str, tmp_path: Path) -> None:
    """What quantization changes in it is nothing, and float noise is a share of nothing that no bound can hold."""
    source = tiny_source("squad", "ft1", num_hidden_layers=3)
    mode = exclude(get_mode("ft1"), ["layer_1"], 3)
    settings = dataclasses.replace(int8("ft1", **FORMS[form]), mode=mode)
    found = differences(*exported(source, settings, tmp_path), source, settings)
    assert len(found) == 3 and max(found) < 0.05, found


def test_a_wrong_layer_is_named(tmp_path: Path) -> None:
    """A GEMM output whose scale is off by a tenth, which end to end looks like one more rounding."""
    source, settings = tiny_source(mode="ft2", num_hidden_layers=3), int8("ft2")
    path, metadata = exported(source, settings, tmp_path)
    model = onnx.load(path)
    name = "bert/encoder/layer_1/output/dense/aftergemm_quantizer/scale"
    scale = next(constant for constant in model.graph.initializer if constant.name == name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.1), name))
    onnx.save(model, path)
    found = differences(path, metadata, source, settings)
    assert found[1] > 0.2 and max(found[0], found[2]) < 0.05, found


def test_another_mode_is_seen(tmp_path: Path) -> None:
    """One quantizer less, in every layer."""
    source = tiny_source(mode="ft3")
    path, metadata = exported(source, int8("ft2"), tmp_path)
    assert min(differences(path, metadata, source, int8("ft3"))) > 0.3


def test_a_model_with_its_data_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.commands, "LARGEST_MESSAGE", 30_000)
    source, settings = tiny_source(mode="ort"), int8("ort")
    path, metadata = exported(source, settings, tmp_path)
    assert (tmp_path / "model.onnx.data").exists()
    assert max(differences(path, metadata, source, settings)) < 0.05
