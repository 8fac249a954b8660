"""Command lines of the guides for run_glue.py, verbatim but for the shell's variables, and the settings they make."""

import json

import pytest
from glue_files import GlueFiles, changed, make_glue_files, notes_with

from twinquant.glue_flags import parse_glue_flags

PYTORCH_TUTORIAL = r"""
    --model_type bert \
    --model_name_or_path bert-base-uncased \
    --task_name MRPC \
    --do_train \
    --do_eval \
    --do_lower_case \
    --data_dir {}/glue_data/MRPC \
    --max_seq_length 128 \
    --per_gpu_eval_batch_size=8   \
    --per_gpu_train_batch_size=8   \
    --learning_rate 2e-5 \
    --num_train_epochs 3.0 \
    --save_steps 100000 \
    --output_dir {}/out/MRPC/
"""
# Every optional flag of the script of transformers 2, at its own default but for the switches.
TRANSFORMERS_2 = r"""
    --data_dir {}/glue_data/CoLA --model_type bert --model_name_or_path {}/plain --task_name CoLA --output_dir {}/out \
    --config_name {}/plain --tokenizer_name {}/plain --cache_dir {}/cache --max_seq_length 128 --do_train --do_eval \
    --evaluate_during_training --per_gpu_train_batch_size 8 --per_gpu_eval_batch_size 8 \
    --gradient_accumulation_steps 4 --learning_rate 5e-5 --weight_decay 0.0 --adam_epsilon 1e-8 --max_grad_norm 1.0 \
    --num_train_epochs 3.0 --max_steps -1 --warmup_steps 0 --logging_steps 500 --save_steps 500 \
    --eval_all_checkpoints --no_cuda --overwrite_output_dir --overwrite_cache --seed 42 --fp16 --fp16_opt_level O1 \
    --local_rank -1 --server_ip 127.0.0.1 --server_port 12345
"""
TRANSFORMERS_4 = r"""
  --model_name_or_path bert-base-cased \
  --task_name mrpc \
  --do_train \
  --do_eval \
  --max_seq_length 128 \
  --per_device_train_batch_size 32 \
  --learning_rate 2e-5 \
  --num_train_epochs 3 \
  --output_dir {}/out/mrpc/ \
  --data_dir {}/glue_data/MRPC
"""
OWN_FILES = r"""
  --model_name_or_path {}/bert-base-cased --train_file {}/train.csv --validation_file {}/validation.csv \
  --test_file {}/test.csv --text_column_names sentence1 --label_column_name target --do_train --do_eval --do_predict \
  --max_seq_length 64 --pad_to_max_length False --max_train_samples 100 --max_eval_samples 50 \
  --max_predict_samples 20 --per_device_train_batch_size 16 --per_device_eval_batch_size 64 --eval_strategy steps \
  --eval_steps 20 --save_strategy epoch --warmup_ratio 0.06 --use_cpu --bf16 --load_best_model_at_end \
  --metric_for_best_model accuracy --report_to none --use_fast_tokenizer False --output_dir {}/out
"""
OF_DEFAULTS = {"warmup_steps": 0, "weight_decay": 0.0, "adam_epsilon": 1e-8, "log_freq": 500}
FILES = ("init_checkpoint", "bert_config_file", "vocab_file", "output_dir", "data_dir", "teacher")


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


def test_the_pytorch_tutorial(glue):
    settings = glue.parse_only(PYTORCH_TUTORIAL)
    assert changed(settings, "output_dir", "data_dir") == {
        **OF_DEFAULTS,
        "init_checkpoint": "bert-base-uncased",
        "task_name": "mrpc",
        "do_train": True,
        "do_eval": True,
        "learning_rate": 2e-5,
        "save_checkpoints_steps": 100000,
    }
    assert settings.do_lower_case is True and settings.evaluate_steps is None
    assert (settings.train_batch_size, settings.predict_batch_size, settings.max_seq_length) == (8, 8, 128)
    assert (settings.dialect, settings.scale_learning_rate, settings.backend) == ("hugging_face", False, None)
    assert settings.bert_config_file is None and settings.vocab_file is None  # the hub name brings them
    [note] = settings.notes
    assert note.startswith("note: --model_type and --model_name_or_path belong to Hugging Face's and NLP Architect's")
    assert "warmup_steps 0, weight_decay 0.0, adam_epsilon 1e-08" in note


def test_every_flag_of_transformers_2(glue):
    settings = glue.parse_only(TRANSFORMERS_2)
    assert changed(settings, *FILES) == {
        **OF_DEFAULTS,
        "task_name": "cola",
        "do_train": True,
        "do_eval": True,
        "evaluate_during_training": True,
        "eval_all_checkpoints": True,
        "do_lower_case": False,
        "num_accumulation_steps": 4,
        "save_checkpoints_steps": 500,
        "cache_dir": f"{glue.folder}/cache",
        "device": "cpu",
        "use_fp16": True,
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    assert (settings.evaluate_steps, settings.evaluate_per_epoch) == (500, False)
    assert notes_with(settings, "4 steps of 8 examples make one update of 32")
    assert notes_with(settings, "do_lower_case is False, the default of the scripts with --model_type")
    for flag in ("--server_ip", "--server_port"):
        assert len(notes_with(settings, f"{flag} ")) + len(notes_with(settings, f"{flag}=")) == 1


def test_transformers_4(glue):
    settings = glue.parse_only(TRANSFORMERS_4)
    assert changed(settings, "output_dir", "data_dir") == {
        **OF_DEFAULTS,
        "init_checkpoint": "bert-base-cased",
        "task_name": "mrpc",
        "do_train": True,
        "do_eval": True,
        "do_lower_case": False,
        "train_batch_size": 32,
        "learning_rate": 2e-5,
        "save_checkpoints_steps": 500,
    }
    assert settings.dialect == "hugging_face"
    assert notes_with(settings, "do_lower_case is False, as the name bert-base-cased says")


def test_own_files_of_transformers_5(glue, tmp_path):
    settings = glue.parse_only(OWN_FILES)
    assert changed(settings, *FILES) == {
        "weight_decay": 0.0,
        "adam_epsilon": 1e-8,
        "log_freq": 500,
        "warmup_proportion": 0.06,
        "train_file": f"{tmp_path}/train.csv",
        "validation_file": f"{tmp_path}/validation.csv",
        "test_file": f"{tmp_path}/test.csv",
        "text_column": ("sentence1",),
        "label_column": "target",
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "max_seq_length": 64,
        "max_train_samples": 100,
        "max_eval_samples": 50,
        "max_predict_samples": 20,
        "train_batch_size": 16,
        "predict_batch_size": 64,
        "evaluate_during_training": True,
        "load_best_model_at_end": True,
        "save_checkpoints_steps": 2**31 - 1,
        "save_per_epoch": True,
        "device": "cpu",
        "use_fp16": True,
        "do_lower_case": False,
    }
    assert (settings.evaluate_steps, settings.evaluate_per_epoch, settings.warmup_steps) == (20, False, None)
    for text in (
        "--metric_for_best_model has no effect: the best checkpoint is the one with the best main score of the task",
        "--use_fast_tokenizer has no effect",
        "--bf16 is taken as --use_fp16",
        "--save_strategy=epoch: a checkpoint is saved at the end of every epoch",
        "do_lower_case is False, as tokenizer_config.json beside",
    ):
        assert len(notes_with(settings, text)) == 1, text


def test_one_json_file_is_the_same_as_its_flags(glue, tmp_path):
    arguments = {
        "model_name_or_path": f"{tmp_path}/bert-base-cased",
        "task_name": "mrpc",
        "data_dir": f"{tmp_path}/glue_data/MRPC",
        "do_train": True,
        "do_predict": False,
        "learning_rate": 2e-05,
        "num_train_epochs": 3,
        "max_train_samples": None,
        "report_to": ["none"],
        "eval_strategy": "epoch",
        "output_dir": f"{tmp_path}/out",
    }
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    settings = parse_glue_flags([str(tmp_path / "arguments.json")])
    assert settings == glue.parse_only(
        "--model_name_or_path {}/bert-base-cased --task_name mrpc --data_dir {}/glue_data/MRPC --do_train "
        "--do_predict=false --learning_rate 2e-05 --num_train_epochs 3 --report_to none --eval_strategy epoch "
        "--output_dir {}/out"
    )
    assert settings.evaluate_per_epoch and settings.dialect == "hugging_face"


TWIN = r"""
  --data_dir={}/glue_data/MRPC \
  --task_name=mrpc \
  --do_eval \
  --do_lower_case \
  --bert_model=bert-base-uncased \
  --max_seq_length=128 \
  --vocab_file={}/uncased/vocab.txt \
  --config_file={}/uncased/bert_config.json \
  --output_dir={}/out \
  --max_steps=-1 \
  --fp16 \
"""
TWIN_FINETUNE = (
    TWIN
    + r"""
  --init_checkpoint={}/twin/pytorch_model.bin --do_train --train_batch_size=4 --eval_batch_size=16 \
  --learning_rate=3e-5 --num_train_epochs=2 --warmup_proportion=0.1 --quant-disable
"""
)
TWIN_PTQ = (
    TWIN
    + r"""
  --init_checkpoint={}/twin/pytorch_model.bin --do_calib --train_batch_size=16 --num-calib-batch=16 \
  --calibrator percentile --percentile 99.99 --quant_mode ft2
"""
)
TWIN_DISTILLATION = (
    TWIN
    + r"""
  --init_checkpoint={}/twin/pytorch_model.bin --do_train --train_batch_size=4 --learning_rate=3e-5 \
  --num_train_epochs=10 --quant_mode ft2 --distillation --teacher={}/twin/pytorch_model.bin \
  --distillation_loss_scale 1000
"""
)
OF_TWIN = {
    "task_name": "mrpc",
    "do_eval": True,
    "seed": 1,
    "calib_method": "max",
    "distillation_loss": "pytorch",
    "use_fp16": True,
}


@pytest.mark.parametrize(
    "command, expected",
    [
        (
            TWIN_FINETUNE,
            {
                "do_train": True,
                "train_batch_size": 4,
                "predict_batch_size": 16,
                "learning_rate": 3e-5,
                "num_train_epochs": 2.0,
                "quant_mode": None,
            },
        ),
        (
            TWIN_PTQ,
            {
                "do_calib": True,
                "if_quant": True,
                "train_batch_size": 16,
                "calib_batch": 16,
                "calib_method": "percentile",
            },
        ),
        (
            TWIN_DISTILLATION,
            {
                "do_train": True,
                "if_quant": True,
                "train_batch_size": 4,
                "learning_rate": 3e-5,
                "num_train_epochs": 10.0,
                "distillation": True,
                "distillation_loss_scale": 1000.0,
            },
        ),
    ],
    ids=["fine-tune", "PTQ", "QAT with distillation"],
)
def test_fastertransformers_pytorch_script(glue, command, expected):
    settings = glue.parse_only(command)
    difference = {**OF_TWIN, **expected}
    assert {name: getattr(settings, name) for name in difference} == difference
    assert changed(settings, *FILES).keys() <= difference.keys()
    assert settings.quant_mode == expected.get("quant_mode", "ft2")
    assert (settings.dialect, settings.scale_learning_rate, settings.do_lower_case) == ("pytorch", False, True)
    assert settings.init_checkpoint == f"{glue.folder}/twin/pytorch_model.bin"
    assert notes_with(settings, "to FasterTransformer's PyTorch script, so its defaults hold")


def test_the_twins_defaults(glue):
    settings = glue.parse_only(
        TWIN.replace("--do_lower_case", "") + " --init_checkpoint={}/twin/pytorch_model.bin --do_train"
    )
    assert (settings.train_batch_size, settings.learning_rate, settings.predict_batch_size) == (32, 5e-5, 8)
    assert (settings.if_quant, settings.quant_mode, settings.do_lower_case, settings.seed) == (True, None, False, 1)
    assert settings.custom_mode is not None and settings.warmup_proportion == 0.1


def test_the_twins_do_predict_meant_the_dev_set(glue):
    settings = glue.parse_only(TWIN + " --init_checkpoint={}/twin/pytorch_model.bin --do_predict")
    assert settings.do_predict and settings.do_eval
    assert notes_with(settings, "the PyTorch script's wrote the predictions of the dev set")
