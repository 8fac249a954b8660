"""What is refused or noted before a model is loaded."""

import pytest

from twinquant.errors import UserError
from twinquant.squad_flags import parse_squad_flags


@pytest.mark.parametrize(
    "argv, sentence",
    [
        ([], "nothing to do: give at least one of --do_train, --do_calib, --do_predict and --export_onnx."),
        (["--do_train=False"], "nothing to do"),
        (["--do_train", "--max_steps=0"], "--max_steps takes -1 (no limit) or a whole number of at least 1, found 0."),
        (["--do_train", "--learning_rate=0"], "--learning_rate takes a number above 0, found '0'."),
        (["--do_train", "--learning_rate=-1e-5"], "--learning_rate takes a number above 0, found '-1e-5'."),
        (["--do_train", "--warmup_proportion=1.0"], "--warmup_proportion takes a number from 0 and below 1"),
        (["--do_train", "--num_accumulation_steps=0"], "--num_accumulation_steps takes a whole number of at least 1"),
        (["--do_predict", "--doc_stride=0"], "--doc_stride takes a whole number of at least 1, found '0'."),
        (["--do_calib", "--calib_batch=0"], "--calib_batch takes a whole number of at least 1, found '0'."),
        (["--do_calib", "--percentile=100.5"], "--percentile takes a number above 0 and up to 100"),
        (["--do_calib", "--calib_method=minmax"], "--calib_method takes one of max, percentile, mse, entropy, found"),
        (["--do_train", "--quant_mode=int8"], "--quant_mode takes one of ft1, ft2, ft3, trt, ort, found 'int8'."),
        (["--do_predict", "--max_seq_length=67"], "--max_seq_length=67 leaves no room for the context"),
        (["--do_train", "--distillation"], "--distillation needs --teacher"),
        (["--do_predict", "--distillation", "--teacher=x"], "--distillation needs --do_train"),
        (["--do_train", "--distillation", "--teacher=no/such/x.ckpt"], "--teacher names no/such/x.ckpt, but there is"),
        (["--do_train", "--train_file=none.json"], "--train_file names none.json, which does not exist; a file is"),
        (["--do_predict", "--predict_file=none.json"], "--predict_file names none.json, which does not exist"),
        (["--do_train", "--vocab_file=none.txt"], "--vocab_file names none.txt, which does not exist"),
        (["--do_train", "--config_file=none.json"], "--config_file names none.json, which does not exist"),
        (["--do_train", "--init_checkpoint=model.ckpt-12"], "--init_checkpoint names model.ckpt-12, but there is"),
        (["--do_train", "--device=tpu"], "--device takes auto, cpu, cuda or cuda:N, found 'tpu'."),
        (["--do_train", "--device=mps"], "--device=mps is not supported: expected auto, cpu, cuda or cuda:N."),
        (["--do_train", "--device=xpu:1"], "--device=xpu:1 is not supported: expected auto, cpu, cuda or cuda:N."),
        (["--do_train", "--device=cuda:1", "--no_cuda"], "--no_cuda contradicts --device=cuda:1; give one of them."),
        (["--do_train", "--local_rank=1"], "--local_rank=1 means a start by torch.distributed.launch"),
        (["--do_train", "--model_type=xlnet"], "--model_type takes one of bert, found 'xlnet'."),
        (["--do_train", "--if_quant", "--quant-disable"], "--quant_disable contradicts --if_quant=True"),
        (["--do_train", "--quant-disable-keyword", "(x"], "--quant_disable_keyword takes regular expressions, found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(squad, argv, sentence):
    with pytest.raises(UserError) as error:
        squad.parse(*argv)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "missing, work, sentence",
    [
        ("output_dir", "--do_train", "--output_dir is required"),
        ("train_file", "--do_train", "--do_train needs --train_file"),
        ("train_file", "--do_calib", "--do_calib needs --train_file"),
        ("predict_file", "--do_predict", "--do_predict needs --predict_file"),
        ("init_checkpoint", "--do_predict", "--do_predict needs --init_checkpoint: none is given, and"),
        ("init_checkpoint", "--do_calib", "--do_calib needs --init_checkpoint: none is given, and"),
    ],
)
def test_required(squad, missing, work, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_squad_flags([*squad.without(missing), work])


def test_only_the_files_of_the_phase_must_exist(squad):
    assert squad.parse("--do_train", "--predict_file=later.json").predict_file == "later.json"
    assert squad.parse("--do_predict", "--train_file=gone.json").train_file == "gone.json"


def test_training_without_a_checkpoint_is_warned_about(squad, notes_with):
    settings = parse_squad_flags([*squad.without("init_checkpoint"), "--do_train"])
    assert notes_with(settings, "training starts from random weights")


def test_prediction_may_use_the_checkpoint_of_output_dir(squad):
    (squad.folder / "out").mkdir()
    (squad.folder / "out" / "checkpoint").touch()
    argv = [*squad.without("init_checkpoint"), "--do_predict"]
    assert parse_squad_flags(argv).init_checkpoint is None
    with pytest.raises(UserError, match="--do_predict needs --init_checkpoint"):
        parse_squad_flags([*argv, "--overwrite_output_dir"])


def test_output_dir_must_not_be_a_file(squad):
    (squad.folder / "out").touch()
    with pytest.raises(UserError, match=r"--output_dir names .*/out, which is a file; a folder is expected"):
        squad.parse("--do_train")


class TestModelFiles:
    def test_come_from_a_hugging_face_folder(self, squad, notes_with):
        settings = squad.parse_only(
            "--model_name_or_path={}/bert-base-cased", "--predict_file={}/dev.json", "--output_dir={}/out",
            "--do_predict", "--nodo_lower_case",
        )  # fmt: skip
        assert settings.init_checkpoint == f"{squad.folder}/bert-base-cased"
        assert settings.bert_config_file == f"{squad.folder}/bert-base-cased/config.json"
        assert settings.vocab_file == f"{squad.folder}/bert-base-cased/vocab.txt"
        assert len(notes_with(settings, "found beside the checkpoint")) == 2

    def test_come_from_beside_a_tensorflow_prefix(self, squad):
        settings = squad.parse_only(
            "--init_checkpoint={}/uncased/bert_model.ckpt", "--predict_file={}/dev.json", "--output_dir={}/out",
            "--do_predict",
        )  # fmt: skip
        assert settings.bert_config_file == f"{squad.folder}/uncased/bert_config.json"
        assert settings.vocab_file == f"{squad.folder}/uncased/vocab.txt"

    def test_a_stale_state_file_in_output_dir_does_not_matter(self, squad):
        (squad.folder / "out").mkdir()
        (squad.folder / "out" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
        settings = squad.parse_only(
            "--init_checkpoint={}/uncased/bert_model.ckpt", "--predict_file={}/dev.json", "--output_dir={}/out",
            "--do_predict",
        )  # fmt: skip
        assert settings.vocab_file == f"{squad.folder}/uncased/vocab.txt"

    def test_are_required_when_the_folder_has_none(self, squad):
        with pytest.raises(UserError, match=r"--bert_config_file is required, and .*/finetuned holds no bert_config"):
            squad.parse_only(
                "--init_checkpoint={}/finetuned/model.ckpt-5474", "--predict_file={}/dev.json", "--output_dir={}/out",
                "--do_predict",
            )  # fmt: skip

    @pytest.mark.parametrize(("flag", "warned"), [("--nodo_lower_case", True), ("--do_lower_case", False)])
    def test_case_against_the_tokenizers_file(self, squad, flag, warned):
        (squad.folder / "uncased" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
        settings = squad.parse_only(
            "--init_checkpoint={}/finetuned/model.ckpt-5474", "--bert_config_file={}/uncased/bert_config.json",
            "--vocab_file={}/uncased/vocab.txt", "--predict_file={}/dev.json", "--output_dir={}/out", "--do_predict",
            flag,
        )  # fmt: skip
        notes = [note for note in settings.notes if note.startswith("warning: do_lower_case is False, but tokenizer_")]
        assert bool(notes) is warned

    @pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased"])
    def test_are_left_to_the_loader_for_a_hub_name(self, squad, name):
        settings = squad.parse_only(
            f"--model_name_or_path={name}", "--predict_file={}/dev.json", "--output_dir={}/out", "--do_predict"
        )
        assert settings.init_checkpoint == name
        assert settings.bert_config_file is None and settings.vocab_file is None

    def test_a_mistyped_path_is_no_hub_name(self, squad, monkeypatch):
        monkeypatch.chdir(squad.folder)
        with pytest.raises(UserError, match="--init_checkpoint names finetuned/model, but there is neither"):
            squad.parse("--do_train", "--init_checkpoint=finetuned/model")

    def test_config_name_and_tokenizer_name(self, squad):
        base = ["--init_checkpoint={}/finetuned/model.ckpt-5474", "--predict_file={}/dev.json", "--output_dir={}/out"]
        folder = "{}/bert-base-cased"
        settings = squad.parse_only(*base, "--do_predict", f"--config_name={folder}", f"--tokenizer_name={folder}")
        assert settings.bert_config_file == f"{squad.folder}/bert-base-cased/config.json"
        assert settings.vocab_file == f"{squad.folder}/bert-base-cased/vocab.txt"
        with pytest.raises(UserError, match=r"--tokenizer_name names roberta, where there is no vocab.txt"):
            squad.parse_only(*base, "--do_predict", f"--config_name={folder}", "--tokenizer_name=roberta")


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--data_dir={}/squad"], ("squad/train-v1.1.json", "squad/dev-v1.1.json")),
        (["--data_dir={}/squad", "--train_file=dev-v2.0.json"], ("squad/dev-v2.0.json", "squad/dev-v1.1.json")),
        (["--data_dir={}/squad", "--train_file={}/train.json"], ("train.json", "squad/dev-v1.1.json")),
    ],
    ids=["default names", "joined", "a path of its own"],
)
def test_data_dir(squad, argv, expected):
    base = ["--model_name_or_path={}/uncased/bert_model.ckpt", "--output_dir={}/out", "--do_train", "--do_predict"]
    settings = squad.parse_only(*base, *argv)
    assert (settings.train_file, settings.predict_file) == tuple(f"{squad.folder}/{name}" for name in expected)


def test_data_dir_of_squad_2(squad):
    base = ["--model_name_or_path={}/uncased/bert_model.ckpt", "--output_dir={}/out", "--version_2_with_negative"]
    settings = squad.parse_only(*base, "--data_dir={}/squad", "--do_predict")
    assert settings.predict_file == f"{squad.folder}/squad/dev-v2.0.json"
    with pytest.raises(UserError, match=r"--train_file names .*train-v2.0.json, which does not exist"):
        squad.parse_only(*base, "--data_dir={}/squad", "--do_train")


@pytest.mark.parametrize(
    "argv, text",
    [
        (["--do_train", "--nodo_lower_case"], "do_lower_case is False, but"),
        (["--do_train", "--calib_batch=8"], "--calib_batch has no effect without --do_calib."),
        (
            ["--do_train", "--teacher=x", "--distillation_loss=tf"],
            "warning: --teacher, --distillation_loss have no effect",
        ),
        (["--do_train", "--distillation_loss=tf"], "note: --distillation_loss has no effect without --distillation."),
        (["--do_calib", "--percentile=0.9999"], "warning: --percentile=0.9999 is in percent, like 99.99:"),
        (["--do_calib", "--percentile=0.9999"], "of the values; 99.99 is probably meant."),
        (["--do_calib", "--calib_method=max", "--percentile=99"], "--percentile has no effect with --calib_method=max"),
        (["--do_predict", "--null_score_diff_threshold=-1"], "has no effect without --version_2_with_negative"),
        (["--do_train", "--loss_scale=128"], "--loss_scale has no effect without --use_fp16"),
        (["--do_predict", "--doc_stride=320"], "windows may not overlap"),
        (["--do_calib", "--do_train", "--if_quant"], "the model is calibrated first, then trained"),
        (["--do_train", "--warmup_steps=9", "--warmup_proportion=0.2"], "--warmup_proportion has no effect"),
        (["--do_predict=False", "--do_train", "--do_eval"], "--do_eval has no effect: --do_predict is off"),
        (["--do_train", "--local_rank=0"], "--local_rank=0 has no effect"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_noted(squad, argv, text):
    settings = squad.parse(*argv)
    assert len(settings.notes) == 1 and text in settings.notes[0]


@pytest.mark.parametrize("argv", [["--no_cuda"], ["--use_cpu"], ["--device=cpu"], ["--device=cpu", "--no_cuda"]])
def test_spellings_of_the_cpu(squad, argv):
    assert squad.parse("--do_train", *argv).device == "cpu"


def test_a_cased_checkpoint_is_told_from_an_uncased_one(squad, notes_with):
    settings = squad.parse("--do_train", "--init_checkpoint", str(squad.folder / "bert-base-cased"))
    assert notes_with(settings, "is called cased; --nodo_lower_case is probably meant")


def test_grouped_rows_that_are_all_padded_are_told(squad, notes_with):
    settings = squad.parse("--do_train", "--group_by_length", "--pad_to_max_length")
    assert settings.group_by_length and len(notes_with(settings, "--group_by_length makes no step shorter")) == 1
