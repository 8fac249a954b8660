"""TensorFlow's `checkpoint` state file: which checkpoint of a folder is the latest. Both backends write and read it.

The file is a CheckpointState protocol buffer as text: one line `model_checkpoint_path: "<name>"`, then one line
`all_model_checkpoint_paths: "<name>"` per kept checkpoint, oldest first. A name is a bundle prefix or, for the PyTorch
backend, a folder; relative names are relative to the state file's folder.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from twinquant.errors import UserError
from twinquant.files import write_bytes_atomically

STATE_FILE = "checkpoint"
_LINE = re.compile(
    r'\s*(model_checkpoint_path|all_model_checkpoint_paths)\s*:\s*("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')'
)
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", '"': b'"', "'": b"'", "\\": b"\\"}


def write_checkpoint_state(folder: str | os.PathLike[str], name: str, all_names: Sequence[str]) -> None:
    """Writes the state file of `folder`, atomically.

    Args:
        folder: where the checkpoints lie.
        name: the latest checkpoint, relative to `folder` (such as "model.ckpt-5474").
        all_names: all kept checkpoints, oldest first, relative to `folder`.
    """
    for each in (name, *all_names):
        if os.path.isabs(each):
            raise ValueError(f"the checkpoint name {each} must be relative to its folder, so that the folder can move")
    lines = [f"model_checkpoint_path: {_quote(name)}"]
    lines += [f"all_model_checkpoint_paths: {_quote(each)}" for each in all_names]
    write_bytes_atomically(Path(folder, STATE_FILE), ("\n".join(lines) + "\n").encode("ascii"))


def read_checkpoint_state(folder: str | os.PathLike[str]) -> tuple[str, list[str]] | None:
    """The latest name and all names as they are written in the state file; None when the folder has no state file.

    Raises UserError when the file cannot be read or names no checkpoint.
    """
    path = Path(folder, STATE_FILE)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a checkpoint state file: {error}") from error
    latest, every = None, []
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:  # timestamps, which TensorFlow also writes, and comments
            continue
        name = _unquote(found[2], path)
        if found[1] == "model_checkpoint_path":
            latest = name
        else:
            every.append(name)
    if not latest:
        raise UserError(f'{path} names no checkpoint: expected a line such as model_checkpoint_path: "model.ckpt-100"')
    return latest, every or [latest]


def latest_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """The path of the folder's latest checkpoint (a bundle prefix or a folder); None when there is no state file.

    Raises UserError when the state file names a checkpoint that is not there; no older one is taken in its place.
    """
    state = read_checkpoint_state(folder)
    if state is None:
        return None
    named = os.path.join(folder, state[0])
    # TensorFlow may have written absolute paths; they go stale when the folder is moved or copied.
    moved = os.path.join(folder, os.path.basename(state[0]))
    for path in (named, moved):
        if os.path.exists(f"{path}.index") or os.path.isdir(path):
            return path
    raise UserError(
        f"{Path(folder, STATE_FILE)} names {state[0]} as the latest checkpoint, but neither {named}.index nor a folder "
        f"{named} exists"
    )


def _quote(name: str) -> str:
    """Escapes like protocol buffers' text format: backslash, quotes, and octal numbers for all that is not ASCII."""
    quoted = "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
        for byte in name.encode("utf-8")
    )
    return f'"{quoted}"'


def _unquote(quoted: str, path: Path) -> str:
    raw = b""
    for found in re.finditer(r"\\([0-7]{1,3})|\\x([0-9a-fA-F]{1,2})|\\(.)|([^\\]+)", quoted[1:-1]):
        octal, hexadecimal, escaped, plain = found.groups()
        if octal is not None:
            raw += bytes([int(octal, 8) & 0xFF])
        elif hexadecimal is not None:
            raw += bytes([int(hexadecimal, 16)])
        else:
            raw += plain.encode("utf-8") if plain is not None else _ESCAPES.get(escaped, escaped.encode("utf-8"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a checkpoint state file: {error}") from error
