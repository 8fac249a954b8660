"""From a row of the table to the files that its process opens: exported, quantized, or the checkpoint itself."""

import json
from pathlib import Path

from checkpoints.config import BertConfig
from checkpoints.hugging_face import RANGES_FILE, WEIGHT_FILES
from checkpoints.names import CLASSIFICATION
from export.commands import choose_settings, export_model
from export.compare.models import ModelSpec
from export.compare.rows import Row, missing_framework
from export.flags import Arguments
from export.kernels import kernel_use
from export.runtime import read_model
from export.settings import describe_mode
from export.source import Source
from twinquant.errors import UserError

SHARE_POSITIONS = 128  # of the row whose multiplications are counted


def prepare_row(row: Row, source: Source, arguments: Arguments, folder: Path) -> None:
    """Fills in the row's model, file size, int8 share and notes, or the reason why it cannot be measured.

    Args:
        folder: where models of this checkpoint are written.
    """
    row.reason = missing_framework(row.kind)
    if row.reason:
        return
    precision = row.kind.precision
    if precision == "int8" and not source.checkpoint.ranges:
        row.reason = "the checkpoint has no ranges: run_squad.py or run_glue.py --do_calib finds them"
        return
    try:
        if row.kind.runtime in ("onnxruntime", "openvino"):
            _prepare_onnx(row, source, arguments, folder)
        elif precision == "int8-dynamic":
            _prepare_dynamic(row, source, folder)
        else:
            _prepare_backend(row, source, arguments)
    except UserError as error:
        row.reason = str(error)


def _prepare_backend(row: Row, source: Source, arguments: Arguments) -> None:
    mode = None
    if row.kind.precision == "int8":
        mode = source.choose_mode(arguments["quant_mode"], arguments["quant_exclude"])
    if mode is not None:
        source.ranges(mode)  # UserError for what is missing, before a process is started
        row.notes.append(
            f"mode {describe_mode(mode)}, simulated in float32: int8's accuracy, not its speed, size or memory"
        )
    row.spec = ModelSpec(
        row.kind.runtime,
        source.name,
        quant_mode=mode.name if mode is not None else None,
        quant_exclude=sorted(mode.excluded) if mode is not None else [],
        task=source.task,
        config_file=arguments["bert_config_file"],
    )
    row.file_bytes = checkpoint_bytes(source.name, with_ranges=mode is not None)
    row.int8_share = 0.0


def _prepare_dynamic(row: Row, source: Source, folder: Path) -> None:
    from backends.pytorch.dynamic import DynamicModel, DynamicSettings
    from checkpoints.dynamic_folder import WEIGHTS_FILE

    model = DynamicModel.from_tensors(source.config, source.head, source.num_labels, source.tensors, DynamicSettings())
    path = folder / row.kind.name
    model.save(path)
    row.notes.append(f"{model.describe()}; its int8 share is computed from the sizes of its layers")
    row.spec = ModelSpec("pytorch", str(path), dynamic=True)
    row.file_bytes = (path / WEIGHTS_FILE).stat().st_size
    row.int8_share = dense_share(source.config, source.head, source.num_labels, _positions(source))


def _prepare_onnx(row: Row, source: Source, arguments: Arguments, folder: Path) -> None:
    target = row.kind.runtime
    takes_range = target == "onnxruntime" and row.kind.precision != "fp32"
    own = {
        "precision": row.kind.precision,
        "target": target,
        "cpu": "this",
        "reduce_range": arguments["reduce_range"] if takes_range else None,
        "portable": False,
        "int8_embeddings": False,
    }
    settings = choose_settings(Arguments(arguments.values | own, ()), source)
    if settings.mode is not None:
        row.notes.append(f"mode {describe_mode(settings.mode)}")
    if settings.reduce_range:
        why = "" if arguments["reduce_range"] else ", since this CPU has no VNNI"
        row.notes.append(f"weights of 7 bits{why}")
    path = folder / row.kind.name / "model.onnx"
    export_model(source, settings, path)
    _, metadata = read_model(path)
    session = {key: metadata[key] for key in ("target", "reduce_range")}
    row.spec = ModelSpec(target, str(path), session=session)
    row.file_bytes = sum(entry.stat().st_size for entry in path.parent.glob("*.onnx*"))
    if target == "openvino":
        from export.compare.openvino_model import int8_share

        row.int8_share = int8_share(path, _positions(source))
    else:
        row.int8_share = kernel_use(path, metadata, _positions(source)).int8_share


def checkpoint_bytes(path: str, with_ranges: bool) -> int | None:
    """Size of a checkpoint's files that hold weights and, `with_ranges`, those that hold nothing but ranges.

    None where it is not known.

    Args:
        path: a Hugging Face folder, a TensorFlow prefix, or a file.
    """
    place = Path(path)
    if not place.parent.is_dir():  # a name on the hub, whose files lie in the hub's cache
        return None
    if place.is_file():
        return place.stat().st_size
    if not place.is_dir():
        parts = (
            file
            for file in place.parent.iterdir()
            if file.name.startswith((f"{place.name}.data-", f"{place.name}.index"))
        )
        return sum(file.stat().st_size for file in parts)
    weights = next(place / name for name in WEIGHT_FILES if (place / name).exists())
    files = {weights}
    if weights.suffix == ".json":
        files |= {place / name for name in json.loads(weights.read_text())["weight_map"].values()}
    if with_ranges and (place / RANGES_FILE).exists():
        files.add(place / RANGES_FILE)
    return sum(file.stat().st_size for file in files)


def dense_share(config: BertConfig, head: str, num_labels: int | None, positions: int) -> float:
    """The dense layers' multiplications (and the pooler's) as a share of all, of one row of `positions` tokens.

    Beside them are the two products of attention and the head, which dynamic quantization leaves in float32.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    dense = layers * positions * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    other = layers * 2 * positions**2 * hidden
    if head == CLASSIFICATION:
        return (dense + hidden**2) / (dense + hidden**2 + other + hidden * (num_labels or 1))
    return dense / (dense + other + positions * hidden * 2)


def _positions(source: Source) -> int:
    return min(SHARE_POSITIONS, source.config.max_position_embeddings)
