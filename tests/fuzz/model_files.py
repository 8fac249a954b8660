"""Valid small files of models and runs, and how they are read: checkpoints, ranges, states, exports."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from reader import write_words
from tiny_exports import exported, int8, tiny_checkpoint, tiny_source

from backends import create_backend
from checkpoints.checkpoint import load_checkpoint, match
from checkpoints.config import BertConfig
from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.hugging_face import write_hugging_face
from checkpoints.names import QUESTION_ANSWERING, expected_tensors, head_of
from checkpoints.q8bert_file import write_q8bert
from checkpoints.tf_checkpoint import write_tf_checkpoint
from checkpoints.value import Checkpoint
from export.compare import unfinished
from export.compare.accuracy import Accuracy
from quantization.exclusion import exclude
from quantization.modes import all_quantizers, enabled_quantizers, get_mode, q8bert_mode
from quantization.ranges import calibration_report
from training.evaluations import Evaluations
from training.saves import RunFolder, TrainingState
from twinquant.arguments_file import split_arguments_file
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.main import sentence_of
from twinquant.run_record import RunRecord, read_records
from twinquant.runs_table import row, table
from twinquant.squad_flags import parse_squad_flags


def _checkpoint(folder: Path, task: str = "squad") -> Checkpoint:
    checkpoint = tiny_checkpoint(task, "ft1", num_hidden_layers=1, hidden_size=8, intermediate_size=12)
    return dataclasses.replace(checkpoint, vocab_file=write_words(folder, 97), metadata={"do_lower_case": "true"})


def make_bundle(folder: Path) -> None:
    write_tf_checkpoint(folder / "model.ckpt-7", _checkpoint(folder), 7)


def make_folder(folder: Path) -> None:
    write_hugging_face(folder / "model", _checkpoint(folder, "glue"))


def make_shards(folder: Path) -> None:
    make_folder(folder)
    (folder / "model/model.safetensors").rename(folder / "model/first.safetensors")
    names = load_names(folder / "model/first.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "first.safetensors")}
    (folder / "model/model.safetensors.index.json").write_text(json.dumps(index))


def load_names(path: Path) -> list[str]:
    from checkpoints.safetensors_file import SafetensorsReader

    return SafetensorsReader(path).names


def make_fastertransformer(folder: Path) -> None:
    write_fastertransformer(folder / "pytorch_model.bin", _checkpoint(folder))


def make_q8bert(folder: Path) -> None:
    checkpoint = _checkpoint(folder, "glue")
    scopes = enabled_quantizers(1, q8bert_mode(), "classification")
    rows = all_quantizers(1, "classification")
    checkpoint.ranges = {scope: np.array(2.5, np.float32) for scope in scopes if not rows[scope].is_weight}
    (folder / "model").mkdir()
    write_q8bert(folder / "model/quantized_model.safetensors", checkpoint, q8bert_mode())


def make_dynamic(folder: Path) -> None:
    from backends.pytorch.dynamic import DynamicModel, DynamicSettings

    checkpoint = _checkpoint(folder, "glue")
    model = DynamicModel.from_tensors(checkpoint.config, "classification", 3, checkpoint.tensors, DynamicSettings())
    model.save(folder / "model")


def read_dynamic(folder: Path) -> None:
    from backends.pytorch.dynamic import DynamicModel

    DynamicModel.load(folder / "model")


def make_state(folder: Path) -> None:
    checkpoint = _checkpoint(folder)
    backend = create_backend("pytorch", checkpoint.config)
    backend.load(checkpoint.tensors)
    shapes = {name: tensor.shape for name, tensor in backend.parameters.items()}
    slots = {f"{name}/adam_{slot}": np.zeros(shape, np.float32) for name, shape in shapes.items() for slot in "mv"}
    state = TrainingState(4, {"processes": 1, "learning_rate": 0.1}, slots | {"loss_scale": np.array([1.0, 0.0])})
    (folder / "out").mkdir()
    RunFolder(folder / "out", "pytorch", 3).save(4, checkpoint, state)
    entry = {"step": 4, "score": 0.5, "scores": {"acc": 0.5}}
    write_json_atomically(folder / "out/evaluations.json", [entry, entry | {"step": 2}])


def read_state(folder: Path) -> None:
    """As a resumed run reads it, the optimizer included."""
    saves = RunFolder(folder / "out", "pytorch", 3)
    saves.fingerprint(4).items()
    checkpoint, state = saves.load(4)
    backend = create_backend("pytorch", checkpoint.config)
    backend.load(checkpoint.tensors)
    try:
        backend.load_optimizer_state(state.optimizer)
    except UserError as error:  # the run says which file it is
        raise UserError(f"{saves.state_path(4)}: {error}") from error


def read_evaluations(folder: Path) -> None:
    evaluations = Evaluations(RunFolder(folder / "out", "pytorch", 3), None, 5)
    assert evaluations.best is None or evaluations.best["step"] <= 5


def make_calibration(folder: Path) -> None:
    make_ft = _checkpoint(folder)
    write_hugging_face(folder / "model", make_ft)
    report = calibration_report(make_ft.ranges, {}, {"calib_method": "max", "batches": 3}, 1, get_mode("ft1"))
    write_json_atomically(folder / "model/calibration.json", report)


def read_calibration(folder: Path) -> None:
    from export.metadata import describe_model
    from export.settings import ExportSettings
    from export.source import load_source

    source = load_source(str(folder / "model"))
    mode = source.choose_mode(None)
    describe_model(source, ExportSettings("int8", mode), source.ranges(mode))


def read_any(path: str) -> Callable[[Path], None]:
    """Loads a checkpoint and matches it with its own configuration, as a run does."""

    def read(folder: Path) -> None:
        checkpoint = load_checkpoint(folder / path)
        if checkpoint.config is not None:
            head = head_of(checkpoint.tensors)
            match(checkpoint, expected_tensors(checkpoint.config, head, len(checkpoint.config.label_names or "?")))
            write_json_atomically(folder / "again.json", checkpoint.config.to_dict())

    return read


def make_exclusion(folder: Path) -> None:
    (folder / "exclude.txt").write_text(
        "# what costs most\nlayer_0/output/dense/input_quantizer\nlayer_*/output # all\n"
    )


def read_exclusion(folder: Path) -> None:
    exclude(get_mode("ft1"), [str(folder / "exclude.txt")], 2)


def make_arguments(folder: Path) -> None:
    values = {"do_predict": True, "learning_rate": 3e-5, "max_steps": 7, "train_file": None}
    for name, path in (("predict_file", "s.json"), ("bert_config_file", "c.json"), ("vocab_file", "vocab.txt")):
        (folder / path).write_text("{}")
        values[name] = f"{folder}/{path}"
    (folder / "model.ckpt.index").write_bytes(b"")
    values |= {"init_checkpoint": f"{folder}/model.ckpt", "output_dir": f"{folder}/out"}
    (folder / "run.json").write_text(json.dumps(values))


def read_arguments(folder: Path) -> None:
    (_, words), _ = split_arguments_file([str(folder / "run.json")])
    try:
        parse_squad_flags(words)
    except (UserError, OSError) as error:  # about a flag, whose value the sentence names
        if sentence := sentence_of(error):
            raise UserError(f"{folder / 'run.json'}: {sentence}") from error
        raise


def read_tokenizer_config(folder: Path) -> None:
    from twinquant.model_files import read_lower_case

    load_checkpoint(folder / "model")
    read_lower_case(str(folder / "model/vocab.txt"))


ROW = Accuracy({"dev/1": "a cat"}, {"dev/1": True}, {"f1": 50.0}, "f1", 3, 0.5, 1000)


def read_unfinished(folder: Path) -> None:
    """A damaged row is measured anew."""
    found = unfinished.load(folder, "0" * 64)
    assert found is None or found.examples_per_second >= 0


def make_onnx(folder: Path) -> None:
    small = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 12}
    write_hugging_face(folder / "model", tiny_checkpoint("squad", "ft1", **small))
    exported(tiny_source("squad", "ft1", **small), int8("ft1"), folder / "onnx")


def read_onnx(folder: Path) -> None:
    from export.commands import run_check

    run_check([f"--model={folder}/onnx", f"--checkpoint={folder}/model", "--threads=1"])


def make_run_record(folder: Path) -> None:
    record = RunRecord(folder, "run_squad.py", ["--do_predict"], {"do_predict": True}, {"backend": "pytorch"})
    record.enter("predict")
    record.note(results={"f1": 50.0, "acc": {"mean": 0.5, "standard_deviation": 0.1}})
    record.save()


def read_run_record(folder: Path) -> None:
    """As `twinquant runs` shows it."""
    runs = read_records(folder / "run.json")
    if runs:
        print("\n".join(table([row(folder, run) for run in runs])))


def read_config(folder: Path) -> None:
    config = BertConfig.from_json_file(folder / "model/config.json")
    expected_tensors(config, QUESTION_ANSWERING)
    write_json_atomically(folder / "again.json", config.to_dict())
