"""The steps of a check: what the file says, how it runs, and what it answers beside its checkpoint."""

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onnx import GraphProto, TensorProto, numpy_helper

from backends.base import OUTPUT_NAMES
from export.check import compare_on_batches, compare_on_task, make_reference, random_batches
from export.cpu import has_vnni
from export.grids import make_grids
from export.kernels import expected_int8_products, kernel_use
from export.layers import layer_differences
from export.metadata import Metadata
from export.rules import broken_rules
from export.runtime import OnnxPredictor, read_model
from export.settings import ExportSettings
from export.source import Source, hash_arrays
from export.verdict import Bounds, Verdict
from quantization.modes import MODE_NAMES
from tasks.base import Task
from twinquant.errors import UserError
from twinquant.memory import large_blocks_freed_at_once, release_freed_memory

_FRAMEWORKS = {"pytorch": "torch", "tensorflow": "tensorflow"}


@dataclass(frozen=True)
class CheckSettings:
    """How a check is made.

    backend: name of the backend of the checkpoint's side; None: the first that is installed. threads: of onnxruntime,
    0: one per core. positions: length of the row whose kernels are counted.
    """

    backend: str | None = None
    batch_size: int = 8
    max_seq_length: int = 384
    threads: int = 0
    positions: int = 128


def installed_backend() -> str | None:
    """The first backend whose framework is installed, found without importing it; None where there is none."""
    return next((name for name, module in _FRAMEWORKS.items() if importlib.util.find_spec(module) is not None), None)


def settings_of(metadata: Metadata) -> ExportSettings:
    """The settings that a model was exported with."""
    return ExportSettings(
        precision=metadata["precision"],
        mode=metadata.mode,
        target=metadata["target"],
        portable=metadata.flag("portable"),
        int8_embeddings=metadata.flag("int8_embeddings"),
        reduce_range=metadata.flag("reduce_range"),
        vnni=metadata.flag("vnni"),
    )


def verify(
    path: Path,
    source: Source,
    check: CheckSettings,
    bounds: Bounds,
    task: Task | None = None,
) -> Verdict:
    """Checks the model file `path` against the checkpoint it was made from; the source has no tensors after it.

    Args:
        task: the data to compare on; None: random tokens.

    Raises UserError where the model or the data cannot be read; what does not fit is in the verdict's failures.
    """
    proto, metadata = read_model(path)
    if metadata["quant_mode"] not in ("", *MODE_NAMES):  # of single settings, or damaged
        raise UserError(
            f"{path} has the mode {metadata['quant_mode']!r:.60}, which cannot be checked; expected one of "
            f"{', '.join(MODE_NAMES)}"
        )
    settings = settings_of(metadata)
    verdict = Verdict(settings, file_bytes=bytes_by_type(proto.graph, path))
    verdict.failures += _foreign(metadata, source, settings)
    if settings.target != "onnxruntime" and settings.precision == "int8":
        constants = {c.name: numpy_helper.to_array(c, str(path.parent)) for c in proto.graph.initializer}
        verdict.failures += broken_rules(proto.graph, constants, settings.target)
    del proto
    if verdict.failures:
        return verdict
    mode = settings.effective_mode
    layers = source.config.num_hidden_layers
    grids = make_grids(mode, source.ranges(mode), layers) if mode is not None else {}
    if settings.precision != "fp32":
        verdict.expected_int8 = expected_int8_products(settings.precision, layers, grids)
    positions = min(check.positions, source.config.max_position_embeddings)
    verdict.notes += _notes(settings)
    backend_name = check.backend or installed_backend()
    if backend_name is None:
        verdict.notes.append("not compared with the checkpoint: neither torch nor tensorflow is installed")
    else:
        batches = random_batches(source)
        if settings.precision == "int8":  # before the whole reference is in memory
            verdict.layer_differences = layer_differences(path, metadata, source, settings, backend_name, batches)
            release_freed_memory()
        open_reference = partial(make_reference, source, settings, backend_name, use_up=True)
        open_model = partial(_open_model, path, metadata, check.threads, list(OUTPUT_NAMES[source.head]))
        if task is None:
            verdict.comparison = compare_on_batches(open_model, open_reference, settings, batches)
        else:
            length = min(check.max_seq_length, source.config.max_position_embeddings)
            verdict.comparison = compare_on_task(open_model, open_reference, task, check.batch_size, length)
    release_freed_memory()
    with large_blocks_freed_at_once():
        verdict.kernels = kernel_use(path, metadata, positions)
    verdict.judge(bounds)
    return verdict


def _open_model(path: Path, metadata: Metadata, threads: int, expected: list[str]) -> OnnxPredictor:
    release_freed_memory()
    with large_blocks_freed_at_once():
        model = OnnxPredictor(path, metadata, threads, lean=True)
    if model.outputs != expected:
        raise UserError(f"{path} gives {', '.join(model.outputs)}, expected {', '.join(expected)}")
    return model


def bytes_by_type(graph: GraphProto, path: Path) -> dict[str, int]:
    """Bytes of the constants by type ("float32", "int8", ...) and, as "graph", those of all else in the model file."""
    sizes: dict[str, int] = {}
    inside = 0
    for constant in graph.initializer:
        kind = TensorProto.DataType.Name(constant.data_type).lower().replace("float", "float32")
        external = {entry.key: entry.value for entry in constant.external_data}
        size = int(external["length"]) if "length" in external else len(constant.raw_data)
        sizes[kind] = sizes.get(kind, 0) + size
        inside += size if external.get("location", path.name) == path.name else 0
    return sizes | {"graph": path.stat().st_size - inside}


def _foreign(metadata: Metadata, source: Source, settings: ExportSettings) -> list[str]:
    """Why the model cannot be compared with the checkpoint: it was made from another one."""
    if metadata["head"] != source.head:
        return [f"the model is for {metadata['head']}, the checkpoint {source.name} for {source.head}"]
    if metadata["tensors_sha256"] != hash_arrays(source.tensors):
        return [f"the model was made from other weights than those of {source.name}"]
    mode = settings.effective_mode
    if mode is not None and metadata["ranges_sha256"] != hash_arrays(source.ranges(mode)):
        return [f"the model was made with other ranges than those of {source.name}"]
    return []


def _notes(settings: ExportSettings) -> list[str]:
    notes = []
    if settings.target != "onnxruntime":
        notes.append(f"made for {settings.target}: onnxruntime runs it as written, not as {settings.target} will")
    if settings.reduce_range and settings.mode is not None:
        notes.append("the checkpoint's weights are rounded to 7 bits too")
    if settings.portable and settings.mode is not None:
        notes.append(
            "the model's biases are rounded to int32; the checkpoint's are not, but in the layers by themselves"
        )
    if settings.int8_embeddings:
        notes.append("the checkpoint's embeddings are rounded to int8 too")
    if settings.precision == "int8-dynamic":
        notes.append("compared with the float checkpoint: backends find no ranges at run time")
    saturates = settings.precision != "fp32" and settings.target == "onnxruntime" and not has_vnni()
    if saturates and settings.precision == "int8" and settings.vnni and not settings.portable:
        notes.append("this CPU has no VNNI, and its products of Q with K and of probabilities with V may saturate")
    if saturates and not settings.reduce_range:
        notes.append("this CPU has no VNNI: run the model with the session option session.x64quantprecision=1, as here")
    return notes
