"""Flags of old command lines: each refusal and each note says what to do; no flag is taken silently."""

import pytest

from twinquant.errors import UserError
from twinquant.flags import Flag
from twinquant.squad_flags import ALL_FLAGS, parse_squad_flags


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--use_trt=True"], "--use_trt is refused: prediction through TensorFlow's TensorRT is not supported"),
        (["--sparse"], "--sparse is refused: 2:4 sparsity is not supported; leave the flag out"),
        (["--recompute_sparse_masks"], "--recompute_sparse_masks is refused: 2:4 sparsity is not supported"),
        (["--evaluate_during_training"], "--evaluate_during_training is refused: evaluation happens once"),
        (["--eval_all_checkpoints"], "--eval_all_checkpoints is refused: one run evaluates one checkpoint"),
        (["--lang_id=3"], "--lang_id is refused: a language id belongs to XLM models"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(squad, argv, sentence):
    with pytest.raises(UserError) as error:
        squad.parse("--do_train", *argv)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("flag", ["export_trtis", "use_trt", "sparse", "skip_checkpoint", "use_env"])
def test_switched_off_they_are_no_news(squad, flag):
    assert squad.parse("--do_train", f"--{flag}=False", f"--no{flag}").notes == ()


@pytest.mark.parametrize(
    "argument, sentence",
    [
        ("--iterations_per_loop=500", "--iterations_per_loop has no effect, nor had it in the original."),
        ("--calibrator_file=mine.pkl", "are written to the calibrated checkpoint and to calibration.json"),
        ("--trtis_model_name=squad", "--trtis_model_name has no effect without --export_trtis."),
        ("--trtis_model_version=2", "--trtis_model_version has no effect without --export_trtis."),
        ("--trtis_server_url=host:1", "no server is called."),
        ("--trtis_model_overwrite", "--trtis_model_overwrite has no effect without --export_trtis."),
        ("--trtis_max_batch_size=4", "--trtis_max_batch_size has no effect without --export_trtis."),
        ("--trtis_dyn_batching_delay=-1", "--trtis_dyn_batching_delay has no effect without --export_trtis."),
        ("--trtis_engine_count=2", "--trtis_engine_count has no effect without --export_trtis."),
        ("--use_env", "one process trains here."),
        ("--skip_checkpoint", "a trained model is always saved"),
        ("--eval_script=evaluate.py", "EM and F1 are computed here, by the official definitions."),
        ("--threads=4", "features are made by one process."),
        ("--fp16_opt_level=O2", "mixed precision has one level here"),
        ("--server_ip=1.2.3.4", "no remote debugger is attached."),
        ("--server_port=1234", "no remote debugger is attached."),
        ("--local_rank=0", "mpirun and horovodrun tell each process its rank."),
        ("--model_type=bert", "the model is always BERT."),
    ],
)
def test_accepted_with_a_sentence(squad, argument, sentence):
    settings = squad.parse("--do_train", argument)
    assert len(settings.notes) == 1
    assert sentence in settings.notes[0] and argument.split("=")[0] in settings.notes[0]


SAMPLES = {
    "device": "cpu",
    "local_rank": "0",
    "warmup_steps": "4",
    "quant_disable_keyword": "final_input",
    "bert_config_file": "{}/bert-base-cased/config.json",
    "vocab_file": "{}/bert-base-cased/vocab.txt",
    "init_checkpoint": "{}/finetuned/model.ckpt-5474",
    "train_file": "{}/dev.json",
    "predict_file": "{}/train.json",
    "teacher": "{}/finetuned/model.ckpt-5474",
    "config_name": "{}/bert-base-cased",
    "tokenizer_name": "{}/bert-base-cased",
    "data_dir": "{}/squad",
}
NEEDS = {"data_dir": "train_file", "config_name": "bert_config_file", "tokenizer_name": "vocab_file"}


def other_value(flag: Flag) -> str:
    """A value that is not the default."""
    if flag.name in SAMPLES:
        return SAMPLES[flag.name]
    if flag.choices:
        return next(choice for choice in flag.choices if choice != flag.default)
    if flag.type is bool:
        return str(not flag.default)
    if flag.type is int:
        return str((flag.default or 1) + 3)
    if flag.type is float:
        return str(flag.default / 2 or 0.25)
    return "something"


def outcome(settings) -> dict:
    return {
        name: value for name, value in settings.to_dict().items() if name not in ("explicit", "given_besides", "notes")
    }


@pytest.mark.parametrize("flag", ALL_FLAGS, ids=lambda flag: flag.name)
def test_no_flag_is_silent(squad, flag):
    """Given another value than its default, every flag changes the settings, is noted, or is refused by name."""
    argument = f"--{flag.name}={other_value(flag).replace('{}', str(squad.folder))}"
    files = squad.without(NEEDS.get(flag.name, flag.name))
    work = [token for token in ("--do_calib", "--do_train") if token != f"--{flag.name}"]
    if flag.name == "quant_disable":
        work.append("--bert_model=x")  # quantization is on by default only with the PyTorch script's flags
    try:
        settings = parse_squad_flags([*files, *work, argument])
    except UserError as error:
        assert f"--{flag.name}" in str(error)
        return
    if flag.kept:
        value = getattr(settings, flag.name)
        assert value != flag.default and flag.name in settings.explicit
    else:
        noted = any(f"--{flag.name}" in note for note in settings.notes)
        assert noted or outcome(settings) != outcome(squad.parse(*work))
