"""Features kept on disk between runs, under a name made of everything that shapes them.

A change of the data, the vocabulary or any setting gives another name, so a cached file is never stale. A damaged
file is made anew, with a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import tokenizers

from tasks.base import Features
from tasks.squad_features import SquadFeatures
from tasks.tokenization import TokenizedTexts
from twinquant.errors import UserError
from twinquant.files import sha256_of_file, write_bytes_atomically

logger = logging.getLogger("twinquant")

FORMAT = 2  # raise when the features or their storage change
_MANIFEST = "manifest"  # a member of JSON: the key, the names of all other members, and the fields that are numbers
_TEXTS = ("ids", "words", "offsets")

F = TypeVar("F", bound=Features)


def features_key(data_file: str | Path, vocab_file: str | Path, **settings: Any) -> str:
    """SHA-256, in 64 hex digits, over the content of both files and all settings (values that JSON can hold).

    The settings are every argument that shapes the features: lower-casing, lengths, stride, training or not, and so on.
    """
    return checksum_key(sha256_of_file(data_file), vocab_file, **settings)


def checksum_key(data_checksum: str, vocab_file: str | Path, **settings: Any) -> str:
    """As `features_key`, of data that is not one file but has a checksum."""
    shapes = {
        "format": FORMAT,
        "tokenizers": tokenizers.__version__,
        "data": data_checksum,
        "vocabulary": sha256_of_file(vocab_file),
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def cached_features(
    folder: str | Path,
    key: str,
    make: Callable[[], F],
    overwrite: bool = False,
    form: type[Features] = SquadFeatures,
) -> F:
    """The features of this key, from `folder` or else from `make()`, whose result is then stored there (atomically).

    Args:
        form: the class of the features: a dataclass of arrays, tokenized texts, whole numbers and None.

    Raises UserError where the folder cannot be made or written.
    """
    path = Path(folder) / f"{form.__name__.removesuffix('Features').lower()}-features-{key}.npz"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if path.exists() and not overwrite:
            return cast(F, form(**_load(path, key, [field.name for field in dataclasses.fields(cast(Any, form))])))
    except OSError as error:
        raise UserError(f"feature cache {path} cannot be used: {error.strerror or error}") from None
    except _Damaged as error:
        logger.warning("feature cache %s is damaged (%s) and is made anew", path, error)
    features = make()
    write_bytes_atomically(path, _to_bytes(features, key))
    return features


class _Damaged(Exception):
    pass


def _to_bytes(features: Features, key: str) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    numbers: dict[str, int] = {}
    for field in dataclasses.fields(cast(Any, features)):
        value = getattr(features, field.name)
        if isinstance(value, TokenizedTexts):
            arrays |= {f"{field.name}/{part}": getattr(value, part) for part in _TEXTS}
        elif isinstance(value, int):
            numbers[field.name] = value
        elif value is not None:
            arrays[field.name] = value
    manifest = json.dumps({"key": key, "arrays": sorted(arrays), "numbers": numbers})
    arrays[_MANIFEST] = np.frombuffer(manifest.encode("ascii"), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load(path: Path, key: str, fields: list[str]) -> dict[str, Any]:
    """The values of these fields; None where the file has none."""
    try:
        content = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(content) as file:
            bad_member = file.testzip()  # compares every member with its checksum
        if bad_member is not None:
            raise _Damaged(f"the checksum of {bad_member} is wrong")
        content.seek(0)
        with np.load(content, allow_pickle=False) as file:
            arrays: dict[str, np.ndarray] = {name: file[name] for name in file.files}
        manifest = json.loads(arrays.pop(_MANIFEST).tobytes())
        if manifest["key"] != key or manifest["arrays"] != sorted(arrays):
            raise _Damaged("it holds other features than its name says")
        return {name: _value(arrays, manifest["numbers"], name) for name in fields}
    except (zipfile.BadZipFile, struct.error, ValueError, LookupError, EOFError, RuntimeError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from None


def _value(arrays: dict[str, np.ndarray], numbers: dict[str, int], name: str) -> Any:
    if f"{name}/ids" in arrays:
        return TokenizedTexts(*(arrays[f"{name}/{part}"] for part in _TEXTS))
    return numbers.get(name, arrays.get(name))
