"""NLP Architect's two commands, verbatim but for the paths, as run_glue.py's settings."""

import sys
from types import SimpleNamespace

import pytest
from glue_files import GlueFiles, changed, make_glue_files

from twinquant.errors import UserError
from twinquant.glue_flags import parse_glue_flags
from twinquant.nlp_architect import inference_arguments, main_inference, main_train, train_arguments

TRAIN = r"""
    transformer_glue \
        --task_name mrpc \
        --model_name_or_path bert-base-uncased \
        --model_type quant_bert \
        --learning_rate 2e-5 \
        --output_dir {}/out/mrpc-8bit \
        --evaluate_during_training \
        --data_dir {}/glue_data/MRPC \
        --do_lower_case
"""
INFERENCE = r"""
    transformer_glue \
        --model_path {}/plain \
        --task_name mrpc \
        --model_type quant_bert \
        --output_dir {}/out/mrpc-8bit \
        --data_dir {}/glue_data/MRPC \
        --do_lower_case \
        --overwrite_output_dir
"""
FILES = ("init_checkpoint", "bert_config_file", "vocab_file", "output_dir", "data_dir")
OF_DEFAULTS = {"warmup_steps": 0, "weight_decay": 0.0, "adam_epsilon": 1e-8, "save_checkpoints_steps": 500}
Q8BERT = {"task_name": "mrpc", "quant_scheme": "q8bert", "if_quant": True, "quant_mode": "q8bert"}


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


def words(glue: GlueFiles, command: str) -> list[str]:
    return glue.words(*command.replace("\\\n", " ").split())


def test_train(glue):
    settings = parse_glue_flags(train_arguments(words(glue, TRAIN)))
    assert changed(settings, *FILES) == {
        **OF_DEFAULTS,
        **Q8BERT,
        "do_train": True,
        "do_eval": True,
        "learning_rate": 2e-5,
        "evaluate_during_training": True,
    }
    assert (settings.evaluate_steps, settings.log_freq) == (50, 50)
    assert (settings.max_seq_length, settings.do_lower_case, settings.ema_decay) == (128, True, 0.9999)
    assert (settings.dialect, settings.scale_learning_rate) == ("hugging_face", False)
    assert settings.init_checkpoint == "bert-base-uncased"


@pytest.mark.parametrize(
    "more, work",
    [
        ("", {"do_predict": True}),
        (" --evaluate", {"do_eval": True}),
        (" --load_quantized_model", {"do_predict": True, "load_quantized_model": True}),
        (" --load_quantized_model --evaluate", {"do_eval": True, "load_quantized_model": True}),
    ],
    ids=["test set", "dev set", "test set from int8", "dev set from int8"],
)
def test_inference(glue, more, work):
    settings = parse_glue_flags(inference_arguments(words(glue, INFERENCE + more)))
    # The defaults are those of training, which do not matter here; logging is NLP Architect's, ours too.
    assert changed(settings, *FILES) == {**OF_DEFAULTS, **Q8BERT, **work, "overwrite_output_dir": True}
    assert settings.init_checkpoint == f"{glue.folder}/plain" and settings.dialect == "hugging_face"


def test_a_float_model(glue):
    settings = parse_glue_flags(train_arguments(words(glue, TRAIN.replace("quant_bert", "bert"))))
    assert (settings.quant_scheme, settings.if_quant, settings.log_freq) == ("static", False, 50)


def test_what_the_user_gives_is_kept(glue):
    argv = train_arguments([*words(glue, TRAIN), "--logging-steps", "9", "--nodo_eval", "--do_eval=False"])
    assert not any(word.startswith("--logging_steps=50") or word == "--do_eval" for word in argv)
    assert "--do_train" in argv


@pytest.mark.parametrize(
    "argv, sentence",
    [
        ([], "nlp-train takes transformer_glue and its flags, as in nlp-train transformer_glue --help; found nothing."),
        (["transformer_token_classification"], "nlp-train takes transformer_glue and its flags, as in"),
        (["--task_name", "mrpc"], "nlp-train takes transformer_glue and its flags, as in"),
    ],
    ids=["nothing", "another procedure", "no procedure"],
)
def test_refused(argv, sentence):
    with pytest.raises(UserError) as error:
        train_arguments(argv)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("argv, word", [(["-h"], "-h"), (["-v"], "--version"), (["--version"], "--version")])
def test_help_and_version_need_no_procedure(argv, word):
    assert word in train_arguments(argv) and word in inference_arguments(argv)


@pytest.fixture
def run_glue(monkeypatch) -> list:
    """Stands in for the script; the calls of its main are kept."""
    calls = []
    module = SimpleNamespace(main=lambda argv: calls.append(list(argv)) or 3)
    monkeypatch.setitem(sys.modules, "run_glue", module)
    return calls


def test_the_console_scripts_call_run_glue_and_return_its_code(run_glue, monkeypatch):
    assert main_train(["transformer_glue", "--task_name=mrpc"]) == 3
    monkeypatch.setattr("sys.argv", ["nlp-inference", "transformer_glue", "--evaluate"])
    assert main_inference() == 3
    assert run_glue == [["--do_train", "--do_eval", "--logging_steps=50", "--task_name=mrpc"], ["--evaluate"]]


def test_a_mistake_is_one_line_and_two(run_glue, capsys):
    assert main_inference(["transformer_squad"]) == 2
    assert capsys.readouterr().err == (
        "nlp-inference: error: nlp-inference takes transformer_glue and its flags, as in nlp-inference "
        "transformer_glue --help; found 'transformer_squad'.\n"
    )
    assert run_glue == []
