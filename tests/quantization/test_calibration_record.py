"""For which mode a checkpoint's ranges are, by the files beside it."""

import json
from pathlib import Path

import numpy as np
import pytest

from quantization.calibration_record import calibrated_exclusion, calibrated_mode, read_calibration
from twinquant.errors import UserError

SCOPE = "bert/encoder/layer_0/output/dense/input_quantizer"
RANGES = {SCOPE: np.float32(1.5)}
CALIBRATION = {"quant_mode": "ft3", "quant_exclude": [SCOPE], "quantizers": {SCOPE: {"amax": 1.5}}}
OTHER = CALIBRATION | {"quantizers": {SCOPE: {"amax": 2.5}}}


@pytest.mark.parametrize(
    ("calibration", "settings", "expected"),
    [
        pytest.param(CALIBRATION, None, "ft3", id="calibration"),
        pytest.param(CALIBRATION, {"if_quant": True, "quant_mode": "ft1"}, "ft3", id="calibration-comes-first"),
        pytest.param(OTHER, None, None, id="calibration-of-other-ranges"),
        pytest.param(OTHER, {"if_quant": True, "quant_mode": "ft1"}, "ft1", id="trained-from-another-folder"),
        pytest.param(None, {"if_quant": True, "quant_mode": "q8bert"}, "q8bert", id="q8bert"),
        pytest.param(None, {"if_quant": False, "quant_mode": "ft1"}, None, id="float-run"),
        pytest.param(None, {"if_quant": True, "quant_mode": None}, None, id="single-settings"),
        pytest.param([], {"if_quant": True, "quant_mode": ["ft1"]}, None, id="other-people's-files"),
        pytest.param(None, None, None, id="nothing"),
    ],
)
@pytest.mark.parametrize("inside", [True, False], ids=["in-the-folder", "beside"])
def test_which_file_tells(
    tmp_path: Path, calibration: object, settings: object, expected: str | None, inside: bool
) -> None:
    for name, content in (("calibration.json", calibration), ("settings.json", settings)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    path = tmp_path if inside else tmp_path / "model.ckpt-5"
    found = read_calibration(str(path), RANGES)
    assert calibrated_mode(found) == expected
    assert calibrated_exclusion(found, "ft3", "model") == ([SCOPE] if expected == "ft3" else [])
    assert read_calibration(str(path), {}) is None  # nothing was calibrated, whatever lies there


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(UserError, match=r"calibration\.json is not a JSON file"):
        read_calibration(str(tmp_path), RANGES)
    with pytest.raises(UserError, match="quant_exclude beside model is no list"):
        calibrated_exclusion({"quant_mode": "ft1", "quant_exclude": "all"}, "ft1", "model")
