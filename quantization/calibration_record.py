"""For which mode a checkpoint's ranges are: what calibration.json, or else the run's settings.json, says beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantization.modes import MODE_NAMES, Q8BERT
from twinquant.errors import UserError
from twinquant.json_text import parse_json

CALIBRATION, SETTINGS = "calibration.json", "settings.json"
_BEYOND = 2.0**128  # the first power of two that no float32 holds


def read_calibration(path: str, ranges: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """What the files beside a checkpoint say of its ranges; None where none says anything of them.

    Args:
        path: the checkpoint's, a prefix, a folder or a file; files are looked for in the folder and in the one above.
        ranges: the checkpoint's amax by scope: a calibration.json that tells others is of another checkpoint.

    Returns:
        The content of calibration.json or, of a model that was trained from another folder's calibration, quant_mode
        and quant_exclude of settings.json, which every run writes into its output folder.

    Raises UserError for a damaged file.
    """
    if not ranges:
        return None
    calibration = _read(path, CALIBRATION)
    if isinstance(calibration, dict) and isinstance(calibration.get("quantizers"), dict):
        if _belongs(calibration["quantizers"], ranges):
            return calibration
    settings = _read(path, SETTINGS)
    if isinstance(settings, dict) and settings.get("if_quant") is True:
        if settings.get("quant_mode") in (*MODE_NAMES, Q8BERT):
            return {"quant_mode": settings["quant_mode"], "quant_exclude": settings.get("quant_exclude") or []}
    return None


def calibrated_mode(calibration: Mapping[str, Any] | None) -> str | None:
    """The name of the mode that `read_calibration` found, q8bert among them; None for single settings, or nothing."""
    name = (calibration or {}).get("quant_mode")
    return str(name) if name in (*MODE_NAMES, Q8BERT) else None


def calibrated_exclusion(calibration: Mapping[str, Any] | None, mode: str, source: str) -> list[str]:
    """The quantizers of that mode that were left in float. `source`: the checkpoint's path, for messages."""
    if calibration is None or calibration.get("quant_mode") != mode:
        return []
    excluded = calibration.get("quant_exclude", [])
    if not isinstance(excluded, list) or not all(isinstance(scope, str) for scope in excluded):
        raise UserError(f"quant_exclude beside {source} is no list of names of quantizers")
    return excluded


def _read(path: str, name: str) -> object:
    for folder in (Path(path), Path(path).parent):
        try:
            content = (folder / name).read_bytes()
        except OSError:
            continue
        return parse_json(content, folder / name)
    return None


def _belongs(quantizers: Mapping[str, Any], ranges: Mapping[str, np.ndarray]) -> bool:
    """Whether calibration.json tells these ranges, and not those of another checkpoint in the same folder."""
    told = {
        scope: amax
        for scope, entry in quantizers.items()
        if isinstance(entry, dict) and isinstance(amax := entry.get("amax"), float | int) and abs(amax) < _BEYOND
    }
    return bool(told) and all(
        scope in ranges and ranges[scope].shape == () and float(ranges[scope]) == float(np.float32(amax))
        for scope, amax in told.items()
    )
