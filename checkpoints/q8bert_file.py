"""The int8 file of a q8bert model: a quarter of the fp32 file's size, and all that evaluation needs beside the config.

One safetensors file, the counterpart of NLP Architect's quant_pytorch_model.bin, which is a pickle. It holds

    <weight or embedding table>      int8, from -127 to 127, kernels [in, out]
    <bias of a quantized layer>      int32, in steps of weight scale * input scale, as an integer engine adds it up
    <other tensors>                  float32: LayerNorm, token type embeddings
    <quantizer scope>/scale          float32 of shape (), of every weight and activation: real number = integer * scale

under canonical names, and as metadata format, version, head, labels (a JSON list) and do_lower_case.

Integers and scales are those that fake quantization of the fp32 model goes through, so a model that is read predicts
the same, up to its biases: those are off by half a step at most.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from checkpoints.checkpoint import match
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING, expected_tensors, head_of
from checkpoints.safetensors_file import SafetensorsReader
from checkpoints.tf_checkpoint import read_file
from checkpoints.value import Checkpoint
from quantization.calibration import weight_amax
from quantization.modes import Mode, all_quantizers, enabled_quantizers, q8bert_mode
from quantization.numerics import ZERO_AMAX, dequantize, quantize, scale_of
from quantization.ranges import select_ranges
from twinquant.errors import UserError
from twinquant.files import write_files_atomically
from twinquant.json_text import parse_json

FILE_NAME = "quantized_model.safetensors"
FORMAT, VERSION = "twinquant q8bert", "1"
LARGEST_BIAS = 2**31 - 1


def write_q8bert(path: str | os.PathLike[str], checkpoint: Checkpoint, mode: Mode) -> None:
    """Writes the int8 file, and config.json and vocab.txt beside it, atomically.

    Args:
        path: of the file; FILE_NAME is what evaluation looks for in a folder.
        checkpoint: an fp32 model with a head, with its config and the ranges that its training in `mode` found.
        mode: a `quantization.modes.q8bert_mode`.

    Raises:
        UserError: config or head are missing, a range is missing or not finite, or a weight is not finite.
    """
    path, config, head = Path(path), checkpoint.config, head_of(checkpoint.tensors)
    if config is None or head is None:
        missing = "config" if config is None else "head"
        raise UserError(f"{checkpoint.source or 'the checkpoint'} has no {missing}: {path} needs one to be evaluated")
    if head == CLASSIFICATION and len(config.label_names or ()) != len(checkpoint.tensors["output_bias"]):
        config = config.with_labels([f"LABEL_{index}" for index in range(len(checkpoint.tensors["output_bias"]))])
    arrays = _quantized(checkpoint, config, mode, head)
    metadata = {"format": FORMAT, "version": VERSION, "head": head, "labels": json.dumps(config.label_names)}
    if "do_lower_case" in checkpoint.metadata:
        metadata["do_lower_case"] = checkpoint.metadata["do_lower_case"]
    config_text = json.dumps({**config.to_dict(), "model_type": "bert"}, indent=4, ensure_ascii=False) + "\n"
    files = {path.with_name("config.json"): config_text.encode()}
    vocab_file = path.with_name("vocab.txt")
    if checkpoint.vocab_file is not None and checkpoint.vocab_file.resolve() != vocab_file.resolve():
        files[vocab_file] = read_file(checkpoint.vocab_file)
    files[path] = safetensors.numpy.save(arrays, metadata)
    write_files_atomically({file: _writer(data) for file, data in files.items()})


def read_q8bert(path: str | os.PathLike[str]) -> Checkpoint:
    """The model of an int8 file (or of the folder it lies in), with the config.json and vocab.txt beside it.

    Its tensors are float32 multiples of the scales, its ranges those of the activations: in q8bert mode it goes through
    the file's integers.

    Raises:
        UserError: the file is missing, truncated, of another form or version, or lacks a tensor; or there is no config.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    reader = SafetensorsReader(path)
    metadata = _read_metadata(path)
    config = _read_config(path, metadata)
    file = _Q8BertFile(reader, metadata["head"], config)
    tensors = {name: file.tensor(name, shape) for name, shape in file.expected.items()}
    vocab_file = path.with_name("vocab.txt")
    return Checkpoint(
        tensors=tensors,
        ranges={scope: amax for scope, amax in file.amax.items() if not file.rows[scope].is_weight},
        config=config,
        source=str(path),
        vocab_file=vocab_file if vocab_file.exists() else None,
        metadata={"do_lower_case": metadata["do_lower_case"]} if "do_lower_case" in metadata else {},
    )


def _quantized(checkpoint: Checkpoint, config: BertConfig, mode: Mode, head: str) -> dict[str, np.ndarray]:
    """The arrays of the file."""
    expected = expected_tensors(config, head, len(config.label_names or ()))
    match(checkpoint, expected)
    arrays = {name: np.asarray(checkpoint.tensors[name], np.float32) for name in expected}
    rows = all_quantizers(config.num_hidden_layers, head)
    amax = select_ranges(checkpoint.ranges, arrays, mode, checkpoint.source)
    weights = []
    for scope, settings in enabled_quantizers(config.num_hidden_layers, mode, head).items():
        if rows[scope].is_weight:
            name = scope.removesuffix("_quantizer")
            amax[scope] = weight_amax(arrays[name], per_channel=False, name=name)
            arrays[name] = quantize(arrays[name], amax[scope], settings, scope).astype(np.int8)
            weights.append(name)
        # An all-zero tensor has the scale 0: its integers stand for zeros whatever they are multiplied with.
        scale = scale_of(amax[scope], settings, scope)
        arrays[f"{scope}/scale"] = np.where(amax[scope] < ZERO_AMAX, np.float32(0), scale)
    for name in weights:
        bias = _bias_of(name)
        if bias is not None:
            arrays[bias] = _quantized_bias(arrays[bias], _bias_scale(arrays, name))
    return {name: np.array(array, order="C", copy=None) for name, array in arrays.items()}


def _quantized_bias(bias: np.ndarray, scale: np.float64) -> np.ndarray:
    """int32, or the float32 bias itself where a step of 0 or too many steps leave no integers."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(bias.astype(np.float64) / scale)
    return steps.astype(np.int32) if (np.abs(steps) <= LARGEST_BIAS).all() else bias


def _bias_scale(scales: Mapping[str, np.ndarray], weight: str) -> np.float64:
    """One step of the accumulator in a weight's layer; both factors are float32, their product is exact."""
    return np.float64(scales[f"{weight}_quantizer/scale"]) * np.float64(scales[f"{_input_of(weight)}/scale"])


def _bias_of(weight: str) -> str | None:
    """The bias added to a product with that weight; None for an embedding table."""
    if weight.endswith("/kernel"):
        return weight.removesuffix("kernel") + "bias"
    return weight.removesuffix("weights") + "bias" if weight.endswith("output_weights") else None


def _input_of(weight: str) -> str:
    """The quantizer of the other operand of a product with that weight."""
    if weight.endswith("/kernel"):
        return weight.removesuffix("kernel") + "input_quantizer"
    return weight.removesuffix("weights") + "input_quantizer"


class _Q8BertFile:
    """The content of a file, checked tensor by tensor."""

    def __init__(self, reader: SafetensorsReader, head: str, config: BertConfig) -> None:
        self.reader, self.path = reader, reader.path
        mode, layers = q8bert_mode(), config.num_hidden_layers
        self.rows = all_quantizers(layers, head)
        self.settings = enabled_quantizers(layers, mode, head)
        self.expected = expected_tensors(config, head, len(config.label_names or ()))
        unknown = set(reader.names) - set(self.expected) - {f"{scope}/scale" for scope in self.settings}
        if unknown:
            raise UserError(f"{self.path} holds {min(unknown)}, which is no part of a model of its config.json")
        self.scales = {f"{scope}/scale": self.array(f"{scope}/scale", (), np.float32) for scope in self.settings}
        self.amax = {scope: self._amax(scope) for scope in self.settings}

    def array(self, name: str, shape: tuple[int, ...], *dtypes: type) -> np.ndarray:
        """The array of that name, which must have that shape and one of the types."""
        if name not in self.reader.names:
            raise UserError(f"{self.path} lacks {name}")
        array = self.reader.read(name)
        if array.shape != shape or array.dtype not in dtypes:
            wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
            raise UserError(f"{self.path}: {name} is {array.dtype} {array.shape}, expected {wanted} {shape}")
        return array

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The float32 tensor that the integers of that name stand for; float32 as it is."""
        scope = f"{name}_quantizer"
        if scope in self.settings:
            q, amax = self.array(name, shape, np.int8), self.amax[scope]
            largest = 127 if amax > 0 else 0
            if np.abs(q.astype(np.int32)).max() != largest:
                raise UserError(f"{self.path}: the largest integer of {name} is not {largest}: the file is damaged")
            # The ends are amax itself: the scale that is computed from the tensor is then the file's to the bit.
            return np.where(np.abs(q) == 127, np.sign(q) * amax, dequantize(q, amax, self.settings[scope]))
        weight = self._weight_of(name)
        if weight is None:
            return self.array(name, shape, np.float32)
        bias = self.array(name, shape, np.int32, np.float32)
        return (bias * _bias_scale(self.scales, weight)).astype(np.float32) if bias.dtype == np.int32 else bias

    def _weight_of(self, bias: str) -> str | None:
        weights = (scope.removesuffix("_quantizer") for scope in self.settings if self.rows[scope].is_weight)
        return next((weight for weight in weights if _bias_of(weight) == bias), None)

    def _amax(self, scope: str) -> np.ndarray:
        """A range whose scale is the file's to the bit: some range is, since scales are made from ranges."""
        scale = self.scales[f"{scope}/scale"]
        amax = np.float32(127) * scale
        if scale > 0:
            amax = np.maximum(amax, np.float32(ZERO_AMAX))
        if not (np.isfinite(amax) and amax >= 0 and amax / np.float32(127) == scale):
            raise UserError(f"{self.path}: {scope}/scale is {scale}, which is not the scale of a range")
        return np.asarray(amax, np.float32)


def _read_metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
    found, version = metadata.get("format"), metadata.get("version")
    if found != FORMAT:
        raise UserError(f"{path} is no int8 file of this program: its format is {found!r}, expected {FORMAT!r}")
    if version != VERSION:
        raise UserError(f"{path} has version {version!r} of its format, this program reads version {VERSION!r}")
    if metadata.get("head") not in (QUESTION_ANSWERING, CLASSIFICATION):
        raise UserError(f"{path}: the head is {metadata.get('head')!r}, which this program does not know")
    return metadata


def _read_config(path: Path, metadata: dict[str, str]) -> BertConfig:
    """config.json beside the file, with the file's labels."""
    config_file = path.with_name("config.json")
    if not config_file.exists():
        raise UserError(f"{config_file} is missing: {path.name} needs the configuration beside it")
    config = BertConfig.from_json_file(config_file)
    if metadata["head"] != CLASSIFICATION:
        return config
    try:
        labels = parse_json(metadata.get("labels", "null"), path)
    except UserError:
        labels = None  # said below, with what the file holds
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{path}: the labels are {metadata.get('labels')!r:.200}, expected a JSON list of names")
    return config.with_labels(labels)


def _writer(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write
