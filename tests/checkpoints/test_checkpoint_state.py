import os

import pytest

from checkpoints.checkpoint_state import latest_checkpoint, read_checkpoint_state, write_checkpoint_state
from twinquant.errors import UserError

NAMES = ["model.ckpt-100", 'model "quoted" \\ back', "模型.ckpt-200"]


def test_a_round_trip(tmp_path):
    write_checkpoint_state(tmp_path, NAMES[-1], NAMES)
    assert read_checkpoint_state(tmp_path) == (NAMES[-1], NAMES)
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_tensorflow_agrees_in_both_directions(tmp_path):
    tf = pytest.importorskip("tensorflow")
    write_checkpoint_state(tmp_path, NAMES[-1], NAMES)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == str(tmp_path / NAMES[-1])
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / name) for name in NAMES]
    tf.compat.v1.train.update_checkpoint_state(
        str(tmp_path), NAMES[-1], NAMES, all_model_checkpoint_timestamps=[1.5, 2.5, 3.5], last_preserved_timestamp=0.5
    )
    assert "timestamp" in (tmp_path / "checkpoint").read_text()
    assert read_checkpoint_state(tmp_path) == (NAMES[-1], NAMES)


def test_absolute_names_are_a_defect_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="must be relative"):
        write_checkpoint_state(tmp_path, str(tmp_path / "model.ckpt-1"), [])


@pytest.mark.parametrize("kind", ["bundle", "folder"])
def test_the_latest_checkpoint_is_a_path(tmp_path, kind):
    assert latest_checkpoint(tmp_path) is None
    write_checkpoint_state(tmp_path, "model.ckpt-2", ["model.ckpt-1", "model.ckpt-2"])
    if kind == "bundle":
        (tmp_path / "model.ckpt-2.index").write_bytes(b"")
    else:
        (tmp_path / "model.ckpt-2").mkdir()
    assert latest_checkpoint(tmp_path) == str(tmp_path / "model.ckpt-2")


def test_a_latest_checkpoint_that_is_gone_is_not_replaced_by_an_older_one(tmp_path):
    write_checkpoint_state(tmp_path, "model.ckpt-2", ["model.ckpt-1", "model.ckpt-2"])
    (tmp_path / "model.ckpt-1.index").write_bytes(b"")
    with pytest.raises(UserError, match="names model.ckpt-2 as the latest checkpoint, but neither"):
        latest_checkpoint(tmp_path)


def test_a_moved_folder_with_absolute_names_is_found(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-2"\n')
    (tmp_path / "model.ckpt-2.index").write_bytes(b"")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "model.ckpt-2")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"model_checkpoint_path: model\n", b'model_checkpoint_path: "\\377"\n']
)
def test_files_that_name_nothing(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match="checkpoint"):
        latest_checkpoint(tmp_path)
