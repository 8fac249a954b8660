"""The rows of docs/bad_input.md: what is wrong, how to make it so, and the command that meets it.

Every row begins with the files of `write_files`. The commands are the words behind BASE's of the same script.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_exports import exported, int8, tiny_checkpoint, tiny_source

from checkpoints.hugging_face import write_hugging_face
from checkpoints.tf_bundle import BundleReader, write_bundle
from install.shapes import write_job

BASE = {
    "run_squad.py": (
        "--vocab_file=vocab.txt --bert_config_file=bert_config.json --init_checkpoint=model.ckpt-1 --max_seq_length=24 "
        "--max_query_length=8 --doc_stride=8 --output_dir=out --backend=pytorch"
    ).split(),
    "run_glue.py": "--init_checkpoint=glue --output_dir=out --max_seq_length=16 --backend=pytorch".split(),
    "python -m export": [],
}


@dataclass(frozen=True)
class Row:
    """what: in words. script: a key of BASE. words: what follows. change: makes the files bad, in their folder."""

    what: str
    script: str
    words: str
    change: Callable[[Path], Any] = lambda folder: None


def write_files(folder: Path) -> None:
    """The files of `install.shapes.write_job`, GLUE data, and an exported model with its checkpoint."""
    write_job(folder)
    (folder / "MRPC").mkdir()
    mrpc = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tthe cat\ta cat\n0\t3\t4\ta dog\twho\n"
    for name in ("train.tsv", "dev.tsv"):
        (folder / "MRPC" / name).write_text(mrpc)
    (folder / "classes.txt").write_text("bad\ngood\n")
    small = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 12}
    write_hugging_face(folder / "ft1", tiny_checkpoint("squad", "ft1", **small))
    exported(tiny_source("squad", "ft1", **small), int8("ft1"), folder / "onnx")


def text(name: str, content: str | bytes) -> Callable[[Path], Any]:
    """The file has this content."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def half(name: str) -> Callable[[Path], Any]:
    """The file ends in its middle."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def flipped(name: str, position: int = -9) -> Callable[[Path], Any]:
    """One byte of the file is another."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[position] ^= 255
        (folder / name).write_bytes(data)

    return change


def dynamic_run(folder: Path) -> None:
    """A folder as run_glue.py --quant_scheme=dynamic leaves it."""
    (folder / "run/fp32/model").mkdir(parents=True)
    (folder / "run/int8").mkdir()
    for name in ("model_int8.safetensors", "dynamic.json"):
        (folder / "run/int8" / name).write_bytes(b"")


def gone(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], Any]:
    """The JSON file's value is changed in place."""

    def write(folder: Path) -> None:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        change(value)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")

    return write


def without(name: str) -> Callable[[Path], Any]:
    """The checkpoint lacks a tensor."""

    def change(folder: Path) -> None:
        reader = BundleReader(folder / "model.ckpt-1")
        write_bundle(folder / "model.ckpt-1", {each: reader.read(each) for each in reader.entries if each != name})

    return change


def question(content: Any) -> Any:
    return content["data"][0]["paragraphs"][0]["qas"][1]


PREDICT = "--predict_file=squad.json --do_predict"
TRAIN = "--train_file=squad.json --do_train --max_steps=1"
OWN = "--train_file=train.csv --validation_file=train.csv --do_train --do_eval"
SQUAD, GLUE, EXPORT = BASE

ROWS = {
    "Checkpoints, configurations and vocabularies": [
        Row("a path that does not exist", SQUAD, f"{PREDICT} --init_checkpoint=model.ckpt-5"),
        Row("the index of a bundle is cut off", SQUAD, PREDICT, half("model.ckpt-1.index")),
        Row("a byte of the index is wrong", SQUAD, PREDICT, flipped("model.ckpt-1.index", 20)),
        Row("the data file is cut off", SQUAD, PREDICT, half("model.ckpt-1.data-00000-of-00001")),
        Row("a byte of the data file is wrong", SQUAD, PREDICT, flipped("model.ckpt-1.data-00000-of-00001")),
        Row("the data file is missing", SQUAD, PREDICT, gone("model.ckpt-1.data-00000-of-00001")),
        Row("a tensor is missing", SQUAD, PREDICT, without("bert/embeddings/LayerNorm/beta")),
        Row("a head that was never trained", SQUAD, PREDICT, without("cls/squad/output_bias")),
        Row("a head for other classes", GLUE, "--train_file=three.csv --do_train --max_steps=1",
            text("three.csv", "text,label\na cat,good\na dog,bad\nthe cat,odd\n")),
        Row("a checkpoint without ranges is to be quantized", SQUAD, f"{PREDICT} --if_quant --quant_mode=ft2"),
        Row("safetensors cut off", GLUE, OWN, half("glue/model.safetensors")),
        Row("a text called model.safetensors", GLUE, OWN,
            text("glue/model.safetensors", "Dear reader, this is a letter.")),
        Row("a text called pytorch_model.bin", SQUAD, f"{PREDICT} --init_checkpoint=pytorch_model.bin",
            text("pytorch_model.bin", "no model")),
        Row("config.json of another model", GLUE, OWN,
            edited("glue/config.json", lambda c: c.update(model_type="gpt2"))),
        Row("config.json is cut off", GLUE, OWN, half("glue/config.json")),
        Row("config.json is nested without end", GLUE, OWN, text("glue/config.json", "[" * 100_000)),
        Row("a size is missing", SQUAD, PREDICT, edited("bert_config.json", lambda c: c.pop("hidden_size"))),
        Row("a size is a text", SQUAD, PREDICT, edited("bert_config.json", lambda c: c.update(hidden_size="16"))),
        Row("a billion layers", SQUAD, PREDICT,
            edited("bert_config.json", lambda c: c.update(num_hidden_layers=10**9))),
        Row("a size that the tensors do not have", SQUAD, PREDICT,
            edited("bert_config.json", lambda c: c.update(intermediate_size=64))),
        Row("the vocabulary of another model", SQUAD, PREDICT, text("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")),
        Row("a vocabulary without special tokens", SQUAD, PREDICT, text("vocab.txt", "the\ncat\n")),
        Row("a state file that names what is not there", SQUAD, f"{PREDICT} --init_checkpoint=MRPC",
            text("MRPC/checkpoint", 'model_checkpoint_path: "model.ckpt-9"\n')),
    ],
    "SQuAD files": [
        Row("an empty file", SQUAD, PREDICT, text("squad.json", "")),
        Row("a file that is cut off", SQUAD, PREDICT, half("squad.json")),
        Row("no UTF-8", SQUAD, PREDICT, text("squad.json", b"\xff\xfe{")),
        Row("a list in the place of an object", SQUAD, PREDICT, text("squad.json", "[]")),
        Row("a number of 5,000 digits", SQUAD, PREDICT, text("squad.json", '{"data": ' + "9" * 5000 + "}")),
        Row("nested without end", SQUAD, PREDICT, text("squad.json", "[" * 100_000)),
        Row("a question without text", SQUAD, TRAIN, edited("squad.json", lambda c: question(c).pop("question"))),
        Row("an id that occurs twice", SQUAD, TRAIN, edited("squad.json", lambda c: question(c).update(id="q0"))),
        Row("an answer's offset is a text", SQUAD, TRAIN,
            edited("squad.json", lambda c: question(c)["answers"][0].update(answer_start="19"))),
        Row("half of a surrogate pair", SQUAD, TRAIN,
            edited("squad.json", lambda c: question(c).update(question="\ud800"))),
        Row("no answer is where its offset says", SQUAD, TRAIN, text("squad.json", json.dumps({"data": [{"paragraphs": [
            {"context": "a cat", "qas": [{"id": "1", "question": "?", "answers": [{"text": "dog", "answer_start": 0}]}]}
        ]}]}))),
    ],
    "Texts with labels": [
        Row("a missing file", GLUE, f"{OWN} --train_file=absent.csv"),
        Row("an ending that is not known", GLUE, f"{OWN} --train_file=texts.xlsx", text("texts.xlsx", "x")),
        Row("a row with too many fields", GLUE, OWN, text("train.csv", "text,label\na cat, sat,good\na dog,bad\n")),
        Row("quotes that do not end", GLUE, OWN, text("train.csv", 'text,label\n"a cat,good\na dog,bad\n')),
        Row("no UTF-8", GLUE, OWN, text("train.csv", b"text,label\ncaf\xe9,good\na dog,bad\n")),
        Row("no column of labels", GLUE, OWN, text("train.csv", "text,more\na cat,x\na dog,y\n")),
        Row("one class only", GLUE, OWN, text("train.csv", "text,label\na cat,good\na dog,good\n")),
        Row("a label that training does not know", GLUE, f"{OWN} --validation_file=dev.csv --max_steps=1",
            text("dev.csv", "text,label\na cat,great\n")),
        Row("JSON lines, one of them broken", GLUE, f"{OWN} --train_file=t.jsonl",
            text("t.jsonl", '{"text": "a", "label": 1}\n{"text": \n')),
        Row("a model that is dynamically quantized already", GLUE, f"{OWN} --init_checkpoint=run/int8", dynamic_run),
        Row("a class named twice", GLUE, f"{OWN} --class_file=classes.txt", text("classes.txt", "good\nbad\ngood\n")),
        Row("GLUE: a folder without the files", GLUE, "--task_name=MRPC --data_dir=glue --do_eval"),
        Row("GLUE: a row with too few columns", GLUE, "--task_name=MRPC --data_dir=MRPC --do_eval",
            text("MRPC/dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\n")),
        Row("GLUE: a label of another task", GLUE, "--task_name=MRPC --data_dir=MRPC --do_eval",
            text("MRPC/dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n7\t1\t2\ta\tb\n")),
    ],
    "Flags": [
        Row("a misspelled flag", SQUAD, f"{PREDICT} --learning_rat=1"),
        Row("a word in the place of a number", SQUAD, f"{PREDICT} --learning_rate=fast"),
        Row("a number out of its range", SQUAD, f"{PREDICT} --percentile=101"),
        Row("a mode that does not exist", SQUAD, f"{PREDICT} --quant_mode=ft4"),
        Row("no work to do", SQUAD, "--predict_file=squad.json"),
        Row("calibration without data", SQUAD, "--do_calib"),
        Row("a folder in the place of a file", SQUAD, "--do_predict --predict_file=glue"),
        Row("a name that is too long for the system", SQUAD, f"--do_predict --predict_file={'a' * 300}"),
        Row("lengths that do not fit", SQUAD, f"{PREDICT} --max_query_length=30"),
        Row("longer than the model's positions", SQUAD, f"{PREDICT} --max_seq_length=64"),
        Row("a pattern that names no quantizer", SQUAD, f"{PREDICT} --if_quant --quant_exclude layer_9"),
        Row("distillation without a teacher", SQUAD, f"{TRAIN} --distillation"),
        Row("a GLUE task that does not exist", GLUE, "--task_name=POEM --data_dir=MRPC --do_eval"),
        Row("a file of arguments with a key that is no flag", GLUE, "run.json",
            text("run.json", '{"do_train": null, "a b": 1}')),
    ],
    "Exported models": [
        Row("no checkpoint", EXPORT, "onnx --output=o"),
        Row("int8 without ranges", EXPORT, "onnx --checkpoint=model.ckpt-1 --output=o --precision=int8"),
        Row("a file in the place of GLUE's folder", EXPORT,
            "onnx --checkpoint=glue --output=o --check_data=MRPC/dev.tsv --task_name=mrpc"),
        Row("a dynamically quantized model", EXPORT, "onnx --checkpoint=run/int8 --output=o", dynamic_run),
        Row("a model that is cut off", EXPORT, "check --model=onnx --checkpoint=ft1", half("onnx/model.onnx")),
        Row("no ONNX file", EXPORT, "check --model=onnx --checkpoint=ft1", text("onnx/model.onnx", "this is no model")),
        Row("a precision that does not exist", EXPORT, "onnx --checkpoint=model.ckpt-1 --output=o --precision=int4"),
        Row("calibration.json is damaged", EXPORT, "onnx --checkpoint=ft1 --output=o --precision=int8",
            text("ft1/calibration.json", '{"quant_mode": ')),
    ],
    "Surroundings": [
        Row("the output folder is a file", SQUAD, f"{PREDICT} --output_dir=vocab.txt"),
        Row("the output folder cannot be made", SQUAD, f"{PREDICT} --output_dir=/proc/out"),
        Row("no GPU", SQUAD, f"{PREDICT} --device=cuda"),
        Row("checkpoints without their training state", SQUAD, f"{TRAIN} --output_dir=run",
            lambda at: [(at / "run").mkdir(), write_hugging_face(at / "run/model.ckpt-3", tiny_checkpoint())]),
        Row("checkpoints of the other backend", SQUAD, f"{TRAIN} --output_dir=."),
        Row("a name of two checkpoints", SQUAD, PREDICT,
            lambda folder: write_hugging_face(folder / "model.ckpt-1", tiny_checkpoint())),
    ],
}  # fmt: skip
