"""Features kept on disk between runs, under a name made of everything that shapes them.

A change of the data file, the vocabulary or any setting gives another name, so a cached file is never stale. A damaged
file is made anew, with a warning.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from tasks.squad_features import SquadFeatures
from tasks.tokenization import TokenizedTexts
from twinquant.errors import UserError
from twinquant.files import sha256_of_file, write_bytes_atomically

logger = logging.getLogger("twinquant")

FORMAT = 1  # raise when the features or their storage change
_ARRAYS = ("paragraph_index", "example_index", "window_start", "window_length", "first_window", "stride")
_TEXTS = ("contexts", "questions")
_LABELS = ("start_positions", "end_positions")
_TOKENS = ("cls_id", "sep_id", "pad_id")


def features_key(data_file: str | Path, vocab_file: str | Path, **settings: Any) -> str:
    """SHA-256, in 64 hex digits, over the content of both files and all settings (values that JSON can hold).

    The settings are every argument that shapes the features: lower-casing, lengths, stride, training or not, and so on.
    """
    shapes = {
        "format": FORMAT,
        "tokenizers": tokenizers.__version__,
        "data": sha256_of_file(data_file),
        "vocabulary": sha256_of_file(vocab_file),
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def cached_features(
    folder: str | Path, key: str, make: Callable[[], SquadFeatures], overwrite: bool = False
) -> SquadFeatures:
    """The features of this key, from `folder` or else from `make()`, whose result is then stored there (atomically).

    Raises UserError where the folder cannot be made or written.
    """
    path = Path(folder) / f"squad-features-{key}.npz"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if path.exists() and not overwrite:
            return _load(path, key)
    except OSError as error:
        raise UserError(f"feature cache {path} cannot be used: {error.strerror or error}") from None
    except _Damaged as error:
        logger.warning("feature cache %s is damaged (%s) and is made anew", path, error)
    features = make()
    write_bytes_atomically(path, _to_bytes(features, key))
    return features


class _Damaged(Exception):
    pass


def _to_bytes(features: SquadFeatures, key: str) -> bytes:
    arrays: dict[str, np.ndarray] = {name: getattr(features, name) for name in _ARRAYS}
    for name in _TEXTS:
        texts: TokenizedTexts = getattr(features, name)
        arrays |= {f"{name}/ids": texts.ids, f"{name}/words": texts.words, f"{name}/offsets": texts.offsets}
    if features.start_positions is not None:
        arrays |= {name: getattr(features, name) for name in _LABELS}
    arrays["special_tokens"] = np.array([getattr(features, name) for name in _TOKENS], np.int64)
    arrays["key"] = np.frombuffer(key.encode("ascii"), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load(path: Path, key: str) -> SquadFeatures:
    try:
        content = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(content) as file:
            bad_member = file.testzip()  # compares every member with its checksum
        if bad_member is not None:
            raise _Damaged(f"the checksum of {bad_member} is wrong")
        content.seek(0)
        with np.load(content, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        if arrays["key"].tobytes() != key.encode("ascii"):
            raise _Damaged("it holds other features than its name says")
        fields: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        fields |= {name: arrays.get(name) for name in _LABELS}
        fields |= zip(_TOKENS, arrays["special_tokens"].tolist(), strict=True)
        for name in _TEXTS:
            fields[name] = TokenizedTexts(*(arrays[f"{name}/{part}"] for part in ("ids", "words", "offsets")))
        return SquadFeatures(**fields)
    except (zipfile.BadZipFile, struct.error, ValueError, LookupError, EOFError, RuntimeError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from None
