"""A run that is killed while it saves, at every single operation: what was saved is whole, and nothing is left over."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_saves import KEEP, STEPS, checkpoint_at, save_all, state_at
from small_runs import BACKENDS, assert_equal_arrays

from checkpoints.checkpoint import load_checkpoint
from checkpoints.checkpoint_state import latest_checkpoint
from training.saves import RunFolder


@pytest.fixture(scope="module", params=BACKENDS)
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """The backend, and the folders of the runs, each killed one operation later than the one before."""
    root = tmp_path_factory.mktemp(request.param)
    script = Path(__file__).with_name("killed_saves.py")
    subprocess.run([sys.executable, str(script), str(root), request.param], check=True, timeout=120)
    return request.param, sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: int(path.name))


def test_every_operation_is_tried(killed: tuple[str, list[Path]]) -> None:
    """Among the runs are some that were killed before the first save, between all of them, and one that was not."""
    saved = [len(list(folder.parent.glob(f"{folder.name}.saved-*"))) for folder in killed[1]]
    assert saved == sorted(saved) and set(saved) == {0, 1, 2}
    assert any(list(folder.glob(".*.tmp")) for folder in killed[1]), "no run was killed while it wrote"


def test_saved_checkpoints_stay_whole(killed: tuple[str, list[Path]]) -> None:
    backend, folders = killed
    for folder in folders:
        saves = RunFolder(folder, backend, KEEP)
        promised = [step for step in STEPS if (folder.parent / f"{folder.name}.saved-{step}").exists()]
        assert max(saves.steps(), default=0) >= max(promised, default=0), folder
        for step in saves.steps():
            checkpoint, state = saves.load(step)
            assert_equal_arrays(checkpoint.tensors, checkpoint_at(step).tensors)
            assert_equal_arrays(state.optimizer, state_at(step).optimizer)


def test_the_state_file_names_a_whole_checkpoint(killed: tuple[str, list[Path]]) -> None:
    backend, folders = killed
    for folder in folders:
        latest = latest_checkpoint(folder)
        if latest is not None:
            value = load_checkpoint(latest).tensors["cls/squad/output_bias"]
            label = Path(latest).name.removeprefix("model.ckpt-")
            np.testing.assert_array_equal(value, 0 if label == "calibrated" else int(label))


def test_the_next_run_tidies_up(killed: tuple[str, list[Path]]) -> None:
    """Run last: it changes the folders. The same files as after a run that was never killed."""
    backend, folders = killed
    expected = sorted(str(path.relative_to(folders[-1])) for path in folders[-1].rglob("*"))
    for folder in folders:
        RunFolder(folder, backend, KEEP).remove_leftovers()
        save_all(folder, backend)
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == expected, folder
