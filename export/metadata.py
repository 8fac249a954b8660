"""What an exported model says of itself: its metadata_props, written and read.

Nothing in it depends on where the checkpoint lay or on which form it had, so that equal weights give equal files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from checkpoints.config import BertConfig
from export.integrity import check_metadata
from export.settings import ExportSettings
from export.source import Source, hash_arrays
from quantization.modes import Mode, get_mode
from quantization.ranges import Ranges
from twinquant import __version__
from twinquant.errors import UserError

_PREFIX = "twinquant."
_CALIBRATION_KEYS = ("calib_method", "percentile", "batches", "batch_size", "padding_included")


@dataclass(frozen=True)
class Metadata:
    """The values by key, without the prefix; all are texts, as ONNX wants them."""

    values: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def flag(self, key: str) -> bool:
        """A yes/no value."""
        return self.values[key] == "true"

    @property
    def mode_name(self) -> str | None:
        """The mode of an int8 model."""
        return self.values["quant_mode"] or None

    @property
    def mode(self) -> Mode | None:
        """The mode of an int8 model, without the quantizers that were left in float."""
        if self.mode_name is None:
            return None
        return replace(get_mode(self.mode_name), excluded=frozenset(json.loads(self.values["quant_exclude"])))

    def props(self) -> dict[str, str]:
        """As metadata_props hold them."""
        return {_PREFIX + key: value for key, value in self.values.items()}


def describe_model(source: Source, settings: ExportSettings, ranges: Ranges) -> Metadata:
    """The metadata of a model."""
    config = source.config
    return Metadata(
        {
            "version": __version__,
            "task": source.task,
            "head": source.head,
            "labels": json.dumps(source.label_names, ensure_ascii=False),
            "precision": settings.precision,
            "quant_mode": settings.mode.name if settings.mode else "",
            "quant_exclude": json.dumps(sorted(settings.mode.excluded) if settings.mode else []),
            "target": settings.target,
            "portable": _word(settings.portable),
            "int8_embeddings": _word(settings.int8_embeddings),
            "reduce_range": _word(settings.reduce_range),
            "vnni": _word(settings.vnni),
            "ranges_source": json.dumps(_ranges_source(source, settings)),
            "ranges_sha256": hash_arrays(ranges) if ranges else "",
            "tensors_sha256": hash_arrays(source.tensors),
            "config": json.dumps(_sizes(config)),
        }
    )


def read_metadata(props: Mapping[str, str], path: str) -> Metadata:
    """The metadata of a model file; UserError naming `path` where it was not written by this exporter."""
    values = {key.removeprefix(_PREFIX): value for key, value in props.items() if key.startswith(_PREFIX)}
    missing = [key for key in _KEYS if key not in values]
    if missing:
        found = "no metadata of this exporter" if not values else f"no {_PREFIX}{missing[0]} in its metadata"
        raise UserError(f"{path} was not written by `python -m export onnx`: it has {found}")
    check_metadata(values, path)
    return Metadata(values)


def _ranges_source(source: Source, settings: ExportSettings) -> dict[str, object] | None:
    """How the ranges were found, as calibration.json beside the checkpoint tells it."""
    if settings.precision != "int8":
        return None
    if source.calibration is None:
        return {"calib_method": "unknown: no calibration.json beside the checkpoint tells these ranges"}
    return {key: source.calibration[key] for key in _CALIBRATION_KEYS if source.calibration.get(key) is not None}


def _sizes(config: BertConfig) -> dict[str, object]:
    """What shapes the computation, without spellings and dropout, which differ between forms of one checkpoint."""
    names = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "activation",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}


def _word(value: bool) -> str:
    return "true" if value else "false"


_KEYS = (
    "version", "task", "head", "labels", "precision", "quant_mode", "quant_exclude", "target", "portable",
    "int8_embeddings", "reduce_range", "vnni", "ranges_source", "ranges_sha256", "tensors_sha256", "config",
)  # fmt: skip
