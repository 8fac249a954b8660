"""What an interrupted comparison had measured on the data: one file per row, until the report is written.

The files lie in <output>/unfinished. A row is taken from there only where everything that shapes it is the same.
"""

import dataclasses
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

from export.compare.accuracy import Accuracy
from export.compare.rows import Row
from export.source import Source, hash_arrays
from twinquant.errors import UserError
from twinquant.files import make_folder, remove_folder, sha256_of_file, write_json_atomically
from twinquant.json_text import parse_json

logger = logging.getLogger("twinquant")

FOLDER = "unfinished"
_FIELDS: dict[str, Any] = {
    "answers": dict, "right": dict, "scores": dict, "main_metric": str | None, "rows": int, "seconds": float | int,
    "peak_bytes": int,
}  # fmt: skip


def row_key(
    row: Row, source: Source, data: str, vocab_file: str | None, settings: dict[str, Any], machine: dict[str, Any]
) -> str:
    """SHA-256 of everything that shapes a row's pass over the data: 64 hex digits.

    Args:
        data: the file, or the folder, with all below it.
        vocab_file: the one that was given; None: that beside the checkpoint is used.
        settings: the flags of the data, the number of threads.
    """
    place = Path(data)
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    vocab = vocab_file or source.checkpoint.vocab_file
    models = sorted(Path(row.spec.path).parent.glob("*.onnx*")) if row.spec and row.spec.path.endswith(".onnx") else []
    values = {
        "row": row.kind.name,
        "notes": row.notes,
        "mode": [row.spec.quant_mode, sorted(row.spec.quant_exclude)] if row.spec else None,
        "models": [sha256_of_file(path) for path in models],
        "tensors": hash_arrays(source.tensors),
        "ranges": hash_arrays(source.checkpoint.ranges),
        "config": dataclasses.asdict(source.config),
        "labels": source.label_names,
        "vocab": sha256_of_file(vocab) if vocab is not None else None,
        "data": {str(path.relative_to(place)): sha256_of_file(path) for path in files},
        "settings": settings,
        "versions": machine["versions"],
        "cpu": [machine["cpu"], machine["cpu_flags"]],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def save(output: Path, key: str, accuracy: Accuracy) -> None:
    """Keeps a row's pass."""
    make_folder(output / FOLDER)
    write_json_atomically(output / FOLDER / f"{key}.json", dataclasses.asdict(accuracy))


def load(output: Path, key: str) -> Accuracy | None:
    """The pass that was kept under this key; None where there is none, or, with a warning, a damaged one."""
    path = output / FOLDER / f"{key}.json"
    if not path.exists():
        return None
    try:
        kept = parse_json(path.read_bytes(), path)
        if not isinstance(kept, dict) or not all(
            name in kept and isinstance(kept[name], kind) for name, kind in _FIELDS.items()
        ):
            raise UserError(f"{path} does not hold what it should")
        if not 0 < kept["seconds"] <= sys.float_info.max:
            raise UserError(f"{path} has {kept['seconds']!r:.40} seconds, expected a number above zero")
        return Accuracy(**{name: kept[name] for name in _FIELDS})
    except UserError as error:
        logger.warning("%s; the row is measured anew", error)
        return None


def forget(output: Path) -> None:
    """Removes what was kept."""
    if (output / FOLDER).exists():
        remove_folder(output / FOLDER)
