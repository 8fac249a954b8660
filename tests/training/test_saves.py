"""Checkpoints of a run in both forms: what is kept, what is cleaned up, and what is said about damage."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_bert import tiny_config, tiny_tensors

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.checkpoint_state import latest_checkpoint
from training.resume import find_resume_point
from training.saves import STATE_SUFFIX, RunFolder, TrainingState, describe_difference
from twinquant.errors import UserError

CONFIG = tiny_config(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8)
TENSORS = tiny_tensors(CONFIG)
RANGE = "bert/encoder/layer_0/output/dense/input_quantizer"
FINGERPRINT = {"seed": 1, "learning_rate": 1e-5, "backend": "any"}
FORMS = ("tensorflow", "pytorch")
EMPTY_BUNDLE = ["bert_config.json"]


@pytest.fixture(params=FORMS)
def form(request) -> str:
    """The form of the checkpoint; writing either needs no framework."""
    return request.param


@pytest.fixture
def folder(form, tmp_path) -> RunFolder:
    return RunFolder(tmp_path, form, keep=2)


def checkpoint(step=0):
    ranges = {RANGE: np.float32(step + 0.5)}
    return Checkpoint(tensors=dict(TENSORS), ranges=ranges, config=CONFIG, source="test")


def state(step):
    optimizer = {"a/adam_m": np.full((2, 3), step, np.float32), "loss_scale": np.array([1.0, step], np.float64)}
    return TrainingState(step, FINGERPRINT, optimizer)


def save(folder, *steps):
    for step in steps:
        folder.save(step, checkpoint(step), state(step))


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def main_file(folder, step):
    """The file whose bytes are the weights."""
    path = folder.path(step)
    return (
        path / "model.safetensors"
        if folder.backend == "pytorch"
        else path.with_name(path.name + ".data-00000-of-00001")
    )


def test_what_is_saved_comes_back(folder):
    save(folder, 3)
    loaded, training = folder.load(3)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(loaded.tensors[name], array, err_msg=name, strict=True)
    np.testing.assert_array_equal(loaded.ranges[RANGE], np.float32(3.5))
    if folder.backend == "pytorch":  # a bundle leaves the config to its caller
        assert replace(loaded.config, extra={}) == CONFIG
    assert (training.step, training.fingerprint) == (3, FINGERPRINT)
    for name, array in state(3).optimizer.items():
        np.testing.assert_array_equal(training.optimizer[name], array, err_msg=name, strict=True)
    assert folder.fingerprint(3) == FINGERPRINT


def test_the_newest_are_kept(folder):
    save(folder, 2, 4, 10)
    assert folder.steps() == [4, 10]
    assert not any("ckpt-2" in name for name in names(folder))
    assert [folder.has_state(step) for step in (2, 4, 10)] == [False, True, True]
    assert latest_checkpoint(folder.folder) == str(folder.path(10))


def test_the_calibrated_checkpoint_does_not_count(folder):
    folder.save("calibrated", checkpoint())
    assert latest_checkpoint(folder.folder) == str(folder.path("calibrated"))
    save(folder, 2, 4, 6)
    assert folder.steps() == [4, 6]
    load_checkpoint(str(folder.path("calibrated")))
    folder.remove_all()
    assert folder.steps() == []
    load_checkpoint(str(folder.path("calibrated")))


def test_other_files_are_left_alone(folder):
    for name in ("predictions.json", "model.ckpt-notes.txt", "calibration.json"):
        (folder.folder / name).write_text("mine")
    save(folder, 1, 2, 3)
    folder.remove_all()
    assert {"predictions.json", "model.ckpt-notes.txt", "calibration.json"} <= set(names(folder))


def test_a_state_without_its_checkpoint_is_removed(folder):
    """A run killed between the two leaves one; it must not be resumed from, nor pile up."""
    orphan = folder.path(7).with_name(folder.path(7).name + STATE_SUFFIX)
    orphan.write_bytes(b"half")
    assert folder.steps() == []
    save(folder, 8)
    assert not orphan.exists()
    assert folder.has_state(8)


def test_leftovers_of_a_killed_run_are_removed(folder):
    save(folder, 4)
    kept = names(folder)
    folder.path(9).with_name(folder.path(9).name + STATE_SUFFIX).write_bytes(b"half")
    if folder.backend == "tensorflow":
        main_file(folder, 9).write_bytes(b"half")
    folder.remove_leftovers()
    assert names(folder) == kept


def test_saving_twice_replaces(folder):
    save(folder, 5)
    folder.save(5, checkpoint(8), state(5))
    np.testing.assert_array_equal(folder.load(5)[0].ranges[RANGE], np.float32(8.5))
    assert folder.steps() == [5]


@pytest.mark.parametrize("steps", [(4,), (2, 4)], ids=["only-one", "an-earlier-one"])
def test_truncated_weights_are_named_with_the_way_out(folder, steps):
    save(folder, *steps)
    file = main_file(folder, 4)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError) as caught:
        folder.load(4)
    sentence = str(caught.value)
    assert sentence.startswith("cannot resume: ") and str(folder.path(4)) in sentence
    way_out = "to start again" if len(steps) == 1 else f"to resume from {folder.path(2)}"
    assert sentence.endswith(f"remove {folder.path(4)}* {way_out}")


@pytest.mark.parametrize("size", [0, 5, 200, -4], ids=["empty", "in-the-length", "in-the-header", "in-the-data"])
def test_a_truncated_state_is_named_with_the_way_out(folder, size):
    save(folder, 4)
    file = folder.path(4).with_name(folder.path(4).name + STATE_SUFFIX)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=f"cannot resume: .*{file.name}.* to start again"):
        folder.load(4)


def test_a_state_of_another_kind_of_file_is_named(folder):
    from safetensors.numpy import save as safetensors_bytes

    save(folder, 4)
    file = folder.path(4).with_name(folder.path(4).name + STATE_SUFFIX)
    file.write_bytes(safetensors_bytes({"x": np.zeros(3, np.float32)}))
    with pytest.raises(UserError, match=f"{file.name}: not a whole training state"):
        folder.fingerprint(4)


def test_a_missing_checkpoint_is_a_user_error(folder):
    with pytest.raises(UserError, match="cannot resume"):
        folder.load(3)


def test_steps_of_a_folder_that_is_not_there(form, tmp_path):
    assert RunFolder(tmp_path / "new", form, keep=1).steps() == []


def test_the_step_is_in_the_name_exactly(folder):
    for name in ("model.ckpt-12x", "model.ckpt-", "model.ckpt-7.tmp", "xmodel.ckpt-3"):
        (folder.folder / (name + (".index" if folder.backend == "tensorflow" else ""))).mkdir()
    save(folder, 12)
    assert folder.steps() == [12]


def test_the_other_backends_steps_do_not_count(tmp_path):
    """Where an earlier version let both backends train into one folder, neither takes the other's for its own."""
    bundle, folders = (RunFolder(tmp_path, form, keep=2) for form in FORMS)
    save(bundle, 2)
    save(folders, 4, 6, 8)
    assert bundle.steps() == folders.other.steps() == [2] and folders.steps() == bundle.other.steps() == [6, 8]
    assert bundle.has_state(2)
    bundle.load(2)


@pytest.mark.parametrize("label", ["calibrated", 5])
def test_saving_removes_the_other_form_of_the_name(folder, label):
    """Else whoever reads the name may find the earlier checkpoint, of the other backend."""
    folder.other.save(label, checkpoint(1))
    folder.save(label, checkpoint(8))
    assert load_checkpoint(str(folder.path(label))).ranges[RANGE] == np.float32(8.5)
    assert folder.other.steps() == []
    assert folder.path(label).is_dir() == (folder.backend == "pytorch")
    assert folder.path(label).with_suffix(f".ckpt-{label}.index").exists() == (folder.backend == "tensorflow")


def test_a_run_of_the_other_backend_is_refused(folder):
    save(folder.other, 16)
    text = rf"holds model.ckpt-16 of another run \(backend: {folder.other.backend} there, {folder.backend} here\)"
    with pytest.raises(UserError, match=text):
        find_resume_point(folder, lambda processes: FINGERPRINT)
    folder.remove_all()
    assert find_resume_point(folder, lambda processes: FINGERPRINT) == (0, 1) and names(folder) in ([], EMPTY_BUNDLE)


def test_a_calibration_takes_no_steps_place(form, tmp_path):
    """Even where the run that calibrates is to keep fewer."""
    save(RunFolder(tmp_path, form, keep=6), *range(1, 7))
    folder = RunFolder(tmp_path, form, keep=2)
    assert folder.latest_step() == folder.path(6)
    folder.save("calibrated", checkpoint())
    assert folder.steps() == [1, 2, 3, 4, 5, 6] and folder.latest_step() is None


def test_a_step_does_not_take_its_own_place(form, tmp_path):
    folder = RunFolder(tmp_path, form, keep=1)
    save(folder, 30)
    folder.save(20, checkpoint(20))
    assert 20 in folder.steps() and latest_checkpoint(tmp_path) == str(folder.path(20))


def test_removing_all_leaves_no_name_of_what_is_gone(folder):
    save(folder, 3)
    folder.remove_all()
    assert latest_checkpoint(folder.folder) is None


def test_the_step_is_stored_as_tensorflow_does(tmp_path):
    pytest.importorskip("tensorflow")
    import tensorflow as tf

    save(RunFolder(tmp_path, "tensorflow", keep=2), 12)
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path)))
    assert int(reader.get_tensor("global_step")) == 12
    name = "bert/encoder/layer_0/output/dense/kernel"
    np.testing.assert_array_equal(reader.get_tensor(name), TENSORS[name])


def test_differences_are_told_in_words():
    found = describe_difference(FINGERPRINT, FINGERPRINT | {"seed": 2, "if_quant": True})
    assert found == "if_quant: None there, True here; seed: 1 there, 2 here"
    steps = describe_difference({"steps": 12}, {"steps": 14})
    assert steps == "steps (of --max_steps, or --num_train_epochs and --train_batch_size): 12 there, 14 here"
    assert describe_difference(json.loads(json.dumps(FINGERPRINT)), FINGERPRINT) == ""
