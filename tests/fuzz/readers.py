"""Every reader of files that a user may give, with a small valid file for it."""

import dataclasses
import json
import shutil
from pathlib import Path

from damage import BYTES, JSON, SAFETENSORS, TEXT, change_protobuf, change_table
from model_files import (
    ROW,
    make_arguments,
    make_bundle,
    make_calibration,
    make_dynamic,
    make_exclusion,
    make_fastertransformer,
    make_folder,
    make_onnx,
    make_q8bert,
    make_run_record,
    make_shards,
    make_state,
    read_any,
    read_arguments,
    read_calibration,
    read_config,
    read_dynamic,
    read_evaluations,
    read_exclusion,
    read_onnx,
    read_run_record,
    read_state,
    read_tokenizer_config,
    read_unfinished,
)
from reader import Reader, write_words
from task_files import (
    glue,
    make_cache,
    make_squad,
    own_data,
    read_cache,
    read_classes,
    read_squad,
    read_vocabulary,
)

from checkpoints.q8bert_file import read_q8bert
from export.compare import unfinished

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
    "record of runs": Reader(make_run_record, "run.json", read_run_record, JSON),
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
