"""Event files: read by TensorBoard itself, continued without doubled steps, written without a framework."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.events import EventFile, TrainingCurves, clipped_tags
from twinquant.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve, as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loaded = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.TENSORS: 0, accumulator.SCALARS: 0})
    loaded.Reload()
    assert not loaded.Tags()["tensors"]
    return {tag: [(one.step, one.value) for one in loaded.Scalars(tag)] for tag in loaded.Tags()["scalars"]}


def write(folder: Path, first_step: int, *steps: int, offset: float = 0.0) -> None:
    file = EventFile(folder, first_step)
    for step in steps:
        file.write(step, {"train/loss": step + offset})
    file.close()


def test_a_resumed_run_goes_on_where_its_checkpoint_was(tmp_path: Path) -> None:
    """Killed after step 8, resumed from the checkpoint of step 4."""
    write(tmp_path, 0, 0, 2, 4, 6, 8)
    write(tmp_path, 5, 6, 8, 10, offset=0.5)
    assert curves(tmp_path) == {"train/loss": [(0, 0.0), (2, 2.0), (4, 4.0), (6, 6.5), (8, 8.5), (10, 10.5)]}


def test_a_run_killed_before_its_first_new_point_leaves_no_old_ones(tmp_path: Path) -> None:
    write(tmp_path, 0, 2, 4, 6)
    write(tmp_path, 3)
    assert curves(tmp_path) == {"train/loss": [(2, 2.0)]}


def test_a_run_started_anew_replaces_everything(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, 2, 4)
    write(tmp_path, 0, 0, 2, offset=0.25)
    assert curves(tmp_path) == {"train/loss": [(0, 0.25), (2, 2.25)]}


def test_what_was_written_is_there_before_the_end(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    file.write(1, {"a": 1.0})
    assert curves(tmp_path) == {"a": [(1, 1.0)]}
    file.close()


def test_training_curves(tmp_path: Path) -> None:
    """Points at multiples of log_steps and at the end; clipping is counted there only."""
    file, counted = EventFile(tmp_path), []

    def clipped() -> dict[str, float]:
        counted.append(1)
        return {"bert/encoder/layer_3/output/dense/input_quantizer": 0.25, "bert/final_input_quantizer": 0.5}

    told = TrainingCurves(file, log_steps=2, total_steps=5)
    for done in range(1, 6):
        told.step(done, 1.0 / done, 0.5, rows=8, seconds=2.0 if done <= 2 else 4.0, clipped=clipped)
    found = curves(tmp_path)
    assert [step for step, _ in found["train/loss"]] == [2, 4, 5] and len(counted) == 3
    assert found["train/loss"][1][1] == pytest.approx(0.25) and found["train/learning_rate"][0] == (2, 0.5)
    assert [value for _, value in found["train/examples_per_second"]] == pytest.approx([4.0, 2.0, 2.0])
    assert found["clipped_layer_3/output/dense/input_quantizer"][0] == (2, 0.25)
    assert found["clipped/final_input_quantizer"][0] == (2, 0.5)


def test_names_of_curves() -> None:
    scopes = ["output_input_quantizer", "bert/pooler/dense/input_quantizer", "bert/encoder/layer_11/output/a_quantizer"]
    assert list(clipped_tags(dict.fromkeys(scopes, 0.0))) == [
        "clipped/output_input_quantizer",
        "clipped/pooler/dense/input_quantizer",
        "clipped_layer_11/output/a_quantizer",
    ]


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(
        UserError, match=r"needs the package tensorboard, not installed; pip install '.\[tensorboard\]'"
    ):
        EventFile(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        EventFile(tmp_path / "file/deep")


def test_no_framework_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from training.events import EventFile; f = EventFile(sys.argv[1]); f.write(1, {'a': 1.0})\n"
        "sys.exit(any(name.partition('.')[0] in ('torch', 'tensorflow') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY).returncode == 0
