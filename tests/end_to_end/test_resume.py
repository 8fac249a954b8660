"""A run that is broken off and started again ends with the same bits as one that never was."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_runs import (
    BACKENDS,
    Outcome,
    assert_equal_arrays,
    assert_equal_saves,
    flags,
    run,
    saved,
    start,
    succeed,
    write_google_folder,
    write_squad_folder,
)

from training.saves import RunFolder
from twinquant.run_record import read_records

STEPS = 60  # enough that a busy machine does not finish them before a signal arrives
# Calibration, then QAT with dropout: everything that a resumed run must take up again.
COMMAND = flags(
    f"""--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json
    --init_checkpoint=squad_model/bert_model.ckpt --do_calib --do_train --do_predict --if_quant --quant_mode=ft1
    --calib_batch=2 --train_batch_size=4 --max_seq_length=64 --max_query_length=16 --doc_stride=32
    --learning_rate=1e-3 --max_steps={STEPS} --save_checkpoints_steps=2 --log_freq=1"""
)


@dataclass
class Site:
    """A folder with inputs for one backend, and an unbroken run in `unbroken`."""

    backend: str
    folder: Path

    def arguments(self, output: str) -> list[str]:
        return [*COMMAND, f"--backend={self.backend}", f"--output_dir={output}"]

    def finish(self, output: str) -> Outcome:
        return succeed(*self.arguments(output), cwd=self.folder)

    def finish_in_a_new_process(self, output: str) -> str:
        """As a user does it; what earlier tests did to the framework in this process cannot matter. Standard error."""
        process = start(*self.arguments(output), cwd=self.folder)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return err

    def breaks(self, output: str, number: int, after: str, delay: float = 0.0) -> subprocess.CompletedProcess[str]:
        """Runs the command as a process of its own until it logs a line with `after`, then sends the signal."""
        process = start(*self.arguments(output), cwd=self.folder)
        assert process.stdout and process.stderr
        watchdog = threading.Timer(300, process.kill)
        watchdog.start()
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if re.search(after, line):
                    break
            else:
                pytest.fail(f"{after!r} was never logged: {''.join(lines)}")
            time.sleep(delay)
            process.send_signal(number)
            out, err = process.communicate()
        finally:
            watchdog.cancel()
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, "".join(lines) + err)

    def assert_as_unbroken(self, output: str, unbroken: str = "unbroken") -> None:
        expected, found = (RunFolder(self.folder / name, self.backend, 3) for name in (unbroken, output))
        assert found.steps() == expected.steps() == [STEPS - 4, STEPS - 2, STEPS]
        assert_equal_saves(found, expected)
        names = [
            sorted(str(path.relative_to(self.folder / name)) for path in (self.folder / name).rglob("*"))
            for name in ("unbroken", output)
        ]
        assert names[1] == names[0]


@pytest.fixture(scope="module", params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp(f"resume-{request.param}")
    write_google_folder(folder / "squad_model")
    write_squad_folder(folder / "squad_data", train=12, dev=4)
    site = Site(request.param, folder)
    site.finish("unbroken")
    return site


def test_calibration_and_training_in_one_call(site: Site) -> None:
    """Both checkpoints are there, and training started from the calibration's ranges."""
    saves = RunFolder(site.folder / "unbroken", site.backend, 3)
    calibrated, trained = (saved(saves.path(label)) for label in ("calibrated", STEPS))
    assert_equal_arrays(trained.ranges, calibrated.ranges)
    name = "bert/encoder/layer_0/attention/self/query/kernel"
    assert abs(trained.tensors[name] - calibrated.tensors[name]).max() > 1e-4


def test_broken_off_three_times(site: Site) -> None:
    """SIGKILL a little after a save, whatever is being done then; SIGTERM; Ctrl-C. Then the run comes to its end.

    After the last two it saves, says so and leaves with the shell's exit code.
    """
    killed = site.breaks("broken", signal.SIGKILL, r"saved broken/model\.ckpt-\d", delay=0.03)
    assert killed.returncode == -signal.SIGKILL and "predicted" not in killed.stderr
    reached = [2]
    for number in (signal.SIGTERM, signal.SIGINT):
        stopped = site.breaks("broken", number, r"saved broken/model\.ckpt-\d")
        assert stopped.returncode == 128 + number
        assert stopped.stdout == "" and "Traceback" not in stopped.stderr
        assert "resuming from broken/model.ckpt-" in stopped.stderr
        line = stopped.stderr.splitlines()[-1]
        assert f"{number.name} received: saved broken/model.ckpt-" in line and "the same command goes on" in line
        reached.append(int(re.findall(r"model\.ckpt-(\d+)", line)[-1]))
    assert reached[0] < reached[1] < reached[2] < STEPS
    assert f"resuming from broken/model.ckpt-{reached[2]}" in site.finish_in_a_new_process("broken")
    site.finish_in_a_new_process("unbroken_too")
    site.assert_as_unbroken("broken", "unbroken_too")


def test_a_signal_in_the_last_step_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the last checkpoint is written: the run leaves before predicting."""
    from run_squad import PROGRAM, main
    from training.saves import write_checkpoint_state
    from twinquant.main import run_main

    def signalled(folder: Path, name: str, names: list[str]) -> None:
        if name.endswith(f"-{STEPS}"):
            os.kill(os.getpid(), signal.SIGTERM)
        write_checkpoint_state(folder, name, names)

    shutil.copytree(site.folder / "unbroken", site.folder / "late")
    for path in (site.folder / "late").glob(f"model.ckpt-{STEPS}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr("training.saves.write_checkpoint_state", signalled)
    monkeypatch.chdir(site.folder)
    (site.folder / "late/predictions.json").unlink()
    assert run_main(main, PROGRAM, site.arguments("late")) == 143
    assert not (site.folder / "late/predictions.json").exists()


def test_killed_before_the_state_file_is_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint is there, but `checkpoint` still names the one before; the next start mends that."""
    output = site.folder / "unnamed"
    shutil.copytree(site.folder / "unbroken", output)
    (output / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{STEPS - 2}"\n')
    outcome = site.finish("unnamed")
    assert "training is complete" in outcome.err and not outcome.losses
    site.assert_as_unbroken("unnamed")


def test_a_finished_run_started_again_only_predicts(site: Site) -> None:
    output = site.folder / "unbroken"

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.name != "run.json"}

    before, runs = content(), len(read_records(output / "run.json"))
    outcome = site.finish("unbroken")
    assert "training is complete" in outcome.err and not outcome.losses and "calibrate:" not in outcome.err
    assert content() == before and len(read_records(output / "run.json")) == runs + 1
    assert outcome.scores == json.loads((output / "eval_results.json").read_text())


def test_overwrite_output_dir_starts_anew(site: Site) -> None:
    shutil.copytree(site.folder / "unbroken", site.folder / "anew")
    outcome = succeed(*site.arguments("anew"), "--overwrite_output_dir", cwd=site.folder)
    assert len(outcome.losses) == STEPS and "calibrate:" in outcome.err
    site.assert_as_unbroken("anew")


def test_a_damaged_checkpoint_is_named_with_the_way_out(site: Site) -> None:
    """Nothing older is taken in its place unasked; after the step that the sentence names, the run ends the same."""
    output = site.folder / "damaged"
    shutil.copytree(site.folder / "unbroken", output)
    files = {
        "tensorflow": output / f"model.ckpt-{STEPS}.data-00000-of-00001",
        "pytorch": output / f"model.ckpt-{STEPS}/model.safetensors",
    }
    file = files[site.backend]
    data = bytearray(file.read_bytes())
    if site.backend == "tensorflow":
        data[len(data) // 2] ^= 1  # one bit: a bundle has checksums, a safetensors file has none
    else:
        del data[len(data) // 2 :]
    file.write_bytes(data)
    error = run(*site.arguments(output.name), cwd=site.folder).error()
    assert file.name in error and f"remove {output.name}/model.ckpt-{STEPS}*" in error
    assert f"to resume from {output.name}/model.ckpt-{STEPS - 2}" in error
    for path in output.glob(f"model.ckpt-{STEPS}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert f"resuming from {output.name}/model.ckpt-{STEPS - 2}" in site.finish(output.name).err
    site.assert_as_unbroken(output.name)
