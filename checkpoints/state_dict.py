"""State dicts of PyTorch BERT models, whatever file they lie in, to and from canonical tensors and ranges."""

from collections.abc import Callable, Iterable

import numpy as np

from checkpoints import names
from twinquant.errors import UserError

_AMAX = "._amax"


def from_state_dict(
    keys: Iterable[str], read: Callable[[str], np.ndarray], source: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Sorts a state dict into (tensors, ranges, unused names), see Checkpoint.

    Args:
        keys: names in the state dict.
        read: gives the array of a name; called only for those that are used.
        source: the file, for error sentences.

    Raises UserError when two names mean the same tensor, a weight is not a float, or an amax is malformed.
    """
    tensors: dict[str, np.ndarray] = {}
    ranges: dict[str, np.ndarray] = {}
    unused: list[str] = []
    origin: dict[str, str] = {}
    for key in keys:
        found = names.canonical_name(key)
        scope = names.quantizer_scope(key.removesuffix(_AMAX)) if key.endswith(_AMAX) else None
        target = found[0] if found else scope
        if target is None:
            unused.append(key)
            continue
        if target in origin:
            raise UserError(f"{source} has the same tensor twice, as {origin[target]} and as {key}")
        origin[target] = key
        array = read(key)
        if array.dtype.kind != "f":
            raise UserError(f"the tensor {key} of {source} is {array.dtype}, expected floats")
        array = array.astype(np.float32, copy=False)
        if found:
            if found[1] and array.ndim != 2:
                raise UserError(f"the tensor {key} of {source} has the shape {array.shape}, expected two dimensions")
            tensors[target] = np.ascontiguousarray(array.T) if found[1] else array
        else:
            ranges[target] = check_amax(target, array, f"{key} of {source}")
    if not tensors:
        raise UserError(
            f"{source} holds no BERT tensors: expected names such as bert.embeddings.word_embeddings.weight, found "
            f"{', '.join(sorted(unused)[:3]) or 'nothing'}"
        )
    return tensors, ranges, sorted(unused)


def to_state_dict(tensors: dict[str, np.ndarray], old_layer_norm_names: bool = False) -> dict[str, np.ndarray]:
    """Canonical tensors as a Hugging Face state dict: weights [out, in], C-contiguous float32.

    Args:
        tensors: arrays by canonical name.
        old_layer_norm_names: LayerNorm.gamma/beta, as FasterTransformer's example names them, not weight/bias.
    """
    state = {}
    for name, tensor in tensors.items():
        key = names.hugging_face_name(name)
        if key is None:
            raise ValueError(f"{name} is not a canonical tensor name")
        if old_layer_norm_names:
            key = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        array = np.asarray(tensor, np.float32)
        state[key] = np.array(array.T if names.is_transposed(name) else array, order="C", copy=None)
    return state


def amax_to_state_dict(ranges: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ranges as pytorch-quantization's `_amax` buffers: shape [] per tensor, [out, 1] per channel of a weight."""
    state = {}
    for scope, amax in ranges.items():
        module = names.quantizer_module(scope)
        if module is None:
            raise ValueError(f"{scope} is not a canonical quantizer scope")
        array = np.asarray(amax, np.float32)
        state[module + _AMAX] = array.reshape(-1, 1) if array.ndim else array
    return state


def check_amax(scope: str, amax: np.ndarray, where: str) -> np.ndarray:
    """`amax` as float32 of shape () or, for a weight per channel, (out,); UserError if it cannot be a range.

    A value that is not finite passes: the quantizer that would use it reports it by name.
    """
    amax = amax.astype(np.float32, copy=False)
    if amax.size == 1:
        amax = amax.reshape(())
    elif not names.is_weight_quantizer(scope) or amax.size != max(amax.shape, default=0):
        raise UserError(f"the range {where} has the shape {amax.shape}, expected one number or one per output channel")
    if (amax < 0).any():
        raise UserError(f"the range {where} is negative ({amax.min()}), expected the largest absolute value")
    return amax.reshape(-1) if amax.ndim else amax
