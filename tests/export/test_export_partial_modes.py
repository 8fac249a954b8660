"""Modes that leave quantizers out, and custom ones with fewer bits: what falls back to float32, and nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import make_batch, require
from tiny_exports import largest_difference, run_both, tiny_source

from export.grids import make_grids
from export.kernels import expected_int8_products, kernel_use
from export.runtime import read_model
from export.settings import ExportSettings
from quantization.exclusion import exclude
from quantization.modes import Mode, custom_mode, get_mode
from twinquant.errors import UserError

FORMS = {
    "contrib": {"vnni": False},
    "portable": {"portable": True},
    "openvino": {"target": "openvino"},
}


def without(mode: str, *endings: str) -> Mode:
    full = get_mode(mode)
    return dataclasses.replace(full, enabled=frozenset(s for s in full.enabled if not s.endswith(endings)))


MODES = {
    "float weights": without("ft2", "kernel_quantizer"),
    "float inputs": without("ft1", "intermediate/dense/input_quantizer", "query/input_quantizer"),
    "float probabilities": without("ft3", "matmul_a_input_quantizer", "softmax_input_quantizer"),
    "float Q": without("ort", "matmul_q_input_quantizer"),
    "float context": without("trt", "attention/output/dense/input_quantizer", "final_input_quantizer"),
    "one layer": exclude(get_mode("ft2"), ["layer_0"], 2),
    "float GELU of one layer": exclude(get_mode("ft3"), ["layer_1/output/dense/input_quantizer"], 2),
    "everything": custom_mode(),
    "6 bits, narrow": custom_mode(activation_bits=6, weight_bits=4, narrow_range=True, disabled_keywords=("softmax",)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODES)
def test_partial_modes(name: str, form: str, tmp_path: Path) -> None:
    require("pytorch")
    mode = MODES[name]
    # Weights of at most 7 bits: exact on every CPU.
    weight = dataclasses.replace(mode.weight, num_bits=min(7, mode.weight.num_bits))
    mode = dataclasses.replace(mode, weight=weight)
    source, settings = tiny_source(mode=mode), ExportSettings("int8", mode, **FORMS[form])
    found = []
    for seed, lengths in enumerate(((7,), (9, 5, 12), (20, 3), (1,))):
        model, reference = run_both(source, settings, tmp_path)
        batch = make_batch(source.config, lengths, seed=seed)
        found.append(largest_difference(model.predict(batch), reference.predict(batch), batch["input_mask"]))
    rounded_biases = form == "portable" and not any(scope.endswith("aftergemm_quantizer") for scope in mode.enabled)
    # Float products are summed in another order than the backend's, so that more values cross a border.
    assert np.median(found) < (0.1 if rounded_biases or "float" in name else 2e-5), found


@pytest.mark.parametrize("name", MODES)
def test_products_that_run_in_int8(name: str, tmp_path: Path) -> None:
    mode = MODES[name]
    source = tiny_source(mode=mode)
    for form in ("contrib", "portable"):
        settings = ExportSettings("int8", mode, **FORMS[form])
        run_both(source, settings, tmp_path / form)
        path = tmp_path / form / "model.onnx"
        grids = make_grids(mode, source.ranges(mode), source.config.num_hidden_layers)
        expected = expected_int8_products("int8", source.config.num_hidden_layers, grids)
        use = kernel_use(path, read_model(path)[1], 16)
        assert use.int8_calls == expected and not use.dequantized_weights, form
    assert expected == {
        "float weights": 4,
        "float inputs": 12,
        "float context": 14,
        "one layer": 8,
        "float GELU of one layer": 15,
    }.get(name, 14 if "float" in name else 16)


def test_more_than_eight_bits_are_refused() -> None:
    mode = custom_mode(activation_bits=10)
    source = tiny_source(mode=mode)
    with pytest.raises(UserError, match=r"quantizer bert/encoder/layer_0/\S+ has integers of 10 bits"):
        make_grids(mode, source.ranges(mode), 2)
