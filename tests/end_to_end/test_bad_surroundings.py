"""What goes wrong around a run: overflow, a full disk, several processes, no GPU, a teacher that does not fit."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_runs import BACKENDS, flags, random_tensors, run, saved, start, succeed, tiny_config, vocabulary

from backends import cpu
from checkpoints.hugging_face import write_hugging_face
from checkpoints.tf_checkpoint import write_tf_checkpoint
from checkpoints.value import Checkpoint
from training.saves import RunFolder
from twinquant.files import remove_folder

FILES = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json --max_seq_length=64
    --max_query_length=16 --doc_stride=32 --train_batch_size=4"""
)
TRAIN = [*FILES, "--do_train", "--max_steps=6", "--save_checkpoints_steps=1", "--output_dir=out"]
PRETRAINED = "--init_checkpoint=squad_model/bert_model.ckpt"


@pytest.mark.parametrize(
    ("backend", "rate"), [("tensorflow", "1e30"), ("pytorch", "1e30"), ("tensorflow", "3e38"), ("pytorch", "3e38")]
)
def test_overflow_in_training(workplace: Path, backend: str, rate: str) -> None:
    """The step is named, and the checkpoint that the sentence calls good is whole and finite."""
    train = [*TRAIN, PRETRAINED, f"--backend={backend}", f"--learning_rate={rate}", "--warmup_steps=3"]
    error = run(*train, cwd=workplace).error()
    assert "not finite" in error and "step" in error and "lower --learning_rate" in error
    saves = RunFolder(workplace / "out", backend, 3)
    good = saves.steps()[-1]
    assert f"the last good checkpoint is out/model.ckpt-{good}" in error
    checkpoint, _ = saves.load(good)
    assert all(np.isfinite(tensor).all() for tensor in checkpoint.tensors.values())
    assert not list((workplace / "out").glob(".*"))


@pytest.mark.parametrize(
    ("backend", "moment"), [("tensorflow", 1), ("tensorflow", 2), ("pytorch", 1), ("pytorch", 2), ("pytorch", 4)]
)
def test_no_space_while_saving(workplace: Path, monkeypatch: pytest.MonkeyPatch, backend: str, moment: int) -> None:
    """The disk is full at the moment-th file of step 3: the steps before it stay, and later the run goes on."""
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        if (workplace / "out/model.ckpt-2.training_state.safetensors").exists() and "model.ckpt-3" in os.readlink(
            f"/proc/self/fd/{descriptor}"
        ):
            calls.append(descriptor)
            if len(calls) == moment:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    train = [*TRAIN, PRETRAINED, f"--backend={backend}", "--learning_rate=1e-3"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        error = run(*train, cwd=workplace).error()
    assert "model.ckpt-3" in error and "No space left on device" in error
    saves = RunFolder(workplace / "out", backend, 3)
    assert saves.steps() == [1, 2]
    saves.load(2)
    assert not list((workplace / "out").glob(".*"))
    assert "resuming from out/model.ckpt-2" in succeed(*train, cwd=workplace).err
    assert saves.steps() == [4, 5, 6]


def test_a_warmup_longer_than_the_run_is_warned_of(workplace: Path) -> None:
    longer = ["--learning_rate=0.006", "--warmup_steps=60", "--log_freq=1", "--backend=pytorch"]
    outcome = succeed(*TRAIN, PRETRAINED, *longer, cwd=workplace)
    assert "rises for --warmup_steps 60, and the run has 6 steps: it ends at 0.0005, of 0.006" in outcome.err
    assert ", learning rate 0.0005\n" in outcome.err


def test_a_run_goes_on_in_other_products_with_a_warning(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flags are the same; the machine is another."""
    train = [*TRAIN, PRETRAINED, "--backend=pytorch", "--use_fp16"]
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    succeed(*train, cwd=workplace)
    for _ in range(2):
        remove_folder(workplace / "out/model.ckpt-6")
        outcome = succeed(*train, cwd=workplace)
        assert "resuming from" in outcome.err
        told = "on cpu, float32 matrix products and goes on on cpu, bfloat16 matrix products" in outcome.err
        assert told == cpu.has_bfloat16()
        monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """A file system of 1300 KiB, mounted at out/."""
    folder = workplace / "out"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_that_is_really_full(workplace: Path, small_disk: Path, backend: str) -> None:
    """Room for one checkpoint with its optimizer's state and not for two."""
    train = [*TRAIN, PRETRAINED, f"--backend={backend}"]
    error = run(*train, cwd=workplace).error()
    assert "out/" in error and "No space left on device" in error
    saves = RunFolder(small_disk, backend, 3)
    (step,) = saves.steps()
    saves.load(step)
    assert not list(small_disk.glob(".*"))
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert f"resuming from out/model.ckpt-{step}" in succeed(*train, cwd=workplace).err


@pytest.mark.parametrize(
    "variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "WORLD_SIZE"], ids=lambda name: name.lower()
)
def test_one_of_several_processes_is_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Without --horovod; with it: test_mpirun.py."""
    monkeypatch.setenv(variable, "2")
    error = run(*TRAIN, PRETRAINED, cwd=workplace).error()
    assert f"{variable}=2" in error and "one of 2 processes" in error and "--horovod" in error
    assert not (workplace / "out").exists()


def test_mpirun_with_a_single_process_is_fine(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    outcome = succeed(*TRAIN, PRETRAINED, "--horovod", "--backend=pytorch", cwd=workplace)
    assert "note: --horovod" in outcome.err


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gpu(workplace: Path, backend: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    error = run(*TRAIN, PRETRAINED, f"--backend={backend}", "--device=cuda", cwd=workplace).error()
    assert "--device cuda" in error and ("PyTorch" in error or "TensorFlow" in error)
    assert not list((workplace / "out").glob("model.ckpt-*"))


def test_the_exit_code_of_a_refused_process(workplace: Path) -> None:
    process = start(*TRAIN, "--init_checkpoint=absent.ckpt", cwd=workplace)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    assert err.startswith("run_squad.py: error: ") and err.count("\n") == 1


def test_a_reader_that_leaves(workplace: Path) -> None:
    """`run_squad.py --help | head -1`: no traceback."""
    process = start("--help", cwd=workplace)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["bundle", "folder"])
def test_a_larger_teacher(workplace: Path, backend: str, form: str) -> None:
    """Its own config lies beside it: 2 layers of twice the width teach 1; its weights are in no checkpoint."""
    config = tiny_config(len(vocabulary()), hidden=64, layers=2)
    tensors = random_tensors(config, seed=1)
    teacher = Checkpoint(tensors, config=config, vocab_file=workplace / "squad_model/vocab.txt")
    if form == "bundle":
        (workplace / "teacher").mkdir()
        write_tf_checkpoint(workplace / "teacher/model.ckpt-9", teacher, 9)
    else:
        write_hugging_face(workplace / "teacher", teacher)
    name = "teacher/model.ckpt-9" if form == "bundle" else "teacher"
    distil = ["--distillation", f"--teacher={name}", "--max_steps=1", "--learning_rate=1e-3", f"--backend={backend}"]
    outcome = succeed(*TRAIN, PRETRAINED, *distil, cwd=workplace)
    assert len(outcome.losses) == 1 and outcome.losses[0] > 100  # the teacher's share, times 10000
    assert saved(workplace / "out/model.ckpt-1").config.hidden_size == 32


def _write_teacher(folder: Path, tokens: list[str], positions: int = 128, with_vocabulary: bool = True) -> None:
    folder.mkdir()
    (folder / "words.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = tiny_config(len(tokens), positions)
    vocab_file = folder / "words.txt" if with_vocabulary else None
    write_hugging_face(folder / "model", Checkpoint(random_tensors(config), config=config, vocab_file=vocab_file))


@pytest.mark.parametrize(
    ("tokens", "positions", "with_vocabulary", "words"),
    [
        pytest.param(vocabulary()[::-1], 128, True, "reads the tokens of", id="same-tokens-in-another-order"),
        pytest.param(vocabulary()[:-3], 128, False, "a vocabulary of", id="fewer-tokens"),
        pytest.param(vocabulary(), 32, True, "has 32 positions, less than --max_seq_length 64", id="fewer-positions"),
    ],
)
def test_a_teacher_that_reads_other_input(
    workplace: Path, tokens: list[str], positions: int, with_vocabulary: bool, words: str
) -> None:
    _write_teacher(workplace / "teacher", tokens, positions, with_vocabulary)
    distil = ["--distillation", "--teacher=teacher/model", "--backend=pytorch"]
    error = run(*TRAIN, PRETRAINED, *distil, cwd=workplace).error()
    assert "--teacher teacher/model" in error and words in error


def test_a_teacher_without_a_head(workplace: Path) -> None:
    distil = ["--distillation", "--teacher=squad_model/bert_model.ckpt", "--backend=pytorch"]
    error = run(*TRAIN, PRETRAINED, *distil, cwd=workplace).error()
    assert "squad_model/bert_model.ckpt" in error and "cls/squad/output_weights" in error
