"""The table of run_glue.py's flags, its --help, and that no flag is taken silently."""

import dataclasses
import json

import pytest
from glue_files import GlueFiles, changed, make_glue_files

from twinquant.errors import UserError
from twinquant.flags import GROUPS, Flag
from twinquant.glue_flags import ALL_FLAGS, CHANGES, PROGRAM, GlueSettings, parse_glue_flags
from twinquant.squad_flags import ALL_FLAGS as SQUAD_FLAGS


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


def test_settings_have_a_field_for_every_kept_flag_and_no_other():
    fields = {field.name for field in dataclasses.fields(GlueSettings)}
    derived = {"scale_learning_rate", "custom_mode", "dialect", "explicit", "given_besides", "notes"}
    derived |= {"evaluate_steps", "evaluate_per_epoch", "predict_file", "export"}
    assert fields - derived == {flag.name for flag in ALL_FLAGS if flag.kept}


def test_spellings_are_unique_across_the_tables():
    spellings = [name for flag in ALL_FLAGS for name in (flag.name, *flag.aliases)]
    assert len(spellings) == len(set(spellings))


def test_changes_are_of_shared_flags():
    shared = {flag.name for flag in ALL_FLAGS} & {flag.name for flag in SQUAD_FLAGS}
    assert set(CHANGES) <= shared


def test_a_flag_of_both_scripts_has_one_meaning():
    """Name, type and whether it is a setting agree; texts, bounds and defaults may differ where CHANGES says so."""
    squad = {flag.name: flag for flag in SQUAD_FLAGS}
    own = {
        "train_file",
        "data_dir",
        "max_seq_length",
        "do_eval",
        "do_predict",
        "predict_file",
    }  # other files, other work
    own |= {"evaluate_during_training", "eval_all_checkpoints"}  # refused there, at work here
    for flag in ALL_FLAGS:
        if flag.name in squad and flag.name not in own | set(CHANGES):
            assert flag == squad[flag.name], flag.name


def test_own_defaults(glue):
    settings = glue.parse("--do_train")
    assert changed(settings, "init_checkpoint", "bert_config_file", "vocab_file", "output_dir", "data_dir") == {
        "task_name": "mrpc",
        "do_train": True,
    }
    assert (settings.learning_rate, settings.train_batch_size, settings.do_lower_case) == (5e-5, 8, True)
    assert (settings.dialect, settings.scale_learning_rate, settings.backend) == ("tensorflow", True, None)
    assert (settings.evaluate_steps, settings.evaluate_per_epoch, settings.predict_file) == (None, False, None)
    assert (settings.quant_scheme, settings.quant_mode, settings.num_runs) == ("static", "ft2", 1)
    assert [note for note in settings.notes if "found beside the checkpoint" not in note] == []


def test_to_dict_is_unchanged_by_json(glue):
    as_dict = glue.parse("--do_train", "--eval_strategy=epoch", "--fuse-qkv", "--if_quant").to_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert as_dict["evaluate_per_epoch"] is True and as_dict["text_column"] == []


def test_the_settings_line_has_flags_of_every_name(glue):
    line = glue.parse(
        "--do_train", "--evaluation_strategy", "epoch", "--hub_token=abc", "--num_train_epochs=2"
    ).describe_given()
    assert " num_train_epochs=2.0 " in line and " eval_strategy=epoch " in line
    assert line.endswith(" hub_token=(hidden)") and "abc" not in line


@pytest.mark.parametrize(
    "argv, predicts",
    [(["--do_train"], False), (["--do_eval"], True), (["--do_predict"], True), (["--do_calib"], False)],
)
def test_predicts(glue, argv, predicts):
    assert glue.parse(*argv).predicts is predicts


def test_nothing_is_printed(glue, capsys):
    glue.parse("--do_train", "--do_train=true", "--use_env", "--report_to=none")
    assert capsys.readouterr() == ("", "")


SAMPLES = {
    "device": "cpu",
    "local_rank": "0",
    "quant_disable_keyword": "final_input",
    "bert_config_file": "{}/plain/config.json",
    "vocab_file": "{}/plain/vocab.txt",
    "init_checkpoint": "{}/finetuned/model.ckpt-343",
    "teacher": "{}/finetuned/model.ckpt-343",
    "config_name": "{}/plain",
    "tokenizer_name": "{}/plain",
    "task_name": "CoLA",
    "data_dir": "{}/glue_data/CoLA",
    "text_column": "text",
    "text_column_names": "a,b",
    "max_seq_length": "64",
    "ema_decay": "0.9",
    "optim": "adamw_8bit",
    "seed": "7",
    "warmup_steps": "4",
    "neftune_noise_alpha": "5",
}
OWN = ("train_file", "validation_file", "test_file", "text_column", "text_column_names", "label_column", "class_file")
OWN += ("do_regression",)
BESIDE = {
    "eval_steps": ["--eval_strategy=steps"],
    "load_best_model_at_end": ["--eval_strategy=epoch"],
    "load_quantized_model": ["--quant_scheme=q8bert", "--do_train=False", "--do_calib=False", "--do_eval"],
    "quant_disable": ["--bert_model=x"],  # quantization is on by default only with the PyTorch script's flags
    "quantized_engine": ["--quant_scheme=dynamic", "--do_calib=False"],
}


def other_value(flag: Flag) -> str:
    """A value that is not the default."""
    if flag.name in SAMPLES:
        return SAMPLES[flag.name]
    if flag.metavar == "FILE":
        return "{}/news/dev.txt"
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
def test_no_flag_is_silent(glue, flag):
    """Given another value than its default, every flag changes the settings, is noted, or is refused by name."""
    own = flag.name in OWN
    task = ["--train_file={}/news/train.txt"] if own else [word for word in glue.task if f"--{flag.name}=" not in word]
    model = [word for word in glue.model if not word.startswith(f"--{flag.name}=")]
    work = [word for word in ("--do_calib", "--do_train") if word != f"--{flag.name}"] + BESIDE.get(flag.name, [])
    base = glue.words(*task, *model, *work)
    try:
        settings = parse_glue_flags([*base, *glue.words(f"--{flag.name}={other_value(flag)}")])
    except UserError as error:
        assert f"--{flag.name}" in str(error)
        return
    if flag.kept:
        value = getattr(settings, flag.name)
        noted = any(f"--{flag.name}" in note for note in settings.notes)
        assert (value != flag.default or noted) and flag.name in settings.explicit
    else:
        noted = any(f"--{flag.name}" in note for note in settings.notes)
        assert noted or outcome(settings) != outcome(parse_glue_flags(base))


@pytest.fixture
def help_text(capsys) -> str:
    with pytest.raises(SystemExit) as end:
        parse_glue_flags(["--do_train", "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_flag_and_alias_within_100_columns(help_text):
    lines = help_text.splitlines()
    assert max(map(len, lines)) <= 100
    for flag in ALL_FLAGS:
        assert any(line.split()[0] == f"--{flag.name}" for line in lines if line.startswith("  --")), flag.name
        assert flag.help[0].isupper() or flag.group == "quantization", flag.name
        assert flag.help.endswith("."), flag.name
        for alias in flag.aliases:
            assert f"--{alias}" in help_text, alias


def test_help_groups_by_phase(help_text):
    flags = help_text.partition("\nmodel and checkpoints:")[2]
    groups = [line[:-1] for line in flags.splitlines() if line and not line.startswith(" ")]
    assert groups == list(GROUPS[1:])


def test_the_commands_of_the_help_parse(help_text, glue, monkeypatch):
    """The manual's own commands are accepted, and give no notes but of what is read from the checkpoint's folder."""
    monkeypatch.chdir(glue.folder)
    for name in (
        "bert/bert_config.json", "bert/vocab.txt", "bert/bert_model.ckpt.index", "thucnews/train.txt",
        "thucnews/dev.txt", "thucnews/test.txt", "thucnews/class.txt",
    ):  # fmt: skip
        path = glue.folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("finetuned/model.ckpt-343", "calibrated/model.ckpt-calibrated", "ptq/model.ckpt-calibrated"):
        path = glue.folder / "out" / f"{name}.index"
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, path.parent / "bert_config.json", path.parent / "vocab.txt"):
            file.touch()
    text = help_text.partition("\nmodel and checkpoints:")[0].replace("\\\n", " ")
    task = text.partition('TASK="')[2].partition('"')[0]
    commands = [line.partition(f"{PROGRAM} ")[2] for line in text.splitlines() if f"python {PROGRAM} " in line]
    assert len(commands) == 9
    for command in commands:
        settings = parse_glue_flags(command.replace("$TASK", task).replace("$BERT", "bert").split())
        assert [note for note in settings.notes if "found beside the checkpoint" not in note] == []


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        parse_glue_flags(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("run_glue.py (twinquant ")
