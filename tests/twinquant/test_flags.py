"""The mechanics: every spelling of a flag, and one sentence for every mistake, on a table made for the test."""

import pytest

from export.flags import ONNX_FLAGS
from twinquant.errors import UserError
from twinquant.flag_help import format_help
from twinquant.flags import Flag, ParsedFlags, parse_flags
from twinquant.glue_flags import ALL_FLAGS as GLUE_FLAGS
from twinquant.squad_flags import ALL_FLAGS as SQUAD_FLAGS

TABLE = (
    Flag("do_train", bool, False, "fine-tuning", "Train."),
    Flag("do_lower_case", bool, True, "data", "Lower-case."),
    Flag("use_fp16", bool, False, "runtime", "Half precision.", aliases=("fp16",)),
    Flag("calib_batch", int, 4, "calibration", "Batches.", aliases=("num_calib_batch",), within="[1, inf)"),
    Flag("max_steps", int, -1, "fine-tuning", "Stop after.", within="[-1, inf)"),
    Flag("percentile", float, 99.99, "calibration", "Percentile.", within="(0, 100]"),
    Flag("warmup", float, 0.1, "fine-tuning", "Warmup.", within="[0, 1)"),
    Flag("threshold", float, 0.0, "prediction", "Threshold."),
    Flag("train_file", str, None, "data", "Data.", metavar="FILE"),
    Flag("quant_mode", str, "ft2", "quantization", "Mode.", choices=("ft1", "ft2")),
    Flag("keywords", list, (), "quantization", "Keywords."),
    Flag("checkpoint", list, ("base", "large"), "data", "Checkpoints.", repeats=True),
    Flag("old", bool, False, "export", "Old.", kept=False, note="has no effect."),
    Flag("gone", bool, False, "export", "Gone.", kept=False, refused="do something else."),
)


def parse(*argv: str) -> ParsedFlags:
    return parse_flags(TABLE, argv, "program.py", "")


def test_defaults_hold_when_nothing_is_given():
    parsed = parse()
    assert parsed.values == {flag.name: flag.default for flag in TABLE}
    assert parsed.spellings == {} and parsed.notes == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--calib_batch=16"],
        ["--calib_batch", "16"],
        ["-calib_batch=16"],
        ["-calib_batch", "16"],
        ["--calib-batch", "16"],
        ["--num-calib-batch=16"],
        ["--num_calib_batch", "16"],
        ["-num-calib_batch", "16"],
        ["--calib_batch=16.0"],
    ],
    ids=" ".join,
)
def test_spellings_of_a_number(argv):
    assert parse(*argv).values["calib_batch"] == 16


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--do_train"], True),
        (["-do_train"], True),
        (["--do-train"], True),
        (["--do_train=True"], True),
        (["--do_train=true"], True),
        (["--do_train=1"], True),
        (["--do_train=yes"], True),
        (["--do_train", "True"], True),
        (["--do_train", "false"], False),
        (["--do_train=False"], False),
        (["--do_train=0"], False),
        (["--do_train=no"], False),
        (["--nodo_train"], False),
        (["-nodo-train"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_spellings_of_a_boolean(argv, expected):
    parsed = parse(*argv, "--train_file=x")
    assert parsed.values["do_train"] is expected
    assert parsed.given("do_train") and parsed.values["train_file"] == "x"


def test_alias_of_a_boolean_and_its_negation():
    assert parse("--fp16").values["use_fp16"] is True
    assert parse("--fp16", "--train_file", "x").values["train_file"] == "x"
    assert parse("--nofp16").values["use_fp16"] is False
    assert parse("--nodo_lower_case").values["do_lower_case"] is False


@pytest.mark.parametrize(
    "argv, name, expected",
    [
        (["--max_steps", "-1"], "max_steps", -1),
        (["--max_steps=-1.0"], "max_steps", -1),
        (["--threshold", "-1.5"], "threshold", -1.5),
        (["--threshold", "-1e-5"], "threshold", -1e-5),
        (["--threshold", "-.5"], "threshold", -0.5),
        (["--percentile=100"], "percentile", 100.0),
        (["--train_file", "a=b c"], "train_file", "a=b c"),
        (["--train_file=a=b"], "train_file", "a=b"),
        (["--keywords", "final_input", "layer.[0-9]"], "keywords", ("final_input", "layer.[0-9]")),
        (["--keywords=final_input"], "keywords", ("final_input",)),
        (["--keywords", "a", "b", "--do_train"], "keywords", ("a", "b")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_values_keep_sign_and_type(argv, name, expected):
    value = parse(*argv).values[name]
    assert value == expected and type(value) is type(expected)


def test_the_users_spelling_is_kept_for_messages():
    parsed = parse("--num-calib-batch", "8")
    assert parsed.spelling("calib_batch") == "--num_calib_batch"
    assert parsed.spelling("percentile") == "--percentile"
    assert parsed.all_spellings == {"--num_calib_batch"}


def test_a_repeated_flag_keeps_the_last_value_with_one_warning():
    parsed = parse("--calib_batch=8", "--num-calib-batch=16", "--calib_batch", "32")
    assert parsed.values["calib_batch"] == 32
    assert len(parsed.notes) == 1
    assert parsed.notes[0].startswith("warning: --calib_batch and --num_calib_batch were given 3 times")
    assert "8, 16, 32" in parsed.notes[0]


def test_a_flag_repeated_with_the_same_value_is_no_news():
    assert parse("--calib_batch=8", "--num-calib-batch=8").notes == []


def test_an_abbreviation_is_not_a_spelling():
    with pytest.raises(UserError, match="unknown flag --calib;"):
        parse("--calib=3")
    with pytest.raises(UserError, match="unknown flag --do_tr;"):
        parse("-do_tr")


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--do_trian"], "unknown flag --do_trian; did you mean --do_train?"),
        (["--num-calib-batches=3"], "unknown flag --num_calib_batches; did you mean --num_calib_batch?"),
        (["--nodo_lowercase"], "unknown flag --nodo_lowercase; did you mean --nodo_lower_case?"),
        (["--xyz", "1"], "unknown flag --xyz; --help lists the flags that are known."),
        (["stray"], "unexpected argument 'stray': every value must follow a flag, as in --train_file FILE."),
        (["--do_train", "True", "stray"], "unexpected argument 'stray': every value must follow a flag"),
        (["--", "--do_train"], "unexpected argument '--do_train'"),
        (["--do_train", "maybe"], "--do_train takes true or false (also 1 or 0, yes or no), found 'maybe'."),
        (["--nodo_train=True"], "--nodo_train takes no value, but 'True' follows it."),
        (["--calib_batch=many"], "--calib_batch takes a whole number of at least 1, found 'many'."),
        (["--calib_batch=2.5"], "--calib_batch takes a whole number of at least 1, found '2.5'."),
        (["--num-calib-batch=0"], "--num_calib_batch takes a whole number of at least 1, found '0'."),
        (["--percentile=0"], "--percentile takes a number above 0 and up to 100, found '0'."),
        (["--percentile=100.1"], "--percentile takes a number above 0 and up to 100, found '100.1'."),
        (["--warmup=1"], "--warmup takes a number from 0 and below 1, found '1'."),
        (["--warmup=nan"], "--warmup takes a number from 0 and below 1, found 'nan'."),
        (["--threshold=inf"], "--threshold takes a number, found 'inf'."),
        (["--quant_mode=ft4"], "--quant_mode takes one of ft1, ft2, found 'ft4'."),
        (["--train_file"], "--train_file was given no value; it takes a file."),
        (["--train_file", "--do_train"], "--train_file was given no value; it takes a file."),
        (["--train_file="], "--train_file was given an empty value; it takes a file."),
        (["--keywords"], "--keywords was given no value; it takes one or more words."),
        (["--gone"], "--gone is refused: do something else."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence(argv, sentence, capsys):
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_a_flag_without_effect_is_noted_and_its_negation_is_not():
    assert parse("--old").notes == ["note: --old has no effect."]
    assert parse("--old=False").notes == []
    assert parse("--gone=False", "--nogone").notes == []


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], ("base", "large")),
        (["--checkpoint=a"], ("a",)),
        (["--checkpoint", "a", "b", "--checkpoint=c"], ("a", "b", "c")),
        (["--checkpoint=a", "--do_train", "--checkpoint=a"], ("a", "a")),
    ],
    ids=str,
)
def test_a_list_that_repeats_keeps_all(argv, expected):
    parsed = parse(*argv)
    assert parsed.values["checkpoint"] == expected and parsed.notes == []


def test_the_help_shows_a_list_as_it_is_typed():
    assert "Checkpoints. Default: base large." in format_help(TABLE, "program.py", "")


def hint(flags: tuple[Flag, ...], word: str) -> str:
    with pytest.raises(UserError) as error:
        parse_flags(flags, [word], "program.py", "")
    return str(error.value).partition("; ")[2]


NO_HINT = "--help lists the flags that are known."


@pytest.mark.parametrize(
    "flags, word, flag",
    [
        (SQUAD_FLAGS, "--do_calibration=True", "do_calib"),
        (SQUAD_FLAGS, "--teacher_checkpoint", "teacher"),
        (SQUAD_FLAGS, "--distill", None),
        (SQUAD_FLAGS, "--distillation_temp", "distillation_temperature"),
        (SQUAD_FLAGS, "--eval_accumulation_steps", None),
        (SQUAD_FLAGS, "--deepspeed", None),
        (SQUAD_FLAGS, "--project", None),
        (SQUAD_FLAGS, "--nocalibrator", "calibrator"),
        (SQUAD_FLAGS, "--nodo_lowercase", "nodo_lower_case"),
        (SQUAD_FLAGS, "--learning_rat", "learning_rate"),
        (ONNX_FLAGS, "--init_checkpoint=x", "checkpoint"),
        (ONNX_FLAGS, "--output_dir=x", "output"),
        (ONNX_FLAGS, "--model_parallel", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hint_is_a_flag_that_may_be_meant(flags, word, flag):
    assert hint(flags, word) == (NO_HINT if flag is None else f"did you mean --{flag}?")


def test_every_hint_is_a_flag():
    """A word taken for a flag, as one in two that are near it would be, gets no further hint of the same name."""
    for flag in GLUE_FLAGS:
        for word in (f"--{flag.name}s", f"--no{flag.name}s"):
            found = hint(GLUE_FLAGS, word).removeprefix("did you mean --").removesuffix("?")
            if found != NO_HINT:
                names = {name: other for other in GLUE_FLAGS for name in (other.name, *other.aliases)}
                assert found in names or names[found.removeprefix("no")].type is bool


def test_the_example_of_a_stray_word_is_the_commands_own_flag():
    with pytest.raises(UserError, match=r"every value must follow a flag, as in --output PATH\.$"):
        parse_flags(ONNX_FLAGS, ["model.ckpt-1", "out"], "python -m export onnx", "")


def test_a_repeated_flag_is_called_as_it_was_typed():
    [note] = parse_flags(GLUE_FLAGS, ["--model_name_or_path=a", "--model_name_or_path", "b"], "program.py", "").notes
    assert note == (
        "warning: --model_name_or_path was given 2 times with different values (a, b); the last, b, is used."
    )


def test_a_repeated_token_is_not_told():
    """Notes go to the log and into settings.json."""
    flags = (Flag("token", str, None, "data", "A secret."), Flag("use_auth_token", bool, False, "data", "Another."))
    parsed = parse_flags(flags, ["--token", "hf_one", "--token=hf_two"], "program", "")
    assert parsed.values["token"] == "hf_two" and len(parsed.notes) == 1
    assert "hf_" not in parsed.notes[0] and "(hidden)" in parsed.notes[0]
    with pytest.raises(UserError, match=r"--use_auth_token takes .*, found \(hidden\)"):
        parse_flags(flags, ["--use_auth_token", "hf_three"], "program", "")
