"""One --output_dir for two runs: the other backend's training is refused, and a name never means two checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import BACKENDS, flags, run, saved, succeed

from checkpoints.checkpoint_state import latest_checkpoint
from training.saves import RunFolder

START = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --init_checkpoint=squad_model/bert_model.ckpt --train_file=squad_data/train-v1.1.json
    --max_seq_length=64 --max_query_length=16 --doc_stride=32 --train_batch_size=4 --calib_batch=1 --output_dir=out"""
)
TRAIN = [*START, "--do_train"]
CALIBRATE = [*START, "--do_calib"]
BOTH_WAYS = pytest.mark.parametrize(
    ("first", "second"), [BACKENDS, BACKENDS[::-1]], ids=["pytorch after tensorflow", "tensorflow after pytorch"]
)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.json"}


@BOTH_WAYS
def test_training_after_the_other_backend(workplace: Path, first: str, second: str) -> None:
    """Refused, and nothing changes; with --overwrite_output_dir no form of the earlier checkpoints stays."""
    out = workplace / "out"
    succeed(*TRAIN, f"--backend={first}", "--max_steps=2", cwd=workplace)
    before = content(out)
    error = run(*TRAIN, f"--backend={second}", "--max_steps=2", cwd=workplace).error()
    assert f"--output_dir out holds model.ckpt-2 of another run (backend: {first} there, {second} here)" in error
    assert "--overwrite_output_dir" in error and content(out) == before
    succeed(*TRAIN, f"--backend={second}", "--max_steps=1", "--overwrite_output_dir", cwd=workplace)
    assert not list(out.glob("model.ckpt-2*"))
    assert RunFolder(out, second, 3).steps() == [1] and RunFolder(out, first, 3).steps() == []
    assert latest_checkpoint(out) == str(out / "model.ckpt-1")
    cards = [card.read_text(encoding="utf-8") for card in out.rglob("README.md")]
    assert len(cards) == 1 and "# model.ckpt-1" in cards[0], "a card of a model that is gone"


@BOTH_WAYS
def test_calibrating_after_the_other_backend(workplace: Path, first: str, second: str) -> None:
    """model.ckpt-calibrated is the one that calibration.json tells of."""
    out = workplace / "out"
    succeed(*CALIBRATE, f"--backend={first}", "--calib_method=max", cwd=workplace)
    old = saved(out / "model.ckpt-calibrated").ranges
    succeed(*CALIBRATE, f"--backend={second}", "--calib_method=percentile", "--percentile=90", cwd=workplace)
    found = saved(out / "model.ckpt-calibrated").ranges
    assert (out / "model.ckpt-calibrated").is_dir() == (second == "pytorch")
    assert (out / "model.ckpt-calibrated.index").exists() == (second == "tensorflow")
    scope = "bert/encoder/layer_0/attention/self/query/input_quantizer"
    told = json.loads((out / "calibration.json").read_text())["quantizers"][scope]["amax"]
    assert found[scope] == np.float32(told) != old[scope]
    assert len(list(out.rglob("README.md"))) == 1, "a card of a model that is gone"


def test_a_calibration_tells_that_it_takes_the_place_of_a_trained_model(workplace: Path) -> None:
    """In one call with training it is the other way round, and nothing to be warned of."""
    out = workplace / "out"
    both = succeed(*TRAIN, "--do_calib", "--backend=pytorch", "--max_steps=2", cwd=workplace)
    anew = succeed(*TRAIN, *flags("--do_calib --backend=pytorch --max_steps=1 --overwrite_output_dir"), cwd=workplace)
    assert latest_checkpoint(out) == str(out / "model.ckpt-1")
    alone = succeed(*CALIBRATE, "--backend=pytorch", cwd=workplace)
    again = succeed(*CALIBRATE, "--backend=pytorch", cwd=workplace)
    warned = [line for line in alone.err.splitlines() if "warning: " in line and "newest" in line]
    assert len(warned) == 1 and "model.ckpt-1 was" in warned[0] and "takes model.ckpt-calibrated" in warned[0]
    for outcome in (both, anew, again):
        assert "was the newest" not in outcome.err
    assert latest_checkpoint(out) == str(out / "model.ckpt-calibrated")
