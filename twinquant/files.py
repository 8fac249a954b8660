"""Safe files: what is written is there whole or not at all, also after a crash, a full disk or a kill.

Every writer puts the data under a temporary name in the same folder, flushes it to the disk (fsync), and renames it.
A rename within one folder is atomic on POSIX systems, so a reader sees the old content or the new, never a part.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twinquant.errors import UserError

PathLike = str | os.PathLike[str]

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def make_folder(path: PathLike) -> None:
    """Makes a folder and its parents where they are not there yet; UserError where that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be made: {error.strerror}") from error


def write_bytes_atomically(path: PathLike, data: bytes) -> None:
    """Writes `data` to the file `path`, replacing a file of that name.

    Raises UserError naming `path` when the disk is full or the folder is missing or not writable; the previous file is
    then untouched and no temporary file is left.
    """
    write_files_atomically({path: lambda temporary: _write_all(temporary, data)})


def write_json_atomically(path: PathLike, value: Any) -> None:
    """Writes `value` as JSON (indent 4, UTF-8 kept readable, trailing newline); errors as write_bytes_atomically."""
    text = json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    write_bytes_atomically(path, text.encode("utf-8"))


def write_files_atomically(writers: Mapping[Any, Callable[[Path], None]]) -> None:
    """Writes several files that belong together.

    Args:
        writers: maps each final path to a function that is given a temporary path in the same folder and writes the
            whole file there. All files are written and flushed before the first one is renamed; the renames follow the
            order of the mapping, so the last path is the commit point: put there the file without which readers do not
            see the others (the index of a TensorFlow bundle, for example).

    Raises UserError as write_bytes_atomically does; temporary files are removed on every error.
    """
    temporaries = {Path(path): _temporary_beside(Path(path)) for path in writers}
    current = next(iter(temporaries), Path())
    try:
        for (current, temporary), writer in zip(temporaries.items(), writers.values(), strict=True):  # noqa: B007
            writer(temporary)
            _flush_to_disk(temporary)
        for current, temporary in temporaries.items():
            os.replace(temporary, current)
        for folder in {path.parent for path in temporaries}:
            _flush_to_disk(folder)
    except OSError as error:
        raise _cannot_write(current, error) from error
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):  # gone after its rename, or never begun
                temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: PathLike) -> Iterator[Path]:
    """Gives a new empty folder to fill; when the block ends without an error the folder appears as `path`.

    A folder that was at `path` is replaced: on Linux the two change places in one step, elsewhere the old one is moved
    aside first and moved back if the new one cannot take its name. On an error in the block nothing changes at `path`
    and the temporary folder is removed.

    Raises UserError naming `path` when the disk is full, the parent is not a writable folder, or `path` is a file.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"cannot write the folder {path}: a file of that name is in the way")
        temporary.mkdir()
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _flush_to_disk(Path(folder, name))
            _flush_to_disk(Path(folder))
        _move_folder(temporary, path)
        _flush_to_disk(path.parent)
    except OSError as error:
        # The block may read other files too: only errors about what is being written here are ours to reword.
        about = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if error.errno in _DISK_ERRORS or (about and (about in (path, path.parent) or about.is_relative_to(temporary))):
            raise _cannot_write(path, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: PathLike) -> None:
    """Removes a folder with all it holds; its name is gone first, so that no part of it is ever taken for the whole."""
    temporary = _temporary_beside(Path(path))
    try:
        os.rename(path, temporary)
        shutil.rmtree(temporary)
    except OSError as error:
        raise UserError(f"cannot remove {path}: {error.strerror}") from error


def remove_temporaries(folder: PathLike) -> None:
    """Removes what writers that were killed left in `folder` under temporary names; nobody may be writing there now."""
    for entry in Path(folder).iterdir():
        if not _TEMPORARY.fullmatch(entry.name):
            continue
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except OSError as error:
            raise UserError(f"cannot remove {entry}, left by a killed run: {error.strerror}") from error


def sha256_of_file(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits; UserError when the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _write_all(path: Path, data: bytes) -> None:
    # "x" refuses a name that is taken and, unlike tempfile's 0600, gives the file the permissions of the user's umask.
    with open(path, "xb") as file:
        file.write(data)


def _temporary_beside(path: Path) -> Path:
    # A leading dot hides it from readers that list the folder; the random part keeps several processes apart.
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot fsync a folder
            raise
    finally:
        os.close(descriptor)


def _move_folder(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; an old folder there gets the temporary name, and the caller removes it."""
    if not path.exists():
        os.rename(temporary, path)
    elif not _exchange(temporary, path):
        aside = _temporary_beside(path)
        os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one step with Linux's renameat2; False where the system or file system does not offer it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    result: int = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}")
