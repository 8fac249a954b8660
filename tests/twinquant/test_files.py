import errno
import hashlib
import json
import os
import resource
from contextlib import contextmanager

import pytest

from twinquant import files
from twinquant.errors import UserError


@contextmanager
def small_file_limit():
    """A real write error: no file may grow beyond 1000 bytes. Not a fixture: pytest's own log is a file too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield 1000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_bytes_are_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes_atomically(path, b"one")
    files.write_bytes_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_new_files_have_the_permissions_of_the_umask(tmp_path):
    (tmp_path / "reference").write_bytes(b"")
    files.write_bytes_atomically(tmp_path / "a.bin", b"")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "reference").stat().st_mode


def test_json_is_indented_readable_and_ends_with_a_newline(tmp_path):
    files.write_json_atomically(tmp_path / "a.json", {"label": "金融", "x": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert '\n    "label": "金融"' in text
    assert json.loads(text) == {"label": "金融", "x": [1]}


def test_a_file_that_cannot_grow_is_a_user_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with small_file_limit() as limit, pytest.raises(UserError, match=r"cannot write .*a\.bin: File too large"):
        files.write_bytes_atomically(path, bytes(limit + 1))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_at_any_step_leaves_nothing_behind(tmp_path, monkeypatch, step):
    monkeypatch.setattr(files.os, step, full_disk)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left on device"):
        files.write_json_atomically(tmp_path / "a.json", {})
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*a\.bin: No such file or directory"):
        files.write_bytes_atomically(tmp_path / "absent" / "a.bin", b"")


def test_a_file_in_the_place_of_a_folder_is_a_user_error(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write .*a\.bin: Not a directory"):
        files.write_bytes_atomically(tmp_path / "plain" / "a.bin", b"")
    with (
        pytest.raises(UserError, match="cannot write .*folder: Not a directory"),
        files.atomic_folder(tmp_path / "plain" / "folder"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_unwritable_folder_is_a_user_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write .*a\.bin: Permission denied"):
        files.write_bytes_atomically(tmp_path / "a.bin", b"")


def test_files_of_a_group_appear_in_order_after_all_are_written(tmp_path, monkeypatch):
    seen = []
    replace = os.replace

    def watch(source, target):
        seen.append((os.path.basename(target), sorted(path.name for path in tmp_path.glob("[!.]*"))))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watch)
    files.write_files_atomically(
        {
            tmp_path / "z.data": lambda path: path.write_bytes(b"1"),
            tmp_path / "a.index": lambda path: path.write_bytes(b"2"),
        }
    )
    assert seen == [("z.data", []), ("a.index", ["z.data"])]
    assert (tmp_path / "a.index").read_bytes() == b"2"


def test_a_group_with_a_failing_writer_writes_nothing(tmp_path):
    def fail(path):
        path.write_bytes(b"part")
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        files.write_files_atomically({tmp_path / "a": lambda path: path.write_bytes(b"1"), tmp_path / "b": fail})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "move-aside"])
def test_a_folder_replaces_the_old_one_whole(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_bytes(b"")
    with files.atomic_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "new").write_bytes(b"x")
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["sub"]
    assert (path / "sub" / "new").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_second_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_bytes(b"")
    rename = os.rename

    def fail_once(source, target):
        if target == path and not str(source).endswith("aside"):
            monkeypatch.setattr(files.os, "rename", rename)
            full_disk()
        rename(source, target)

    with pytest.raises(UserError, match="No space left"), files.atomic_folder(path):
        monkeypatch.setattr(files.os, "rename", fail_once)
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_an_error_in_the_block_keeps_the_old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_bytes(b"")
    with pytest.raises(RuntimeError, match="a defect"), files.atomic_folder(path) as temporary:
        (temporary / "new").write_bytes(b"")
        raise RuntimeError("a defect")
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_only_errors_about_the_folder_itself_are_reworded(tmp_path):
    with small_file_limit() as limit:
        with pytest.raises(FileNotFoundError), files.atomic_folder(tmp_path / "model"):
            (tmp_path / "other").read_bytes()
        with (
            pytest.raises(UserError, match="cannot write .*model: File too large"),
            files.atomic_folder(tmp_path / "model") as temporary,
        ):
            (temporary / "weights").write_bytes(bytes(limit + 1))
        assert os.listdir(tmp_path) == []


def test_a_folder_does_not_replace_a_file(tmp_path):
    (tmp_path / "model").write_bytes(b"mine")
    with pytest.raises(UserError, match="a file of that name is in the way"), files.atomic_folder(tmp_path / "model"):
        pytest.fail("the block must not run")
    assert (tmp_path / "model").read_bytes() == b"mine"


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100000)
    assert files.sha256_of_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100000).hexdigest()
    with pytest.raises(UserError, match="cannot read .*absent: No such file"):
        files.sha256_of_file(tmp_path / "absent")
