"""Several processes train one model under mpirun: the same result as one process, whatever happens on the way."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi_runs import launch, mpirun, ranks_left, require_horovod
from small_runs import (
    BACKENDS,
    assert_equal_arrays,
    assert_equal_saves,
    flags,
    run,
    saved,
    succeed,
    write_google_folder,
    write_squad_folder,
)
from test_glue_runs import write_mrpc

from checkpoints.q8bert_file import FILE_NAME
from training.saves import RunFolder

STEPS = 16
FILES = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json
    --init_checkpoint=squad_model/bert_model.ckpt --max_seq_length=64 --max_query_length=16 --doc_stride=32
    --pad_to_max_length --log_freq=1"""
)
QAT = ["--do_calib", "--calib_batch=3", "--do_train", "--if_quant", "--quant_mode=ft1", "--do_predict"]
TRAIN = [*FILES, *QAT, "--train_batch_size=2", "--learning_rate=1e-3", f"--max_steps={STEPS}"]
SAVES = ["--save_checkpoints_steps=2", "--horovod"]
STALL = ["--stall_check_warning_time_seconds=3", "--stall_check_shutdown_time_seconds=8"]


@pytest.fixture(scope="module", autouse=True)
def horovod() -> None:
    require_horovod()


@pytest.fixture(scope="module", params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(f"mpirun-{request.param}").resolve()
    write_google_folder(folder / "squad_model")
    write_squad_folder(folder / "squad_data", train=24, dev=6)
    # A second model without dropout: the masks of several ranks are not those of one.
    shutil.copytree(folder / "squad_model", folder / "still_model")
    config = json.loads((folder / "still_model/bert_config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "still_model/bert_config.json").write_text(json.dumps(config))
    return request.param, folder


def still(words: list[str]) -> list[str]:
    return [word.replace("squad_model/bert_config", "still_model/bert_config") for word in words]


def assert_close(found: Path, expected: Path, limit: float) -> None:
    one, other = saved(found), saved(expected)
    assert_equal_arrays(one.ranges, other.ranges)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in other.tensors.items():
        # This bias moves all logits alike: its gradient is 0 but for rounding, which Adam blows up to its own size.
        bound = 1e-3 if name == "cls/squad/output_bias" else limit
        np.testing.assert_allclose(one.tensors[name], tensor, rtol=0, atol=bound, err_msg=name)


def test_as_one_process_with_the_whole_batch(site: tuple[str, Path]) -> None:
    """Without dropout, calibration and 20 steps: ranges to the bit, weights to 1e-5, the same answers.

    The training is in floating point: in QAT a last bit that moves a number across a rounding border shows.

    2 ranks with 2 micro batches of 2 rows each, against 8 rows at once; the learning rate is multiplied by 2.
    """
    backend, folder = site
    words = [*FILES, "--do_calib", "--do_train", "--do_predict", "--max_steps=20"]
    words = still([*words, f"--backend={backend}"])
    several = mpirun(
        *words, "--train_batch_size=2", "--num_accumulation_steps=2", "--learning_rate=5e-4", "--calib_batch=4",
        "--horovod", "--output_dir=several", cwd=folder,
    )  # fmt: skip
    # The calibration's batch is the training's: the same 8 rows in 1 batch of 8 and in 4 of 2.
    alone = succeed(
        *words, "--train_batch_size=8", "--learning_rate=1e-3", "--calib_batch=1", "--output_dir=alone", cwd=folder
    )
    assert_close(folder / "several/model.ckpt-20", folder / "alone/model.ckpt-20", 1e-5)
    assert several.losses == pytest.approx(alone.losses, rel=1e-3)
    assert several.scores == alone.scores
    for name in ("predictions.json", "eval_results.json"):
        assert (folder / "several" / name).read_bytes() == (folder / "alone" / name).read_bytes(), name
    ranges = [
        json.loads((folder / name / "calibration.json").read_text())["quantizers"] for name in ("several", "alone")
    ]
    assert ranges[0] == ranges[1]
    assert "processes: 2, on 1 machine(s)" in several.err
    assert several.err.count("backend: ") == 1  # only rank 0 talks
    assert len(list((folder / "several/features").iterdir())) == len(list((folder / "alone/features").iterdir()))


FAULTS = [
    # kind, rank, step, exit code, what is said
    ("SIGKILL", 1, 3, 137, "signal 9"),
    ("raises", 1, 5, 1, "RuntimeError: a defect on purpose"),
    ("exits", 1, 7, None, "lost the other processes|exited|hangs"),
    ("SIGSTOP", 0, 9, 75, "waited 1. s for the other processes"),
    ("hangs", 1, 11, 75, "rank 0 lost the other processes|waited"),
    ("disk", 0, 13, 2, "cannot write .*File too large"),
]


def test_faults(site: tuple[str, Path]) -> None:
    """One after the other in the same run, each followed by the same command: it ends as if nothing had happened."""
    backend, folder = site
    words = [*TRAIN, *SAVES, *STALL, f"--backend={backend}"]
    reached = 0
    for kind, rank, step, code, said in FAULTS if backend == "pytorch" else FAULTS[:1]:
        job = launch(*words, "--output_dir=broken", cwd=folder, fault=f"{kind} {rank} {step}")
        outcome = job.finish()
        assert outcome.code == code if code is not None else outcome.code != 0, (kind, outcome)
        assert re.search(said, outcome.err), (kind, outcome.err)
        assert job.seconds < 60 and not ranks_left(folder), kind
        print(f"{kind} of rank {rank}: exit code {outcome.code}, all ended after {job.seconds:.1f} s")
        if reached:
            assert f"resuming from broken/model.ckpt-{reached}\n" in outcome.err, kind
        saves = RunFolder(folder / "broken", backend, 3)
        reached = saves.steps()[-1]
        saves.load(reached)
        assert reached == (step - step % 2 if kind != "disk" else 12), kind
    finished = mpirun(*words, "--output_dir=broken", cwd=folder)
    assert f"resuming from broken/model.ckpt-{reached}\n" in finished.err
    mpirun(*words, "--output_dir=unbroken", cwd=folder)
    expected, found = (RunFolder(folder / name, backend, 3) for name in ("unbroken", "broken"))
    assert found.steps() == expected.steps() == [STEPS - 4, STEPS - 2, STEPS]
    assert_equal_saves(found, expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_scheduler_stops_mpirun(site: tuple[str, Path], number: signal.Signals) -> None:
    """Rank 0 saves after the step that all ranks were in, and the run goes on from there."""
    backend, folder = site
    if backend == "tensorflow" and number == signal.SIGUSR1:
        pytest.skip("the loop is the same for both backends: SIGTERM is tested with both, SIGUSR1 with one")
    output = f"stopped_{number.name}"
    words = [*TRAIN, "--horovod", f"--backend={backend}", f"--output_dir={output}", "--max_steps=100000"]
    starter = "mpirun -np {count} --allow-run-as-root --oversubscribe -bind-to none -mca odls_base_sigkill_timeout 3"
    job = launch(*words, cwd=folder, starter=starter)
    job.wait_for(r"train: 3 of")
    job.send(number)
    outcome = job.finish()
    assert outcome.code == 128 + number or (number == signal.SIGTERM and outcome.code != 0), outcome
    assert job.seconds < 60 and not ranks_left(folder)
    assert f"{number.name} received: saved {output}/model.ckpt-" in outcome.err
    (step,) = RunFolder(folder / output, backend, 3).steps()
    assert step < 1000 and f"model.ckpt-{step} after step {step} of 100000" in outcome.err
    RunFolder(folder / output, backend, 3).load(step)


def test_another_number_of_processes_goes_on(site: tuple[str, Path]) -> None:
    """2 ranks are killed; 3 go on, then 1 without mpirun: the rows and the rate of every step stay, and it is said."""
    backend, folder = site
    if backend == "tensorflow":
        pytest.skip("the order of data is the same for both backends")
    # In floating point: a last bit that moves a number across a rounding border would be seen in the weights.
    words = [*FILES, "--do_train", "--do_predict", "--train_batch_size=2", "--learning_rate=1e-3", *SAVES]
    words = still([*words, f"--max_steps={STEPS}", f"--backend={backend}"])
    launch(*words, "--output_dir=changing", cwd=folder, fault="SIGKILL 0 5").finish()
    three = launch(*words, "--output_dir=changing", cwd=folder, count=3, fault="SIGKILL 0 9").finish()
    assert "started with 2 process(es) and goes on with 3: every step still takes 4 rows" in three.err
    alone = run(*words, "--output_dir=changing", cwd=folder)
    assert alone.code == 0, alone.err
    assert "resuming from changing/model.ckpt-8\n" in alone.err and "goes on with 1" in alone.err
    mpirun(*words, "--output_dir=steady", cwd=folder)
    assert_close(folder / f"changing/model.ckpt-{STEPS}", folder / f"steady/model.ckpt-{STEPS}", 1e-5)


def test_different_flags_and_data_are_refused(site: tuple[str, Path]) -> None:
    """Rank 1 reads other flags, then another file: nothing is trained, and what differs is named."""
    backend, folder = site
    if backend == "tensorflow":
        pytest.skip("the comparison is the same for both backends")
    launcher = folder / "by_rank.sh"
    launcher.touch(0o755)
    text = (folder / "squad_data/train-v1.1.json").read_text()
    script = '#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 1 ] && {}\nexec "$@"\n'
    cases = {
        "flags": ('set -- "$@" --learning_rate=2e-3', "learning_rate: 0.002 there, 0.001 on rank 0"),
        "data": (f"cd {folder}/second", "different data"),
    }
    (folder / "second").mkdir()
    for name in ("squad_model", "still_model"):
        (folder / "second" / name).symlink_to(folder / name)
    (folder / "second/squad_data").mkdir()
    shutil.copy(folder / "squad_data/dev-v1.1.json", folder / "second/squad_data")
    (folder / "second/squad_data/train-v1.1.json").write_text(text.replace(" the ", " their "))
    for name, (change, said) in cases.items():
        launcher.write_text(script.format(change))
        starter = f"mpirun -np {{count}} --allow-run-as-root --oversubscribe -bind-to none {launcher}"
        words = [*TRAIN, *SAVES, f"--backend={backend}", f"--output_dir=refused_{name}"]
        outcome = launch(*words, cwd=folder, starter=starter).finish()
        assert outcome.code == 2 and said in outcome.err and "Traceback" not in outcome.err, outcome
        assert outcome.err.count("error: ") == 1, outcome.err
        assert not list(folder.glob(f"refused_{name}/model.ckpt*")), name


def test_mpirun_without_horovod_is_refused(site: tuple[str, Path]) -> None:
    backend, folder = site
    outcome = launch(*TRAIN, f"--backend={backend}", "--output_dir=copies", cwd=folder).finish()
    assert outcome.code == 2 and not (folder / "copies").exists()
    (line,) = [line for line in outcome.err.splitlines() if "error: " in line]
    assert "one of 2 processes" in line and "give --horovod" in line and "rank" not in line


def test_run_glue_with_moving_averages(site: tuple[str, Path]) -> None:
    """q8bert, whose ranges every rank finds in its own rows: they are the same on all when a checkpoint is saved.

    The best model is kept, the int8 file is written once, and only rank 0 prints the scores.
    """
    backend, folder = site
    write_mrpc(folder / "MRPC", train=24, dev=10)
    words = flags(
        """--task_name=MRPC --data_dir=MRPC --init_checkpoint=squad_model/bert_model.ckpt --max_seq_length=32 --do_train
        --do_eval --train_batch_size=4 --learning_rate=1e-3 --max_steps=6 --quant_scheme=q8bert --start_step=0
        --save_steps=3 --evaluate_during_training --eval_steps=3 --load_best_model_at_end --pad_to_max_length
        --horovod"""
    )
    outcome = mpirun(*words, f"--backend={backend}", "--output_dir=glue", cwd=folder, script="run_glue.py")
    assert len(outcome.out.splitlines()) == 1 and "acc" in outcome.out
    assert outcome.err.count("evaluation after step") == 2
    found = RunFolder(folder / "glue", backend, 3).load(6)[0].ranges
    assert found and all(value > 0 for value in found.values())
    for name in ("evaluations.json", "eval_results.txt", FILE_NAME):
        assert (folder / "glue" / name).exists(), name


def test_horovodrun(site: tuple[str, Path]) -> None:
    backend, folder = site
    if backend == "tensorflow":
        pytest.skip("the launcher is the same for both backends")
    program = Path(sys.executable).parent / "horovodrun"
    starter = f"{program} -np {{count}} --mpi-args=--oversubscribe"
    outcome = mpirun(
        *TRAIN, "--horovod", f"--backend={backend}", "--output_dir=by_horovodrun", cwd=folder, starter=starter
    )
    assert "processes: 2, on 1 machine(s)" in outcome.out + outcome.err


def test_one_rank_exports(site: tuple[str, Path]) -> None:
    """Rank 0 alone writes the model; a check that fails ends both ranks with its code, and one of them says why."""
    backend, folder = site
    words = [*FILES, "--do_train", "--max_steps=2", "--train_batch_size=2", "--horovod", f"--backend={backend}"]
    exports = ["--output_dir=exported", "--export_onnx=exported/m.onnx", "--export_check_examples=2"]
    outcome = mpirun(*words, *exports, cwd=folder)
    assert outcome.err.count("wrote exported/m.onnx (") == 1
    # The same run, complete: only the export is left to do.
    (folder / "exported/m.onnx").unlink()
    refused = launch(*words, *exports, cwd=folder, fault="differs 0 0").finish()
    assert refused.code == 2 and refused.err.count("run_squad.py: error: ") == 1, refused.err
    assert "it differs on purpose" in refused.err and ranks_left(folder) == []
    assert not (folder / "exported/m.onnx").exists()
