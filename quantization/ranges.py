"""Ranges of a calibrated model: choosing, checking and fusing those that a mode needs, and the readable report."""

import re
from collections.abc import Mapping

import numpy as np

from checkpoints.names import head_of
from quantization.modes import QKV_GROUPS, Mode, all_quantizers, enabled_quantizers
from quantization.numerics import QuantizerSettings
from twinquant.errors import UserError

Ranges = dict[str, np.ndarray]  # quantizer scope -> amax, float32, shape () or (out_features,)


def fuse_qkv_ranges(ranges: Mapping[str, np.ndarray], num_hidden_layers: int) -> Ranges:
    """Each group of query, key and value quantizers gets the group's maximum amax (FasterTransformer's fuse3).

    Groups of which not all three are there are left as they are. Applying it twice changes nothing.
    """
    fused = dict(ranges)
    for layer in range(num_hidden_layers):
        for group in QKV_GROUPS:
            scopes = [f"bert/encoder/layer_{layer}/{scope}" for scope in group]
            if all(scope in fused for scope in scopes):
                maximum = np.maximum.reduce([fused[scope] for scope in scopes]).astype(np.float32)
                fused.update(dict.fromkeys(scopes, maximum))
    return fused


def select_ranges(
    ranges: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], mode: Mode, source: str
) -> Ranges:
    """Checks and returns the ranges of the quantizers that `mode` turns on, QKV fused where the mode says so.

    Those of a mode that finds its ranges in training (q8bert) are the activations' alone: weights need none.

    Args:
        ranges: amax by quantizer scope, as a checkpoint holds them.
        tensors: the model's tensors by canonical name; says which head and how many layers and channels there are.
        mode: what is quantized.
        source: the checkpoint's path, for messages.

    Raises:
        UserError: a range is missing, not finite, negative, or of another shape than the mode needs.
    """
    selected: Ranges = {}
    layers = count_layers(tensors)
    head = head_of(tensors)
    rows = all_quantizers(layers, head)
    for scope, settings in enabled_quantizers(layers, mode, head).items():
        if settings.fixed_scale is not None or (mode.learns_ranges and rows[scope].is_weight):
            continue
        selected[scope] = _checked(scope, settings, ranges, tensors, mode, source)
    return fuse_qkv_ranges(selected, layers) if mode.fuse_qkv else selected


def _checked(
    scope: str,
    settings: QuantizerSettings,
    ranges: Mapping[str, np.ndarray],
    tensors: Mapping[str, np.ndarray],
    mode: Mode,
    source: str,
) -> np.ndarray:
    flags = "and the same quantization flags" if mode.name == "custom" else f"--quant_mode={mode.name}"
    remedy = f"run with --do_calib {flags} and start from the model.ckpt-calibrated it writes"
    if mode.learns_ranges:
        remedy = f"train it with --quant_scheme={mode.name}"
    if scope not in ranges:
        state = "was never calibrated" if not ranges else "was calibrated without it"
        if mode.learns_ranges:
            state = f"was not trained in mode {mode.name}"
        raise UserError(f"quantizer {scope} has no range: {source} {state}; {remedy}")
    amax = np.asarray(ranges[scope], np.float32)
    expected: tuple[int, ...] = ()
    if settings.axis is not None:
        expected = (tensors[scope.removesuffix("_quantizer")].shape[settings.axis],)
    if amax.shape != expected:
        kind = "one value per output channel" if expected else "one value for the whole tensor"
        raise UserError(
            f"quantizer {scope}: found a range of shape {amax.shape} in {source}, mode {mode.name} needs {expected} "
            f"({kind}); {remedy}"
        )
    if not np.isfinite(amax).all() or (amax < 0).any():
        raise UserError(f"quantizer {scope}: the range in {source} is negative or not finite; {remedy}")
    return amax


def count_layers(tensors: Mapping[str, np.ndarray]) -> int:
    """Number of encoder layers that canonical tensor names speak of."""
    found = {int(match[1]) for name in tensors if (match := re.match(r"bert/encoder/layer_(\d+)/", name))}
    return max(found, default=-1) + 1


def calibration_report(
    ranges: Mapping[str, np.ndarray], clipped: Mapping[str, float], method: dict, num_hidden_layers: int, mode: Mode
) -> dict:
    """What `calibration.json` holds: how the ranges were found and, per quantizer, amax and the clipped fraction.

    Per-channel amax are given as their least and largest value; `enabled` says whether the mode uses the quantizer,
    `quant_exclude` which ones it would use if they were not excluded.
    """
    quantizers = {}
    for scope, row in all_quantizers(num_hidden_layers).items():
        if scope not in ranges:
            continue
        amax = np.asarray(ranges[scope])
        entry: dict = {"tensor": row.tensor, "enabled": mode.enables(scope, row)}
        if amax.ndim:
            entry |= {"amax_min": float(amax.min()), "amax_max": float(amax.max()), "channels": int(amax.size)}
        else:
            entry["amax"] = float(amax)
        if scope in clipped:
            entry["clipped_fraction"] = clipped[scope]
        quantizers[scope] = entry
    return method | {
        "quant_mode": mode.name,
        "quant_exclude": sorted(mode.excluded),
        "quantizers": quantizers,
    }
