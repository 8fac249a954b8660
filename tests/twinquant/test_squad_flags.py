"""Command lines of the guides, verbatim but for the paths, and the settings they make."""

import dataclasses
import json

import pytest

from twinquant.squad_flags import ALL_FLAGS, SquadSettings, parse_squad_flags

TF_FILES = (
    "--bert_config_file={}/uncased/bert_config.json --vocab_file={}/uncased/vocab.txt --train_file={}/train.json "
    "--predict_file={}/dev.json "
)
TF_FINETUNE = TF_FILES + (
    "--init_checkpoint={}/uncased/bert_model.ckpt --output_dir={}/out --do_train=True --do_predict=True "
    "--if_quant=False --train_batch_size=8 --learning_rate=1e-5 --num_train_epochs=2.0 --save_checkpoints_steps 1000 "
    "--horovod"
)
TF_PTQ = TF_FILES + (
    "--init_checkpoint={}/finetuned/model.ckpt-5474 --output_dir={}/out --do_train=False --do_predict=True "
    "--do_calib=True --if_quant=True --train_batch_size=16 --calib_batch=16 --calib_method=percentile "
    "--percentile=99.999 --quant_mode=ft2"
)
TF_QAT = TF_FILES + (
    "--init_checkpoint={}/calibrated/model.ckpt-calibrated --output_dir={}/out --do_train=True --do_predict=True "
    "--if_quant=True --train_batch_size=8 --learning_rate=1e-5 --num_train_epochs=2.0 --save_checkpoints_steps 1000 "
    "--quant_mode=ft2 --horovod"
)
TF_KD = TF_QAT + " --distillation=True --teacher={}/finetuned/model.ckpt-5474"
TWIN_TAIL = (
    "--do_predict --predict_file={}/dev.json --eval_script={}/evaluate.py --do_eval --do_lower_case "
    "--bert_model=bert-base-uncased --max_seq_length=384 --doc_stride=128 --vocab_file={}/uncased/vocab.txt "
    "--config_file={}/uncased/bert_config.json --json-summary={}/summary.json --output_dir={}/out --max_steps=-1 "
    "--fp16 "
)
TWIN_PTQ = (
    "--init_checkpoint={}/twin/pytorch_model.bin --do_calib --train_file={}/train.json --train_batch_size=16 "
    "--num-calib-batch=16 " + TWIN_TAIL + "--calibrator percentile --percentile 99.999 --quant_mode ft2"
)
TWIN_FINETUNE = (
    "--init_checkpoint={}/twin/pytorch_model.bin --do_train --train_file={}/train.json --train_batch_size=4 "
    "--learning_rate=3e-5 --num_train_epochs=2 " + TWIN_TAIL + "--quant-disable"
)
HF_SQUAD = (
    "--model_type bert --model_name_or_path {}/bert-base-cased --do_train --do_eval --train_file {}/train.json "
    "--predict_file {}/dev.json --per_gpu_train_batch_size 12 --per_gpu_eval_batch_size=8 --learning_rate 3e-5 "
    "--num_train_epochs 2.0 --max_seq_length 384 --doc_stride 128 --output_dir {}/out --save_steps 100000 "
    "--logging_steps 10 --warmup_steps 100 --weight_decay 0.0 --adam_epsilon 1e-8 --max_grad_norm 2.0 "
    "--overwrite_output_dir --overwrite_cache --threads 4 --nodo_lower_case"
)


def changed(settings: SquadSettings) -> dict:
    """Fields that differ from the defaults of the flag table, without the files."""
    defaults = {flag.name: flag.default for flag in ALL_FLAGS if flag.kept}
    files = ("bert_config_file", "vocab_file", "train_file", "predict_file", "init_checkpoint", "output_dir", "teacher")
    return {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in files and name in defaults and value != defaults[name]
    }


@pytest.mark.parametrize(
    "command, expected",
    [
        (
            TF_FINETUNE,
            {"do_train": True, "do_predict": True, "learning_rate": 1e-5, "num_train_epochs": 2.0, "horovod": True},
        ),
        (
            TF_PTQ,
            {
                "do_predict": True,
                "do_calib": True,
                "if_quant": True,
                "train_batch_size": 16,
                "calib_batch": 16,
                "percentile": 99.999,
            },
        ),
        (
            TF_QAT,
            {
                "do_train": True,
                "do_predict": True,
                "if_quant": True,
                "learning_rate": 1e-5,
                "num_train_epochs": 2.0,
                "horovod": True,
            },
        ),
        (
            TF_KD,
            {
                "do_train": True,
                "do_predict": True,
                "if_quant": True,
                "learning_rate": 1e-5,
                "num_train_epochs": 2.0,
                "horovod": True,
                "distillation": True,
            },
        ),
    ],
    ids=["fine-tune", "PTQ", "QAT", "QAT with distillation"],
)
def test_commands_of_the_tensorflow_guide(squad, command, expected):
    settings = squad.parse_only(*command.split())
    assert changed(settings) == expected
    assert settings.notes == ()
    assert (settings.dialect, settings.backend, settings.scale_learning_rate) == ("tensorflow", None, True)
    assert settings.quant_mode == "ft2" and settings.custom_mode is None
    assert settings.output_dir == f"{squad.folder}/out"
    assert settings.explicit == {token.split("=")[0][2:] for token in command.split() if token.startswith("--")}


def test_ptq_command_of_the_pytorch_script(squad, notes_with):
    settings = squad.parse_only(*TWIN_PTQ.split())
    assert changed(settings) == {
        "do_calib": True,
        "do_predict": True,
        "if_quant": True,
        "train_batch_size": 16,
        "calib_batch": 16,
        "percentile": 99.999,
        "learning_rate": 5e-5,
        "distillation_loss": "pytorch",
        "use_fp16": True,
        "json_summary": f"{squad.folder}/summary.json",
    }
    assert (settings.dialect, settings.scale_learning_rate) == ("pytorch", False)
    assert settings.quant_mode == "ft2" and settings.custom_mode is None
    assert len(notes_with(settings, "its defaults hold where a flag is not given")) == 1
    assert notes_with(settings, "--eval_script is not run")
    assert notes_with(settings, "--bert_model chooses no model")
    assert len(settings.notes) == 3


def test_fine_tune_command_of_the_pytorch_script(squad):
    settings = squad.parse_only(*TWIN_FINETUNE.split())
    assert settings.if_quant is False and settings.do_train is True
    assert settings.train_batch_size == 4 and settings.learning_rate == 3e-5
    assert settings.calib_method == "max"


def test_command_of_the_hugging_face_script(squad, notes_with):
    settings = squad.parse_only(*HF_SQUAD.split())
    assert changed(settings) == {
        "do_train": True,
        "do_predict": True,
        "train_batch_size": 12,
        "learning_rate": 3e-5,
        "num_train_epochs": 2.0,
        "save_checkpoints_steps": 100000,
        "log_freq": 10,
        "warmup_steps": 100,
        "weight_decay": 0.0,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 2.0,
        "overwrite_output_dir": True,
        "overwrite_cache": True,
        "do_lower_case": False,
    }
    assert settings.bert_config_file == f"{squad.folder}/bert-base-cased/config.json"
    assert settings.vocab_file == f"{squad.folder}/bert-base-cased/vocab.txt"
    for text in ("--threads has no effect", "--model_type bert has no effect", "--do_eval evaluates predictions"):
        assert len(notes_with(settings, text)) == 1


def test_defaults_are_the_tensorflow_scripts():
    """Section by section, the defaults of the original's flag block."""
    defaults = {flag.name: flag.default for flag in ALL_FLAGS}
    original = {
        "do_lower_case": True,
        "max_seq_length": 384,
        "doc_stride": 128,
        "max_query_length": 64,
        "do_train": False,
        "do_predict": False,
        "train_batch_size": 8,
        "predict_batch_size": 8,
        "learning_rate": 5e-6,
        "use_trt": False,
        "horovod": False,
        "num_train_epochs": 3.0,
        "warmup_proportion": 0.1,
        "save_checkpoints_steps": 1000,
        "iterations_per_loop": 1000,
        "num_accumulation_steps": 1,
        "n_best_size": 20,
        "max_answer_length": 30,
        "verbose_logging": False,
        "version_2_with_negative": False,
        "null_score_diff_threshold": 0.0,
        "use_fp16": False,
        "use_xla": False,
        "num_eval_iterations": None,
        "export_trtis": False,
        "trtis_model_name": "bert",
        "trtis_model_version": 1,
        "trtis_server_url": "localhost:8001",
        "trtis_model_overwrite": False,
        "trtis_max_batch_size": 8,
        "trtis_dyn_batching_delay": 0,
        "trtis_engine_count": 1,
        "do_calib": False,
        "if_quant": False,
        "calib_batch": 4,
        "calib_method": "percentile",
        "percentile": 99.99,
        "calibrator_file": "calibrators.pkl",
        "quant_mode": "ft2",
        "distillation": False,
        "teacher": None,
        "distillation_loss_scale": 10000.0,
    }
    assert {name: defaults[name] for name in original} == original


def test_settings_have_a_field_for_every_kept_flag_and_no_other():
    fields = {field.name for field in dataclasses.fields(SquadSettings)}
    derived = {
        "scale_learning_rate", "custom_mode", "dialect", "explicit", "given_besides", "notes", "evaluate_steps",
        "evaluate_per_epoch", "export",
    }  # fmt: skip
    assert fields - derived == {flag.name for flag in ALL_FLAGS if flag.kept}


def test_spellings_are_unique_across_the_tables():
    spellings = [name for flag in ALL_FLAGS for name in (flag.name, *flag.aliases)]
    assert len(spellings) == len(set(spellings))


def test_to_dict_is_unchanged_by_json(squad):
    settings = squad.parse("--do_train", "--fuse-qkv", "--quant-disable-keyword", "final_input", "--if_quant")
    as_dict = settings.to_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert as_dict["custom_mode"]["disabled_keywords"] == ["final_input"]
    assert as_dict["explicit"] == sorted(as_dict["explicit"]) and "do_train" in as_dict["explicit"]
    assert set(as_dict) == {field.name for field in dataclasses.fields(settings)}


def test_the_settings_line_has_every_flag_that_was_given(squad):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    line = squad.parse(
        "--do_train",
        "--export_onnx=m",
        "--export_target=openvino",
        "--quant-disable-keyword",
        "a",
        "b",
        "--use_env=false",
    ).describe_given()
    assert line.startswith("settings: bert_config_file=") and " do_train=True " in line
    assert line.endswith(" quant_disable_keyword=a,b export_onnx=m export_target=openvino")


def test_settings_are_frozen(squad):
    with pytest.raises(dataclasses.FrozenInstanceError):
        squad.parse("--do_train").do_train = False


def test_nothing_is_printed(squad, capsys):
    parse_squad_flags([*squad.files, "--do_train", "--do_train=true", "--use_env", "--iterations_per_loop=5"])
    assert capsys.readouterr() == ("", "")
