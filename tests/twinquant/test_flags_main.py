"""Exit codes of the scripts, and `--help` and `--version`."""

import pytest

from twinquant.errors import UserError
from twinquant.main import run_main
from twinquant.squad_flags import ALL_FLAGS, PROGRAM, parse_squad_flags


def raise_(error):
    def function(argv):
        raise error

    return function


def test_success_is_zero_and_other_codes_pass():
    assert run_main(lambda argv: None, "run.py", []) == 0
    assert run_main(lambda argv: len(argv), "run.py", ["a", "b", "c"]) == 3


def test_a_users_mistake_is_one_line_and_two(capsys):
    assert run_main(raise_(UserError("--x takes a number,\n found 'y'.")), "run.py", []) == 2
    assert capsys.readouterr() == ("", "run.py: error: --x takes a number, found 'y'.\n")


def test_an_interruption_is_130(capsys):
    assert run_main(raise_(KeyboardInterrupt()), "run.py", []) == 130
    assert capsys.readouterr().err == "run.py: interrupted\n"


@pytest.mark.parametrize("error", [ValueError("ours"), SystemExit(7)], ids=["a defect", "an exit"])
def test_other_exceptions_pass(error):
    with pytest.raises(type(error)):
        run_main(raise_(error), "run.py", [])


def test_the_command_line_is_the_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py", "--a"])
    assert run_main(lambda argv: {("--a",): 5}[tuple(argv)], "run.py") == 5


@pytest.fixture(params=["--help", "-h", "-help"])
def help_text(request, capsys):
    with pytest.raises(SystemExit) as end:
        parse_squad_flags(["--do_train", request.param])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_flag_and_alias(help_text):
    lines = help_text.splitlines()
    for flag in ALL_FLAGS:
        assert any(line.split()[0] == f"--{flag.name}" for line in lines if line.startswith("  --")), flag.name
        for alias in flag.aliases:
            assert f"--{alias}" in help_text, alias


def test_help_fits_100_columns(help_text):
    assert max(len(line) for line in help_text.splitlines()) <= 100


def test_help_starts_with_the_five_commands_and_groups_by_phase(help_text):
    head, _, flags = help_text.partition("model and checkpoints:")
    for number in range(1, 6):
        assert f"\n{number}. " in head
    groups = [line[:-1] for line in flags.splitlines() if line and not line.startswith(" ")]
    assert groups == [
        "data",
        "calibration",
        "fine-tuning",
        "quantization",
        "distillation",
        "prediction",
        "runtime",
        "multi-process",
        "export",
        "accepted for old command lines",
    ]


def test_every_flag_has_a_full_sentence_and_shows_its_default(help_text):
    for flag in ALL_FLAGS:
        assert flag.help[0].isupper() and flag.help.endswith("."), flag.name
    joined = " ".join(help_text.split())
    assert "--calib_method {max,percentile,mse,entropy}" in joined
    assert "Default: 99.99." in joined and "Default: 5e-06." in joined and "Default: on." in joined


def test_the_commands_of_the_help_parse(help_text, squad, monkeypatch):
    """The manual's own commands, with its $FILES and $BERT, are accepted and give no notes but expected ones."""
    monkeypatch.chdir(squad.folder)
    for name in ("bert/bert_config.json", "bert/vocab.txt", "bert/bert_model.ckpt.index"):
        path = squad.folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (squad.folder / name).touch()
    for name in ("finetuned/model.ckpt-5474.index", "calibrated/model.ckpt-calibrated.index"):
        path = squad.folder / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text = help_text.partition("model and checkpoints:")[0].replace("\\\n", " ")
    files = text.partition('FILES="')[2].partition('"')[0]
    commands = [line.partition(f"{PROGRAM} ")[2] for line in text.splitlines() if f"python {PROGRAM} $FILES" in line]
    assert len(commands) == 5
    for command in commands:
        argv = command.replace("$FILES", files).replace("$BERT", "bert").split()
        settings = parse_squad_flags(argv)
        assert settings.notes == ()


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        parse_squad_flags(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("run_squad.py (twinquant ")
