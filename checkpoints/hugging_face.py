"""Hugging Face folders: config.json, model.safetensors (or pytorch_model.bin), vocab.txt, our ranges, a card."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from checkpoints import names
from checkpoints.config import BertConfig
from checkpoints.safetensors_file import SafetensorsReader, write_safetensors
from checkpoints.state_dict import check_amax, from_state_dict, to_state_dict
from checkpoints.tf_checkpoint import read_file
from checkpoints.torch_file import read_torch_file, to_numpy
from checkpoints.value import Checkpoint
from twinquant.errors import UserError
from twinquant.files import atomic_folder, write_bytes_atomically, write_json_atomically
from twinquant.json_text import parse_json
from twinquant.model_card import write_card

RANGES_FILE = "quantization_ranges.safetensors"
# In the order of preference of transformers; the first that exists is read.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ARCHITECTURES = {
    names.QUESTION_ANSWERING: "BertForQuestionAnswering",
    names.CLASSIFICATION: "BertForSequenceClassification",
    None: "BertModel",
}
_Reads = dict[str, Callable[[str], np.ndarray]]  # tensor name -> function that reads it


def read_hugging_face(folder: str | os.PathLike[str]) -> Checkpoint:
    """Reads a folder in Hugging Face layout; ranges from quantization_ranges.safetensors or `_amax` buffers.

    The configuration is config.json, or bert_config.json as FasterTransformer's PyTorch example names it.
    Raises UserError naming the file that is missing, damaged or not a BERT model's.
    """
    folder = Path(folder)
    configs = [folder / name for name in ("config.json", "bert_config.json") if (folder / name).exists()]
    weights = [folder / name for name in WEIGHT_FILES if (folder / name).exists()]
    if not weights:
        raise UserError(f"the folder {folder} has no weights: expected one of {', '.join(WEIGHT_FILES)}")
    # before the weights: a model of another type should be refused for its type, not for its tensors' names
    config = BertConfig.from_json_file(configs[0]) if configs else None
    reads = _open_weights(weights[0])
    tensors, ranges, unused = from_state_dict(reads, lambda key: reads[key](key), str(weights[0]))
    if (folder / RANGES_FILE).exists():
        ranges = _read_ranges(folder / RANGES_FILE)
    vocab_file = folder / "vocab.txt"
    return Checkpoint(
        tensors=tensors,
        ranges=ranges,
        config=config,
        source=str(folder),
        vocab_file=vocab_file if vocab_file.exists() else None,
        metadata=_read_metadata(folder, config),
        unused=unused,
    )


def write_hugging_face(folder: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes the folder atomically: it appears whole, in the place of an older one of that name."""
    with atomic_folder(folder) as temporary:
        write_hugging_face_files(temporary, checkpoint)


def write_hugging_face_files(folder: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes the files into an existing folder, for callers that put more files beside them (see atomic_folder).

    The architecture follows the head among the tensors, so transformers' from_pretrained finds every key it needs.
    """
    folder = Path(folder)
    if checkpoint.config is None:
        raise UserError(f"{checkpoint.source or 'the checkpoint'} has no configuration: config.json needs one")
    write_safetensors(folder / "model.safetensors", to_state_dict(checkpoint.tensors))
    if checkpoint.ranges:
        ranges = {scope: np.asarray(amax, np.float32) for scope, amax in checkpoint.ranges.items()}
        write_safetensors(folder / RANGES_FILE, ranges)
    if checkpoint.vocab_file is not None:
        write_bytes_atomically(folder / "vocab.txt", read_file(checkpoint.vocab_file))
        tokenizer: dict[str, object] = {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": checkpoint.config.max_position_embeddings,
        }
        if "do_lower_case" in checkpoint.metadata:
            tokenizer["do_lower_case"] = checkpoint.metadata["do_lower_case"] == "true"
        write_json_atomically(folder / "tokenizer_config.json", tokenizer)
    if checkpoint.card:
        write_card(folder, checkpoint.card)
    head = names.head_of(checkpoint.tensors)
    num_labels = len(checkpoint.tensors["output_bias"]) if head == names.CLASSIFICATION else None
    write_json_atomically(folder / "config.json", hugging_face_config(checkpoint.config, head, num_labels))


def hugging_face_config(config: BertConfig, head: str | None, num_labels: int | None = None) -> dict[str, object]:
    """The content of config.json for a model with that head; `num_labels`: of a classification head."""
    if num_labels is not None and len(config.label_names or ()) != num_labels:
        config = config.with_labels([f"LABEL_{index}" for index in range(num_labels)])
    values = config.to_dict()
    values.pop("torch_dtype", None)  # the older name of dtype; the file may have been float16 where it came from
    if values["hidden_act"] == "gelu_tanh":  # the one spelling accepted here that transformers does not know
        values["hidden_act"] = "gelu_pytorch_tanh"
    return {**values, "architectures": [ARCHITECTURES[head]], "model_type": "bert", "dtype": "float32"}


def _open_weights(path: Path) -> _Reads:
    """The tensors of a weights file, or of all files that a sharded model's index lists."""
    if path.name.endswith(".index.json"):
        index = _read_json_object(path)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{path} has no weight_map from tensor names to file names")
        reads: _Reads = {}
        for name in sorted(set(weight_map.values())):
            if name.endswith(".index.json"):
                raise UserError(f"{path} lists {name}, which is an index itself; expected files of weights")
            if not (path.parent / name).exists():
                raise UserError(f"the file {path.parent / name} is missing, which {path} lists")
            reads |= _open_weights(path.parent / name)
        absent = sorted(set(weight_map) - set(reads))
        if absent:
            raise UserError(f"{path} lists the tensor {absent[0]}, which {weight_map[absent[0]]} does not hold")
        return reads
    if path.suffix == ".safetensors":
        reader = SafetensorsReader(path)
        return dict.fromkeys(reader.names, reader.read)
    state = read_torch_file(path)
    return dict.fromkeys(state, lambda key: to_numpy(state[key]))


def _read_ranges(path: Path) -> dict[str, np.ndarray]:
    reader = SafetensorsReader(path)
    for scope in reader.names:
        if not names.is_quantizer(scope):
            raise UserError(f"{path} holds {scope}, which is not the scope of a quantizer")
    return {scope: check_amax(scope, reader.read(scope), f"{scope} of {path}") for scope in reader.names}


def _read_metadata(folder: Path, config: BertConfig | None) -> dict[str, str]:
    metadata = {}
    architectures = config.extra.get("architectures") if config else None
    if isinstance(architectures, list) and architectures:
        metadata["architecture"] = str(architectures[0])
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists():
        lower = _read_json_object(tokenizer).get("do_lower_case")
        if isinstance(lower, bool):
            metadata["do_lower_case"] = str(lower).lower()
    return metadata


def _read_json_object(path: Path) -> dict[str, object]:
    value = parse_json(read_file(path), path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value
