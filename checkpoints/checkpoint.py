"""Loading a checkpoint of any supported form, and matching it against what a model needs."""

import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from checkpoints import names
from checkpoints.checkpoint_state import STATE_FILE, latest_checkpoint
from checkpoints.dynamic_folder import refuse_dynamic
from checkpoints.fastertransformer import read_fastertransformer
from checkpoints.hugging_face import RANGES_FILE, WEIGHT_FILES, read_hugging_face
from checkpoints.tf_checkpoint import read_tf_checkpoint
from checkpoints.value import Checkpoint
from twinquant.errors import UserError
from twinquant.words import counted

__all__ = ["Checkpoint", "MatchReport", "load_checkpoint", "match"]

FORMS = (
    "a TensorFlow checkpoint prefix (<prefix>.index and <prefix>.data-*), a Hugging Face folder (config.json with "
    "model.safetensors or pytorch_model.bin), a PyTorch state-dict file, a folder with a `checkpoint` state file, or a "
    "model name on the Hugging Face hub"
)
EXAMPLES = 3  # tensors of a wrong shape that are named; with another hidden_size every one is wrong
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# How huggingface_hub, and the libraries below it, say that there is no network, or that they were told so.
_UNREACHABLE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError")
# What torch.save writes: a zip archive, or in old files a pickle of protocol 2.
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint of any form that FORMS names; a bundle may be given by any of its file names.

    Raises UserError when nothing readable is there; the sentence names the path and the accepted forms. Likewise where
    a bundle and a folder of that name could both be meant.
    """
    path = os.fspath(path)
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path)
    if os.path.isfile(f"{prefix}.index"):
        if prefix == path and os.path.isfile(os.path.join(path, "config.json")):
            raise UserError(
                f"{path} is the name of two checkpoints, the TensorFlow checkpoint {prefix}.index and the folder "
                f"{path}; name {prefix}.index or {path}{os.sep}, or remove the one that is not meant"
            )
        return read_tf_checkpoint(prefix)
    if os.path.isdir(path):
        return _load_folder(Path(path))
    if prefix != path or any(Path(prefix).parent.glob(f"{_glob_escape(Path(prefix).name)}.data-*-of-*")):
        raise UserError(f"the checkpoint {prefix} has no index: {prefix}.index does not exist")
    if os.path.isfile(path):
        return _load_file(Path(path))
    return _load_from_hub(path)


@dataclasses.dataclass(frozen=True)
class MatchReport:
    """How a checkpoint fits a model: names of tensors taken, optional ones it lacks, and ones it has for nothing."""

    source: str
    loaded: list[str]
    missing: list[str]
    unused: list[str]

    def summary(self) -> str:
        """One line for the log."""
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        if self.missing:
            text += f"; not in the checkpoint and newly initialized: {_grouped(self.missing)}"
        if self.unused:
            text += f"; {len(self.unused)} tensors of the checkpoint not used: {_grouped(self.unused)}"
        return text


def match(
    checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], optional: Collection[str] = ()
) -> MatchReport:
    """Compares a checkpoint's tensors with the names and shapes a model needs (names.expected_tensors).

    Args:
        checkpoint: what was read.
        expected: shapes by canonical name.
        optional: names that may be absent, because the model can initialize them (a fresh head); a tensor that is
            there must have the expected shape all the same.

    Raises UserError that names the values of the configuration which the tensors contradict, and some tensors of a
    wrong shape, or every missing one.
    """
    wrong = [
        f"{name} is {list(checkpoint.tensors[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in checkpoint.tensors and checkpoint.tensors[name].shape != shape
    ]
    if wrong:
        more = f"; and {counted(len(wrong) - EXAMPLES, 'tensor')} more" if len(wrong) > EXAMPLES else ""
        raise UserError(
            f"{checkpoint.source} does not fit the model configuration{_contradictions(checkpoint, expected)}: "
            f"{'; '.join(wrong[:EXAMPLES])}{more}"
        )
    missing = [name for name in expected if name not in checkpoint.tensors]
    needed = [name for name in missing if name not in optional]
    if needed:
        raise UserError(
            f"{checkpoint.source} lacks {counted(len(needed), 'tensor')} the model needs"
            f"{_contradictions(checkpoint, expected)}: {_grouped(needed)}"
        )
    return MatchReport(
        source=checkpoint.source,
        loaded=[name for name in expected if name in checkpoint.tensors],
        missing=missing,
        unused=sorted({*checkpoint.unused, *(name for name in checkpoint.tensors if name not in expected)}),
    )


def _contradictions(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> str:
    """For instance " (hidden_size is 768, the checkpoint's 1024)"; "" where no value explains what is wrong."""
    wanted = names.config_sizes(expected)
    found = names.config_sizes({name: tensor.shape for name, tensor in checkpoint.tensors.items()})
    parts = [
        f"{field} is {size}, the checkpoint's {found[field]}"
        for field, size in wanted.items()
        if found.get(field, size) != size
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _load_folder(folder: Path) -> Checkpoint:
    if any((folder / name).exists() for name in WEIGHT_FILES):
        return read_hugging_face(folder)
    if (folder / STATE_FILE).exists():
        latest = latest_checkpoint(folder)
        if latest is None or os.path.realpath(latest) == os.path.realpath(folder):
            raise UserError(f"{folder / STATE_FILE} names its own folder as the latest checkpoint")
        if not os.path.exists(f"{latest}.index") and not any(os.path.exists(f"{latest}/{w}") for w in WEIGHT_FILES):
            raise UserError(f"{folder / STATE_FILE} names {latest}, a folder that holds no weights")
        return load_checkpoint(latest)
    prefixes = sorted(str(index.with_suffix("")) for index in folder.glob("*.index"))
    if len(prefixes) == 1:
        return read_tf_checkpoint(prefixes[0])
    if prefixes:
        raise UserError(f"the folder {folder} holds several checkpoints, name one of them: {', '.join(prefixes)}")
    refuse_dynamic(folder)
    raise UserError(f"the folder {folder} holds no checkpoint; expected {FORMS}")


def _load_file(path: Path) -> Checkpoint:
    if path.name in WEIGHT_FILES[:2]:
        return read_hugging_face(path.parent)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if start.startswith(_TORCH_MAGIC):
        return read_fastertransformer(path)
    refuse_dynamic(path)
    raise UserError(f"the file {path} is no checkpoint; expected {FORMS}")


def _load_from_hub(name: str) -> Checkpoint:
    """Fetches a model by its hub name; only for what cannot be meant as a path."""
    parent = os.path.dirname(name)
    if not _HUB_NAME.fullmatch(name) or ".ckpt" in name or (parent and os.path.isdir(parent)):
        raise UserError(f"the checkpoint {name} does not exist; expected {FORMS}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(
            f"the checkpoint {name} does not exist here, and fetching it from the Hugging Face hub needs "
            "huggingface_hub, which is not installed; pip install '.[hub]' installs it"
        ) from error
    # bert_config.json is the config where FasterTransformer's example saved the model; calibration.json and
    # settings.json say for which mode the ranges are.
    small = ["config.json", "bert_config.json", "vocab.txt", "tokenizer_config.json"]
    small += [RANGES_FILE, "calibration.json", "settings.json"]
    try:
        folder = snapshot_download(name, allow_patterns=[*small, "model*.safetensors", "model.safetensors.index.json"])
        if not any(os.path.exists(os.path.join(folder, file)) for file in WEIGHT_FILES[:2]):
            folder = snapshot_download(name, allow_patterns=[*small, "pytorch_model*.bin*"])
    except Exception as error:  # network, authentication, unknown name: many types, each means that it was not fetched
        reason = str(error).strip().splitlines()
        why = f"{type(error).__name__}: {reason[0].rstrip('.:') if reason else 'no text'}"
        what_to_do = "name a local folder or another model"
        if type(error).__name__ in _UNREACHABLE:
            why, what_to_do = (
                "it cannot be reached",
                "name a local folder, or download the model where there is internet",
            )
        raise UserError(
            f"the checkpoint {name} does not exist here and could not be fetched from the Hugging Face hub ({why}); "
            f"{what_to_do}"
        ) from error
    return dataclasses.replace(_load_folder(Path(folder)), source=name, fetched_into=folder)


def _grouped(tensor_names: Collection[str]) -> str:
    """Names with those of several layers folded: bert/encoder/layer_{0,1,2}/output/dense/bias."""
    layers: dict[str, list[str]] = {}
    for name in tensor_names:
        found = re.search(r"(?<=layer[_.])\d+", name)
        pattern = f"{name[: found.start()]}{{}}{name[found.end() :]}" if found else name
        layers.setdefault(pattern, []).append(found.group() if found else "")
    return ", ".join(
        pattern.replace("{}", numbers[0] if len(numbers) == 1 else "{" + ",".join(numbers) + "}")
        for pattern, numbers in layers.items()
    )


def _glob_escape(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
