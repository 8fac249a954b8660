"""Every reader of files that a user may give, with a small valid file for it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from damage import BYTES, JSON, SAFETENSORS, TEXT, change_protobuf, change_table
from tiny_exports import exported, int8, tiny_checkpoint, tiny_source

from backends import create_backend
from checkpoints.checkpoint import load_checkpoint, match
from checkpoints.config import BertConfig
from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.hugging_face import write_hugging_face
from checkpoints.names import QUESTION_ANSWERING, expected_tensors, head_of
from checkpoints.q8bert_file import read_q8bert, write_q8bert
from checkpoints.tf_checkpoint import write_tf_checkpoint
from checkpoints.value import Checkpoint
from export.compare import unfinished
from export.compare.accuracy import Accuracy
from quantization.exclusion import exclude
from quantization.modes import all_quantizers, enabled_quantizers, get_mode, q8bert_mode
from quantization.ranges import calibration_report
from tasks.classification import ClassificationTask
from tasks.feature_cache import cached_features
from tasks.glue import GlueSource
from tasks.squad import SquadTask
from tasks.text_classification import OwnDataSource
from tasks.tokenization import load_tokenizer
from training.evaluations import Evaluations
from training.saves import RunFolder, TrainingState
from twinquant.arguments_file import expand_arguments_file
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.main import sentence_of
from twinquant.squad_flags import parse_squad_flags

WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran un ##aff ##able ##s ##ed who what where ? . ,
' s ( ) - 19 ##43 good bad""".split()
# Numbers, words that are no words, and long ones.
CONTEXT = "The cat sat on the mat. A dog ran (1943) where who sat, unaffable's 北京 cats."


@dataclasses.dataclass(frozen=True)
class Reader:
    """One file of one form.

    make: writes all that belongs together into a folder. file: the one to damage. read: reads it, as far as a run
    would before it computes. ways: to damage it. slow: how many times as long as others it takes.
    """

    make: Callable[[Path], None]
    file: str
    read: Callable[[Path], object]
    ways: tuple[Callable[[Random, bytes], bytes], ...]
    slow: int = 1


def write_words(folder: Path, size: int = len(WORDS)) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join([*WORDS, *(f"word{n}" for n in range(size - len(WORDS)))]) + "\n", encoding="utf-8")
    return path


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
    words = expand_arguments_file([str(folder / "run.json")])
    try:
        parse_squad_flags(words)
    except (UserError, OSError) as error:  # about a flag, whose value the sentence names
        if sentence := sentence_of(error):
            raise UserError(f"{folder / 'run.json'}: {sentence}") from error
        raise


def make_squad(folder: Path) -> None:
    write_words(folder)
    questions = [
        {"id": f"q{n}", "question": "Who sat ?", "is_impossible": n == 1,
         "answers": [] if n == 1 else [{"text": "the mat", "answer_start": 15}]}
        for n in range(3)
    ]  # fmt: skip
    paragraphs = [{"context": CONTEXT, "qas": questions[:2]}, {"context": CONTEXT, "qas": questions[2:]}]
    content = {"version": "2.0", "data": [{"title": "Cats", "paragraphs": paragraphs}]}
    (folder / "squad.json").write_text(json.dumps(content), encoding="utf-8")


def read_squad(folder: Path) -> None:
    lengths = {"max_seq_length": 24, "max_query_length": 8, "doc_stride": 8, "version_2_with_negative": True}
    path = folder / "squad.json"
    task = SquadTask(vocab_file=folder / "vocab.txt", train_file=path, predict_file=path, **lengths)
    task.train_features()
    for prediction_set in task.prediction_sets():
        features = prediction_set.features()
        logits = np.zeros((len(features), 24), np.float32)
        (folder / "answers").mkdir(exist_ok=True)
        prediction_set.finish({"start_logits": logits, "end_logits": logits}, folder / "answers")


def own_data(name: str, text: str) -> Reader:
    def make(folder: Path) -> None:
        write_words(folder)
        for each in (name, f"other{Path(name).suffix}"):
            (folder / each).write_text(text, encoding="utf-8")
        (folder / "classes.txt").write_text("bad\ngood\n")

    def read(folder: Path) -> None:
        for train, dev in ((name, f"other{Path(name).suffix}"), (f"other{Path(name).suffix}", name)):
            classify(OwnDataSource(folder / train, folder / dev), folder)
        if name.endswith(".csv"):
            classify(OwnDataSource(folder / name, folder / name, class_file=folder / "classes.txt"), folder)

    return Reader(make, name, read, JSON if Path(name).suffix.startswith(".json") else TEXT)


def classify(source, folder: Path) -> None:
    task = ClassificationTask(source=source, vocab_file=folder / "vocab.txt", max_seq_length=24)
    task.train_features()
    for prediction_set in task.prediction_sets():
        rows = len(prediction_set.features())
        (folder / "results").mkdir(exist_ok=True)
        prediction_set.finish({"logits": np.zeros((rows, task.num_labels), np.float32)}, folder / "results")


def read_classes(folder: Path) -> None:
    classify(OwnDataSource(folder / "train.csv", folder / "other.csv", class_file=folder / "classes.txt"), folder)


def glue(task: str, folder_name: str, header: str, rows: list[str]) -> Reader:
    def make(folder: Path) -> None:
        write_words(folder)
        (folder / folder_name).mkdir()
        names = ["train", "dev_matched", "dev_mismatched"] if task == "mnli" else ["train", "dev"]
        for name in names:
            text = "".join(f"{line}\n" for line in ([header] if header else []) + rows)
            (folder / folder_name / f"{name}.tsv").write_text(text, encoding="utf-8")

    return Reader(make, f"{folder_name}/train.tsv", lambda folder: classify(GlueSource(task, folder), folder), TEXT)


def read_vocabulary(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "vocab.txt")
    tokenizer.encode_texts([CONTEXT, "", "[CLS] \x00"])


def read_tokenizer_config(folder: Path) -> None:
    from twinquant.model_files import read_lower_case

    load_checkpoint(folder / "model")
    read_lower_case(str(folder / "model/vocab.txt"))


def _features(folder: Path):
    make_squad(folder)
    path = folder / "squad.json"
    task = SquadTask(
        vocab_file=folder / "vocab.txt", train_file=path, max_seq_length=24, max_query_length=8, doc_stride=8,
        version_2_with_negative=True,
    )  # fmt: skip
    return task.train_features()


def make_cache(folder: Path) -> None:
    cached_features(folder, "0" * 64, lambda: _features(folder))


def read_cache(folder: Path) -> None:
    """A damaged cache is made anew, so what comes back is right in any case."""
    expected = _features(folder)
    found = cached_features(folder, "0" * 64, lambda: expected)
    for name, array in expected.batch(np.arange(len(expected)), 24).items():
        np.testing.assert_array_equal(found.batch(np.arange(len(found)), 24)[name], array)


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


def read_config(folder: Path) -> None:
    config = BertConfig.from_json_file(folder / "model/config.json")
    expected_tensors(config, QUESTION_ANSWERING)
    write_json_atomically(folder / "again.json", config.to_dict())


CSV = 'text,label\n"The cat, sat",good\n"a ""dog"" ran\non",bad\nwho sat,good\n'
TSV = "sentence\tlabel\nThe cat sat\t1\na dog ran\t0\nwho\t1\n"
ITEMS = [{"text": "The cat sat", "label": 1, "id": 5}, {"text": "a dog", "label": 0}, {"text": "who", "label": 1}]
SCORES = [{"text": "The cat sat", "label": 1.5}, {"text": "a dog", "label": 0.25}, {"text": "who", "label": 3}]

READERS = {
    "bundle index": Reader(make_bundle, "model.ckpt-7.index", read_any("model.ckpt-7"), (*BYTES, change_table)),
    "bundle data": Reader(make_bundle, "model.ckpt-7.data-00000-of-00001", read_any("model.ckpt-7"), BYTES),
    "bert_config.json": Reader(make_bundle, "bert_config.json", read_any("model.ckpt-7"), JSON),
    "config.json": Reader(make_folder, "model/config.json", read_config, JSON),
    "config.json of a checkpoint": Reader(make_folder, "model/config.json", read_any("model"), JSON),
    "safetensors": Reader(make_folder, "model/model.safetensors", read_any("model"), SAFETENSORS),
    "ranges": Reader(make_folder, "model/quantization_ranges.safetensors", read_any("model"), SAFETENSORS),
    "index of shards": Reader(make_shards, "model/model.safetensors.index.json", read_any("model"), JSON),
    "tokenizer_config.json": Reader(make_folder, "model/tokenizer_config.json", read_tokenizer_config, JSON),
    "pytorch_model.bin": Reader(make_fastertransformer, "pytorch_model.bin", read_any("pytorch_model.bin"), BYTES, 2),
    "checkpoint state": Reader(make_state, "out/checkpoint", read_any("out"), TEXT),
    "q8bert int8 file": Reader(
        make_q8bert, "model/quantized_model.safetensors", lambda folder: read_q8bert(folder / "model"), SAFETENSORS
    ),
    "dynamic.json": Reader(make_dynamic, "model/dynamic.json", read_dynamic, JSON, 2),
    "dynamic weights": Reader(make_dynamic, "model/model_int8.safetensors", read_dynamic, SAFETENSORS, 2),
    "training state": Reader(make_state, "out/model.ckpt-4.training_state.safetensors", read_state, SAFETENSORS, 3),
    "evaluations.json": Reader(make_state, "out/evaluations.json", read_evaluations, JSON),
    "calibration.json": Reader(make_calibration, "model/calibration.json", read_calibration, JSON, 2),
    "quant_exclude": Reader(make_exclusion, "exclude.txt", read_exclusion, TEXT),
    "file of arguments": Reader(make_arguments, "run.json", read_arguments, JSON),
    "row of a comparison": Reader(
        lambda folder: unfinished.save(folder, "0" * 64, ROW), f"unfinished/{'0' * 64}.json", read_unfinished, JSON
    ),
    "squad": Reader(make_squad, "squad.json", read_squad, JSON, 2),
    "csv": own_data("train.csv", CSV),
    "tsv": own_data("train.tsv", TSV),
    "txt": own_data("train.txt", "The cat sat\t1\na dog ran\t0\nwho\t1\n"),
    "json": own_data("train.json", json.dumps(ITEMS)),
    "jsonl": own_data("train.jsonl", "".join(json.dumps(item) + "\n" for item in SCORES)),
    "class file": dataclasses.replace(own_data("train.csv", CSV), file="classes.txt", read=read_classes),
    "cola": glue("cola", "CoLA", "", ["gj04\t1\t\tThe cat sat.", "gj04\t0\t*\tSat cat the."]),
    "mrpc": glue("mrpc", "MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
                 ["1\t1\t2\tA cat\tcats", "0\t3\t4\ta\tb"]),
    "sts-b": glue("sts-b", "STS-B", "\t".join("index genre file year old s1 s2 sentence1 sentence2 score".split()),
                  ["0\tn\tf\t1\to\ts\ts\ta cat\tcats\t5.000", "1\tn\tf\t1\to\ts\ts\ta dog\tran\t0.250"]),
    "qqp": glue("qqp", "QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
                ["1\t2\t3\twho sat?\twho?\t1", "4\t5\t6\twhat\twhere\t0"]),
    "vocabulary": Reader(lambda folder: write_words(folder) and None, "vocab.txt", read_vocabulary, TEXT),
    "feature cache": Reader(make_cache, f"squad-features-{'0' * 64}.npz", read_cache, BYTES),
    "onnx": Reader(make_onnx, "onnx/model.onnx", read_onnx, (*BYTES, change_protobuf), 30),
}  # fmt: skip


def prepare(reader: Reader, folder: Path) -> None:
    """Writes the valid files; they must be readable."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader.make(folder)
    reader.read(folder)
