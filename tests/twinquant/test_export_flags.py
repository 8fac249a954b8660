"""What run_squad.py's and run_glue.py's flags say of an export."""

import sys

import pytest
from glue_files import GlueFiles, make_glue_files

from twinquant.errors import UserError


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


PRECISIONS = {
    "--do_train": "fp32",
    "--do_train --if_quant": "int8",
    "--do_calib": "int8",
    "--do_calib --do_predict": "fp32",
    "--do_calib --do_predict --if_quant": "int8",
    "--do_predict": "fp32",
    "": "fp32",
    "--if_quant": "int8",
    "--do_train --if_quant --export_precision=int8-dynamic": "int8-dynamic",
}


@pytest.mark.parametrize(("words", "precision"), PRECISIONS.items(), ids=PRECISIONS)
def test_precision_follows_the_run(squad, words, precision):
    assert squad.parse("--export_onnx=o", *words.split()).export["precision"] == precision


def test_precision_of_dynamic_quantization(glue):
    settings = glue.parse("--do_eval", "--quant_scheme=dynamic", "--export_onnx=o")
    assert settings.export["precision"] == "int8-dynamic"


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ("--do_calib", "ft2"),
        ("--do_predict --if_quant --quant_mode=ft1", "ft1"),
        ("--if_quant --quant_mode=ft1", "ft1"),
        ("--if_quant", None),
        ("--do_train", None),
    ],
)
def test_mode_is_the_run_s_or_what_calibration_json_tells(squad, words, mode):
    assert squad.parse("--export_onnx=o", *words.split()).export["quant_mode"] == mode


def test_all_that_is_chosen(squad):
    words = "--export_onnx=o --if_quant --do_train --portable --int8_embeddings --noreduce_range --cpu=vnni"
    triton = "--export_trtis --trtis_model_name=qa --trtis_dyn_batching_delay=-1 --trtis_model_overwrite"
    assert squad.parse(*words.split(), "--export_check_examples=5", *triton.split()).export == {
        "onnx": "o",
        "precision": "int8",
        "target": "onnxruntime",
        "portable": True,
        "int8_embeddings": True,
        "reduce_range": False,
        "cpu": "vnni",
        "check_examples": 5,
        "quant_mode": "ft2",
        "triton": {
            "model_name": "qa",
            "model_version": 1,
            "model_overwrite": True,
            "max_batch_size": 8,
            "dyn_batching_delay": -1.0,
            "engine_count": 1,
        },
    }


def test_nothing_is_exported_without_being_asked_for(squad, glue):
    assert squad.parse("--do_train").export is None and glue.parse("--do_train").export is None


REFUSED = {
    "--export_trtis --trtis_model_name=a/b": "--trtis_model_name takes letters, digits",
    "--export_trtis --trtis_max_batch_size=0": "--trtis_max_batch_size takes",
    "--export_trtis --trtis_model_version=0": "--trtis_model_version takes",
    "--export_onnx=o --export_target=nvidia": "--export_target takes one of onnxruntime, openvino, tensorrt",
    "--export_onnx=o --reduce_range": "--export_reduce_range is for int8 models of --export_target=onnxruntime",
    "--export_onnx=o --export_precision=int8-dynamic --export_target=openvino": "--export_precision=int8-dynamic is",
    "--export_onnx=o --if_quant --quant_mode=ort --export_target=tensorrt": "--quant_mode=ort rounds probabilities to",
    "--export_trtis --do_calib --do_train --export_precision=int8": "--export_trtis writes no int8 model of a training",
    "--export_onnx=o --if_quant --fuse_qkv --do_train": "--export_onnx writes int8 models of the modes of --quant_mode",
    "--export_trtis --if_quant --wprec=4 --do_train": "--export_trtis writes int8 models of the modes of --quant_mode",
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.items(), ids=REFUSED)
def test_refused(squad, words, sentence):
    with pytest.raises(UserError) as error:
        squad.parse(*words.split())
    assert str(error.value).startswith(sentence)


GLUE_REFUSED = {
    "--quant_scheme=q8bert --do_train": "--export_onnx has no int8 form of --quant_scheme=q8bert, which",
    "--quant_scheme=q8bert --load_quantized_model --do_eval": "--export_onnx contradicts --load_quantized_model",
    "--num_runs=3 --do_train": "--export_onnx exports one model, but --num_runs=3 trains as many; choose one",
}


@pytest.mark.parametrize(("words", "sentence"), GLUE_REFUSED.items(), ids=GLUE_REFUSED)
def test_refused_by_run_glue(glue, words, sentence):
    with pytest.raises(UserError) as error:
        glue.parse("--export_onnx=o", *words.split())
    assert str(error.value).startswith(sentence)


def test_q8bert_s_float_weights(glue):
    words = ["--export_onnx=o", "--quant_scheme=q8bert", "--do_train", "--export_precision=fp32"]
    assert glue.parse(*words).export["precision"] == "fp32"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
@pytest.mark.parametrize("flag", ["--export_onnx=o", "--export_trtis"])
def test_a_missing_package_is_told_at_once(squad, monkeypatch, package, flag):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as error:
        squad.parse("--do_train", flag)
    name = flag.partition("=")[0]
    assert str(error.value).startswith(f"{name} needs the package {package}, not installed; pip install '.[export]'")
    assert squad.parse("--do_train").export is None


IDLE = {
    "--do_train --export_target=openvino": "--export_target has no effect without --export_onnx.",
    "--do_train --portable --noreduce_range": "--portable, --noreduce_range have no effect without --export_onnx.",
    "--do_train --trtis_engine_count=2": "--trtis_engine_count has no effect without --export_trtis.",
    "--export_onnx=o --trtis_engine_count=2": "--trtis_engine_count has no effect without --export_trtis.",
    "--export_onnx=o --quant_mode=ft1": "--quant_mode has no effect: the model is exported in fp32 (--if_quant or",
    "--export_onnx=o --portable --export_target=openvino": "--export_portable has no effect: --export_target=openvino",
}


@pytest.mark.parametrize(("words", "note"), IDLE.items(), ids=IDLE)
def test_what_has_no_effect_is_told(squad, notes_with, words, note):
    assert len(notes_with(squad.parse(*words.split()), note)) == 1


@pytest.mark.parametrize("words", ["--export_onnx=o", "--export_trtis --if_quant"])
def test_an_export_alone_needs_no_other_phase_and_no_data(squad, words):
    files = [word for word in squad.files if not word.startswith(("--train_file", "--predict_file"))]
    assert squad.parse_only(*files, *words.split()).notes == ()


def test_a_file_for_the_check_must_be_there(squad):
    with pytest.raises(UserError, match="--predict_file names none.json, which does not exist"):
        squad.parse("--export_onnx=o", "--predict_file=none.json")


def test_an_export_alone_needs_a_checkpoint(squad):
    with pytest.raises(UserError, match="an export needs --init_checkpoint: none is given"):
        squad.parse_only(*squad.without("init_checkpoint"), "--export_onnx=o")
