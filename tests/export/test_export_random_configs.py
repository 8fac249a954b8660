"""Property: for any shape of model and batch, onnxruntime computes what the backend does."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bert import make_batch, require
from tiny_exports import LABELS, exported, int8, largest_difference, run_both, tiny_source

from export.check import compare_on_batches
from export.layers import layer_differences
from export.runtime import read_model
from export.settings import ExportSettings
from export.verdict import Bounds
from quantization.modes import MODE_NAMES


@st.composite
def shapes(draw: st.DrawFn) -> dict:
    """Sizes of a model; heads times head size is the hidden size."""
    heads = draw(st.integers(1, 5))
    return {
        "num_attention_heads": heads,
        "hidden_size": heads * draw(st.integers(2, 9)),
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "vocab_size": draw(st.integers(2, 50)),
        "max_position_embeddings": draw(st.integers(24, 40)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new", "relu"])),
    }


FORMS = st.sampled_from([{}, {"portable": True}, {"target": "openvino"}, {"int8_embeddings": True}])
LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shapes(), st.sampled_from(MODE_NAMES), FORMS, st.sampled_from(["squad", "glue"]), LENGTHS, st.integers(0, 9))
def test_any_shape(sizes: dict, mode: str, form: dict, task: str, lengths: list[int], seed: int) -> None:
    require("pytorch")
    source = tiny_source(task, mode, seed, **sizes)
    batch = make_batch(source.config, lengths, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        floats = ExportSettings(target=form.get("target", "onnxruntime"))
        model, reference = run_both(source, floats, Path(folder, "fp32"))
        assert largest_difference(model.predict(batch), reference.predict(batch), batch["input_mask"]) < 1e-4
        model, reference = run_both(source, int8(mode, **form), Path(folder, "int8"))
        found, expected = model.predict(batch), reference.predict(batch)
        if largest_difference(found, expected, batch["input_mask"]) > 1e-4:
            # Some value lay on the border between two integers: the difference must be small on the whole, and each
            # layer by itself right. The portable form's biases are rounded, which moves more values over the border.
            limit = Bounds.max_relative_difference if form.get("portable") else 1.0
            batches = [make_batch(source.config, (20, 11, 17), seed=seed + n) for n in range(4)]
            comparison = compare_on_batches(lambda: model, lambda: reference, int8(mode, **form), batches)
            assert comparison.relative is not None and comparison.relative < limit, comparison
            path = Path(folder, "int8", "model.onnx")
            differences = layer_differences(path, read_model(path)[1], source, int8(mode, **form), "pytorch", batches)
            assert max(differences) < Bounds.max_layer_difference, differences


def test_a_rounded_bias_on_a_border() -> None:
    """Of four words and two small layers, where one integer makes as much as quantization does; found by the above."""
    sizes = {
        "num_attention_heads": 3, "hidden_size": 21, "intermediate_size": 37, "num_hidden_layers": 2, "vocab_size": 4,
        "max_position_embeddings": 28, "type_vocab_size": 1, "hidden_act": "gelu",
    }  # fmt: skip
    test_any_shape.hypothesis.inner_test(sizes, "trt", {"portable": True}, "glue", [1], 7)


@settings(max_examples=8, deadline=None)
@given(shapes(), st.booleans(), LENGTHS)
def test_dynamic(sizes: dict, portable: bool, lengths: list[int]) -> None:
    """int8-dynamic runs in any shape and gives numbers near the float model's."""
    source = tiny_source("glue", **sizes)
    batch = make_batch(source.config, lengths)
    with tempfile.TemporaryDirectory() as folder:
        model, reference = run_both(source, ExportSettings("int8-dynamic", portable=portable), Path(folder))
        found, expected = model.predict(batch)["logits"], reference.predict(batch)["logits"]
    assert found.shape == (len(lengths), len(LABELS)) and np.isfinite(found).all()
    assert np.abs(found - expected).mean() < 0.5


def test_exported_twice_is_equal(tmp_path: Path) -> None:
    for settings_ in (ExportSettings(), int8("ft3"), ExportSettings("int8-dynamic")):
        mode = settings_.mode.name if settings_.mode else None
        paths = [exported(tiny_source(mode=mode), settings_, tmp_path / name)[0] for name in "ab"]
        assert paths[0].read_bytes() == paths[1].read_bytes()
