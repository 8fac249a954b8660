"""BERT checkpoints as TensorFlow bundles: which variables are the model, which are ranges, which are left alone.

Ranges are stored as FasterTransformer's TensorFlow example stores them: `<scope>/quant_min` and `<scope>/quant_max`.
"""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from checkpoints import names
from checkpoints.config import BertConfig
from checkpoints.tf_bundle import BundleReader, write_bundle
from checkpoints.value import Checkpoint
from twinquant.errors import UserError
from twinquant.files import write_bytes_atomically, write_json_atomically
from twinquant.model_card import write_card

CONFIG_FILE = "bert_config.json"
VOCAB_FILE = "vocab.txt"
_OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

_logger = logging.getLogger("twinquant")


def read_tf_checkpoint(prefix: str | os.PathLike[str]) -> Checkpoint:
    """Reads the bundle `<prefix>.index`, and bert_config.json and vocab.txt beside it where they exist.

    Only the model's tensors and ranges are read; optimizer slots and pre-training heads go to `unused` by name.
    Raises UserError for missing, damaged or foreign files, and for a checkpoint that FasterTransformer's converter has
    turned into packed INT8 weights.
    """
    prefix = os.fspath(prefix)
    reader = BundleReader(prefix)
    keys = _variable_names(reader)
    packed = next((name for name in keys if name.endswith("/amaxList")), None)
    if packed is not None:
        raise UserError(
            f"{reader.index_path} holds {packed}: its kernels were packed to INT8 for FasterTransformer's engine and "
            "are no float weights any more; give the checkpoint from before that conversion"
        )
    model = [name for name in keys if names.is_canonical(name)]
    if not model:
        found = ", ".join(sorted(keys)[:3]) or "nothing"
        raise UserError(
            f"{reader.index_path} holds no BERT tensors: expected names such as bert/embeddings/word_embeddings, "
            f"found {found}"
        )
    tensors = {}
    for name in sorted(model, key=lambda name: (reader.entries[keys[name]].shard, reader.entries[keys[name]].offset)):
        tensors[name] = reader.read(keys[name])
        if tensors[name].dtype != np.float32:
            raise UserError(f"the tensor {name} of {reader.index_path} is {tensors[name].dtype}, expected floats")
    ranges, range_names = _read_ranges(reader, keys)
    metadata = {}
    if "global_step" in keys:
        step = reader.read(keys["global_step"])
        if step.size != 1 or step.dtype.kind not in "iu":
            raise UserError(
                f"the tensor global_step of {reader.index_path} is {step.dtype} {list(step.shape)}, expected one whole "
                "number"
            )
        metadata["global_step"] = str(int(step.reshape(())))
    folder = Path(prefix).parent
    config_file, vocab_file = folder / CONFIG_FILE, folder / VOCAB_FILE
    return Checkpoint(
        tensors=tensors,
        ranges=ranges,
        config=BertConfig.from_json_file(config_file) if config_file.exists() else None,
        source=prefix,
        vocab_file=vocab_file if vocab_file.exists() else None,
        metadata=metadata,
        # global_step is used: it is in the metadata.
        unused=sorted(set(keys) - set(tensors) - range_names - {"global_step"}),
    )


def write_tf_checkpoint(prefix: str | os.PathLike[str], checkpoint: Checkpoint, global_step: int | None = None) -> None:
    """Writes tensors, ranges (quant_min = -amax) and `global_step` (int64) as a bundle with name-based keys.

    The configuration, the vocabulary and the card, where known, are written beside it first as bert_config.json,
    vocab.txt and README.md.
    """
    prefix = os.fspath(prefix)
    variables: dict[str, np.ndarray] = {
        name: np.asarray(tensor, np.float32) for name, tensor in checkpoint.tensors.items()
    }
    for scope, amax in checkpoint.ranges.items():
        variables[f"{scope}/quant_min"] = -np.asarray(amax, np.float32)
        variables[f"{scope}/quant_max"] = np.asarray(amax, np.float32)
    if global_step is not None:
        variables["global_step"] = np.asarray(global_step, np.int64)
    folder = Path(prefix).parent
    if checkpoint.config is not None:
        write_json_atomically(folder / CONFIG_FILE, checkpoint.config.to_dict())
    if checkpoint.vocab_file is not None and checkpoint.vocab_file.resolve() != (folder / VOCAB_FILE).resolve():
        write_bytes_atomically(folder / VOCAB_FILE, read_file(checkpoint.vocab_file))
    if checkpoint.card:
        write_card(folder, checkpoint.card)
    write_bundle(prefix, variables)


def read_file(path: Path) -> bytes:
    """The bytes of a file; UserError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _variable_names(reader: BundleReader) -> dict[str, str]:
    """Variable name -> key in the bundle; they differ only in TensorFlow 2's object-based checkpoints."""
    if not any(key.endswith(_OBJECT_SUFFIX) for key in reader.entries):
        return {key: key for key in reader.entries}
    # An object-based key is a path of attribute names in which "/" is spelled ".S" and "." is spelled "..".
    keys = {}
    for key in reader.entries:
        path = key.removesuffix(_OBJECT_SUFFIX)
        keys[re.sub(r"\.([.S])", lambda found: "/" if found[1] == "S" else ".", path)] = key
    if not any(names.is_canonical(name) for name in keys):
        raise UserError(
            f"{reader.index_path} is an object-based TensorFlow 2 checkpoint whose keys follow its author's Python "
            f"objects (such as {next(key for key in reader.entries if key.endswith(_OBJECT_SUFFIX))}); save it with "
            "tf.compat.v1.train.Saver under BERT's variable names"
        )
    return keys


def _read_ranges(reader: BundleReader, keys: dict[str, str]) -> tuple[dict[str, np.ndarray], set[str]]:
    """The ranges by scope, and the names of all range variables, also of those that are dropped."""
    variables = {name for name in keys if name.endswith(("/quant_min", "/quant_max"))}
    scopes = sorted({name.rpartition("/")[0] for name in variables})
    ranges: dict[str, np.ndarray] = {}
    uncalibrated = []
    for scope in scopes:
        for name in (f"{scope}/quant_min", f"{scope}/quant_max"):
            if name not in variables:
                raise UserError(f"{reader.index_path} has the range of {scope} only in part: {name} is missing")
        low, high = (
            reader.read(keys[f"{scope}/{end}"]).astype(np.float32, copy=False) for end in ("quant_min", "quant_max")
        )
        if low.shape != high.shape or low.ndim > (1 if names.is_weight_quantizer(scope) else 0):
            raise UserError(
                f"{reader.index_path}: quant_min {low.shape} and quant_max {high.shape} of {scope} disagree"
            )
        if not _looks_calibrated(scope, low, high):
            uncalibrated.append(scope)
        ranges[scope] = np.maximum(np.abs(low), np.abs(high))
    if uncalibrated:
        _warn_uncalibrated(reader.index_path, scopes, uncalibrated)
        ranges = {}
    return ranges, variables


def _looks_calibrated(scope: str, low: np.ndarray, high: np.ndarray) -> bool:
    """False for the random initial values that FasterTransformer's example saves when it never calibrated.

    Calibrated activation ranges are exactly symmetric, calibrated kernels have min <= max; random numbers are neither.
    Ranges that are not finite pass: they come from a calibration gone wrong, which the quantizer reports by name.
    """
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return True
    if names.is_weight_quantizer(scope):
        return bool((low <= high).all())
    return bool((low == -high).all() and (high >= 0).all())


def _warn_uncalibrated(path: str, scopes: Iterable[str], uncalibrated: list[str]) -> None:
    _logger.warning(
        "%s: the %d quantizer ranges are dropped because the checkpoint was never calibrated: %d of them, such as %s, "
        "are not symmetric, which only untrained initial values are",
        path,
        len(list(scopes)),
        len(uncalibrated),
        uncalibrated[0],
    )
