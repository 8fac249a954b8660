"""--tensorboard from the command line: the same bits as without, and curves that a resumed run goes on with."""

from pathlib import Path

import pytest
from small_runs import BACKENDS, assert_equal_arrays, flags, run, saved, succeed

from training.saves import RunFolder

COMMAND = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --init_checkpoint=squad_model/bert_model.ckpt
    --max_seq_length=64 --max_query_length=16 --doc_stride=32 --train_batch_size=4 --calib_batch=2
    --do_calib --do_train --if_quant --quant_mode=ft2 --percentile=99 --learning_rate=1e-3
    --max_steps=6 --save_checkpoints_steps=3 --log_freq=2"""
)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loaded = accumulator.EventAccumulator(str(folder))
    loaded.Reload()
    return {tag: [(one.step, one.value) for one in loaded.Scalars(tag)] for tag in loaded.Tags()["scalars"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_bits_and_the_same_curves_after_a_break(
    workplace: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*COMMAND, f"--backend={backend}"]
    succeed(*command, "--output_dir=plain", cwd=workplace)
    succeed(*command, "--output_dir=told", "--tensorboard", cwd=workplace)
    assert not (workplace / "plain/tensorboard").exists()
    for step in (3, 6):
        first, second = (RunFolder(workplace / name, backend, 3).load(step) for name in ("plain", "told"))
        assert_equal_arrays(second[0].tensors, first[0].tensors)
        assert_equal_arrays(second[1].optimizer, first[1].optimizer)

    found = curves(workplace / "told/tensorboard")
    assert [step for step, _ in found["train/loss"]] == [2, 4, 6]
    clipped = found["clipped_layer_0/attention/self/query/input_quantizer"]
    assert [step for step, _ in clipped] == [0, 2, 4, 6] and all(0 < value < 0.2 for _, value in clipped)
    assert "clipped_layer_0/output/add_local_input_quantizer" not in found  # off in mode ft2

    # Broken off in step 5, after the points of step 4: the run goes on from step 3, and every step is there once.
    save = RunFolder.save

    def broken(self: RunFolder, label: int | str, *arguments: object, **keywords: object) -> Path:
        if label == 6:
            raise KeyboardInterrupt
        return save(self, label, *arguments, **keywords)

    monkeypatch.setattr(RunFolder, "save", broken)
    assert run(*command, "--output_dir=broken", "--logging_dir=logs", cwd=workplace).code == 130
    monkeypatch.undo()
    succeed(*command, "--output_dir=broken", "--logging_dir=logs", cwd=workplace)
    continued = curves(workplace / "logs")
    timeless = [tag for tag in found if tag != "train/examples_per_second"]
    assert {tag: continued[tag] for tag in timeless} == {tag: found[tag] for tag in timeless}
    assert_equal_arrays(
        saved(workplace / "broken/model.ckpt-6").tensors, saved(workplace / "told/model.ckpt-6").tensors
    )
