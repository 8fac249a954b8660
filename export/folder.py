"""Where a model goes: written under a temporary name, checked there, then renamed; and the files beside it.

config.json, vocab.txt and tokenizer_config.json lie beside the model, so that optimum and transformers load the folder.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from checkpoints.config import BertConfig
from checkpoints.hugging_face import ARCHITECTURES, hugging_face_config
from checkpoints.tf_checkpoint import read_file
from export.source import TASK_HEADS, Source
from twinquant.errors import UserError
from twinquant.files import make_folder

MODEL_NAME = "model.onnx"
CONFIG_NAME, VOCAB_NAME, TOKENIZER_NAME = COMPANION_NAMES = ("config.json", "vocab.txt", "tokenizer_config.json")
_COMPARED = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "activation",
)  # fmt: skip


def model_path(output: str | Path) -> Path:
    """The model's path: `output` itself where it ends in .onnx, else model.onnx in the folder of that name."""
    path = Path(output)
    return path if path.suffix == ".onnx" else path / MODEL_NAME


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Gives the path of a model in an empty hidden folder beside `path`; removes what is left of it afterwards.

    Call `publish` in the block to give its files their names. Raises UserError where the place cannot be written.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise UserError(f"cannot write the model {path}: a folder of that name is in the way")
    folder = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        folder.mkdir()
        yield folder / path.name
    except OSError as error:
        # The block reads other files too: only errors about what is written here are ours to reword.
        about = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder
        if not about.is_relative_to(folder):
            raise
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(temporary: Path, names: list[str], path: Path, source: Source) -> list[Path]:
    """Gives the files `names` in the folder of `temporary` their places beside `path`, the model last.

    The companions go first, so that a reader who sees the model sees all of it. Returns the paths written.
    Raises UserError where the folder holds the config.json of another model.
    """
    companions = _companions(source)
    _check_companions(path.parent, source.config, source.label_names, companions.get(VOCAB_NAME))
    _check_head(path.parent / CONFIG_NAME, source)
    written = []
    for name, data in companions.items():
        # What is there already describes the same model, perhaps with more detail than is known here.
        if not (path.parent / name).exists():
            (temporary.parent / name).write_bytes(data)
            written.append(name)
    names = [*written, *names]
    for name in names:
        descriptor = os.open(temporary.parent / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for name in names:
        os.replace(temporary.parent / name, path.parent / name)
    return [path.parent / name for name in names]


def check_place(output: str | Path, config: BertConfig, vocab_file: Path) -> None:
    """Whether a model of that config and vocabulary can be written to `output`, for those who make the model first.

    Raises UserError where the place cannot be written or holds another model's files.
    """
    path = model_path(output)
    with staged(path):
        _check_companions(path.parent, config, None, read_file(vocab_file))


def _companions(source: Source) -> dict[str, bytes]:
    checkpoint = source.checkpoint
    config = source.config
    if source.label_names is not None:
        config = config.with_labels(source.label_names)
    files = {CONFIG_NAME: _json(hugging_face_config(config, source.head, source.num_labels))}
    if checkpoint.vocab_file is not None:
        tokenizer: dict[str, object] = {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": config.max_position_embeddings,
        }
        if "do_lower_case" in checkpoint.metadata:
            tokenizer["do_lower_case"] = checkpoint.metadata["do_lower_case"] == "true"
        files |= {VOCAB_NAME: read_file(checkpoint.vocab_file), TOKENIZER_NAME: _json(tokenizer)}
    return files


def _check_companions(
    folder: Path, config: BertConfig, label_names: list[str] | None, vocabulary: bytes | None
) -> None:
    """Refuses to put a model beside the files of another; None: not compared."""
    config_file, vocab_file = folder / CONFIG_NAME, folder / VOCAB_NAME
    if config_file.exists():
        found = BertConfig.from_json_file(config_file)
        pairs = {name: (getattr(found, name), getattr(config, name)) for name in _COMPARED}
        # transformers leaves the names out where they are its own: LABEL_0, LABEL_1.
        if label_names is not None and found.label_names is not None:
            pairs |= {"label_names": (found.label_names, label_names)}
        for name, (there, here) in pairs.items():
            if there != here:
                raise UserError(
                    f"{config_file} describes another model ({name} is {there}, not {here}): choose an --output in a "
                    "folder of its own"
                )
    if vocab_file.exists() and vocabulary is not None and read_file(vocab_file) != vocabulary:
        raise UserError(f"{vocab_file} is another model's vocabulary: choose an --output in a folder of its own")


def _check_head(config_file: Path, source: Source) -> None:
    """Refuses the config of a model for the other of the two tasks."""
    if not config_file.exists():
        return
    there = BertConfig.from_json_file(config_file).extra.get("architectures")
    heads = {ARCHITECTURES[head] for head in TASK_HEADS.values()}
    here = hugging_face_config(source.config, source.head, source.num_labels)["architectures"]
    if there != here and isinstance(there, list) and set(map(str, there)) & heads:
        raise UserError(
            f"{config_file} describes another model (architectures is {there}, not {here}): choose an --output in a "
            "folder of its own"
        )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=4, ensure_ascii=False) + "\n").encode("utf-8")
