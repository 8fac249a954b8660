"""What an interrupted comparison had measured on the data: one file per row, until the report is written.

The files lie in <output>/unfinished. A row is taken from there only where everything that shapes it is the same.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from export.compare.accuracy import Accuracy
from export.compare.rows import Row
from export.source import Source, hash_arrays
from twinquant.files import make_folder, remove_folder, sha256_of_file, write_json_atomically

FOLDER = "unfinished"


def row_key(row: Row, source: Source, data: str, settings: dict[str, Any], machine: dict[str, Any]) -> str:
    """SHA-256 of everything that shapes a row's pass over the data: 64 hex digits.

    Args:
        settings: the flags of the data, the number of threads.
    """
    place = Path(data)
    files = sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]
    values = {
        "row": row.kind.name,
        "notes": row.notes,
        "tensors": hash_arrays(source.tensors),
        "ranges": hash_arrays(source.checkpoint.ranges),
        "config": dataclasses.asdict(source.config),
        "labels": source.label_names,
        "vocab": sha256_of_file(vocab) if (vocab := source.checkpoint.vocab_file) is not None else None,
        "data": {path.name: sha256_of_file(path) for path in files},
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
    """The pass that was kept under this key; None where there is none."""
    path = output / FOLDER / f"{key}.json"
    return Accuracy(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def forget(output: Path) -> None:
    """Removes what was kept."""
    if (output / FOLDER).exists():
        remove_folder(output / FOLDER)
