"""A model repository of the Triton Inference Server: <name>/<version>/model.onnx and <name>/config.pbtxt.

The configuration is a text of Triton's message ModelConfig (triton-inference-server/common,
protobuf/model_config.proto), for its ONNX Runtime backend.
"""

import dataclasses
import logging
import shutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.card import card_names
from export.folder import COMPANION_NAMES, MODEL_NAME
from export.metadata import Metadata
from export.runtime import EXACT_WITHOUT_VNNI, read_model, session_entries
from twinquant.errors import UserError
from twinquant.files import atomic_folder, make_folder, write_bytes_atomically
from twinquant.model_card import FILE as CARD_NAME
from twinquant.model_card import is_ours

logger = logging.getLogger("twinquant")

CONFIG_NAME = "config.pbtxt"
_DATA_TYPES: dict[int, str] = {onnx.TensorProto.INT64: "TYPE_INT64", onnx.TensorProto.FLOAT: "TYPE_FP32"}
# The execution providers of Triton's ONNX Runtime backend that run a model as its target does (that backend's README).
_ACCELERATORS = {
    "openvino": 'cpu_execution_accelerator [ { name: "openvino" } ]',
    "tensorrt": 'gpu_execution_accelerator [ { name: "tensorrt" parameters { key: "precision_mode" value: "%s" } } ]',
}
_NEEDS_VNNI = (
    "It is for CPUs with VNNI (or Arm). On others its 8-bit products saturate without onnxruntime's session option "
    "session.x64quantprecision=1, which Triton passes on to no model; there, export with a reduced range."
)


@dataclass(frozen=True)
class TritonSettings:
    """Where in a repository a model is put, and how it is served.

    model_overwrite: replace a version, and a configuration, that is there. max_batch_size: rows. dyn_batching_delay:
    milliseconds that a request waits for others; 0 or -1: no dynamic batching is configured. engine_count: instances.
    """

    model_name: str = "bert"
    model_version: int = 1
    model_overwrite: bool = False
    max_batch_size: int = 8
    dyn_batching_delay: float = 0.0
    engine_count: int = 1

    @classmethod
    def names(cls) -> list[str]:
        """The settings' names, which are those of the flags."""
        return [field.name for field in dataclasses.fields(cls)]

    def folder(self, repository: str | Path) -> Path:
        """The version's folder."""
        return Path(repository, self.model_name, str(self.model_version))


def check_free(repository: str | Path, settings: TritonSettings) -> None:
    """Raises UserError where the version is there and must not be replaced."""
    folder = settings.folder(repository)
    if folder.exists() and not settings.model_overwrite:
        raise UserError(
            f"{folder} is there already: choose another name or version, or have it replaced (--trtis_model_overwrite; "
            "--model_overwrite of `python -m export triton`)"
        )


def place_version(repository: str | Path, settings: TritonSettings, fill: Callable[[Path], None]) -> list[Path]:
    """Puts a version of a model into a repository; returns the files written, the configuration last.

    Args:
        repository: a folder, made where it is missing.
        fill: given a folder, writes model.onnx and what belongs beside it there.

    Raises UserError as `check_free`, where the place cannot be written, and where another version's configuration
    would change; then nothing has changed.
    """
    check_free(repository, settings)
    folder = settings.folder(repository)
    config = folder.parent / CONFIG_NAME
    new = next((path for path in reversed([folder.parent, *folder.parent.parents]) if not path.exists()), None)
    make_folder(folder.parent)
    # Triton leaves out folders whose names are not numbers, so a server that is watching sees the version whole.
    try:
        with atomic_folder(folder) as temporary:
            fill(temporary)
            text = model_config(temporary / MODEL_NAME, settings)
            if config.exists() and not settings.model_overwrite and config.read_text(encoding="utf-8") != text:
                raise UserError(
                    f"{config} is another one than this version's, and all versions share it: choose another name, "
                    "give the settings of before, or have it replaced (--trtis_model_overwrite; --model_overwrite of "
                    "`python -m export triton`)"
                )
    except BaseException:
        if new is not None:
            shutil.rmtree(new)
        raise
    write_bytes_atomically(config, text.encode("utf-8"))
    return [*sorted(folder.iterdir()), config]


def copy_model(model: Path, folder: Path) -> None:
    """Copies an exported model, as model.onnx, with its data, its card and the files beside it."""
    shutil.copyfile(model, folder / MODEL_NAME)
    proto, _ = read_model(model)
    # The data keeps its name, which the model tells.
    data = {e.value for c in proto.graph.initializer for e in c.external_data if e.key == "location"} - {model.name}
    for name in (*sorted(data), *COMPANION_NAMES):
        if name in data or (model.parent / name).exists():
            shutil.copyfile(model.parent / name, folder / name)
    card = next((place for place in card_names(model) if is_ours(place, model.name)), None)
    if card is not None:
        shutil.copyfile(card, folder / CARD_NAME)


def model_config(model: Path, settings: TritonSettings) -> str:
    """The text of config.pbtxt for a model file that `export` wrote."""
    proto, metadata = read_model(model)
    kind = _instance_kind(metadata)
    lines = [*(f"# {line}" for line in _comments(metadata)), f'name: "{settings.model_name}"']
    lines += ['platform: "onnxruntime_onnx"', 'backend: "onnxruntime"', f"max_batch_size: {settings.max_batch_size}"]
    lines += _tensors("input", proto.graph.input)
    lines += _tensors("output", proto.graph.output)
    lines += ["instance_group [", f"  {{ count: {settings.engine_count} kind: {kind} }}", "]"]
    if settings.dyn_batching_delay > 0:
        delay = round(1000 * settings.dyn_batching_delay)
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}")
    accelerator = _ACCELERATORS.get(metadata["target"])
    if accelerator is not None:
        chosen = accelerator.replace("%s", "FP32" if metadata["precision"] == "fp32" else "INT8")
        lines.append(f"optimization {{ execution_accelerators {{ {chosen} }} }}")
    return "\n".join(lines) + "\n"


def _instance_kind(metadata: Metadata) -> str:
    if metadata["target"] == "tensorrt":
        return "KIND_GPU"
    # int8 of target onnxruntime is made of kernels for CPUs.
    runs_anywhere = metadata["target"] == "onnxruntime" and metadata["precision"] == "fp32"
    return "KIND_AUTO" if runs_anywhere else "KIND_CPU"


def _comments(metadata: Metadata) -> list[str]:
    """What the model is, and what the configuration cannot say."""
    words = [metadata["precision"], *([f"mode {metadata.mode_name}"] if metadata.mode_name else [])]
    text = f"BERT ({metadata['task']}), {', '.join(words)}, for {metadata['target']}."
    # Triton's ONNX Runtime backend knows one session option, and it is another one (onnxruntime_backend, issue 107).
    if metadata["precision"] != "fp32" and EXACT_WITHOUT_VNNI in session_entries(metadata, cpu="avx2"):
        logger.warning("warning: for Triton: %s", _NEEDS_VNNI)
        text += " " + _NEEDS_VNNI
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def _tensors(field: str, values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    lines = []
    for value in values:
        tensor = value.type.tensor_type
        # The first dimension is the batch, which Triton adds itself.
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim][1:]
        kind = _DATA_TYPES[tensor.elem_type]
        lines.append(f'  {{ name: "{value.name}" data_type: {kind} dims: [ {", ".join(map(str, dims))} ] }}')
    return [f"{field} [", ",\n".join(lines), "]"]
