"""What run_glue.py reads: a GLUE task in a folder, or files of the user's own, one for each phase."""

import pytest
from glue_files import GlueFiles, make_glue_files, notes_with

from twinquant.errors import UserError
from twinquant.glue_flags import parse_glue_flags


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


@pytest.mark.parametrize(
    "spelled, name",
    [
        ("MRPC", "mrpc"),
        ("sst2", "sst-2"),
        ("SST-2", "sst-2"),
        ("stsb", "sts-b"),
        ("CoLA", "cola"),
        ("MNLI-mm", "mnli-mm"),
    ],
)
def test_names_of_tasks(glue, spelled, name):
    assert glue.parse("--do_train", f"--task_name={spelled}").task_name == name


OWN = ["--train_file={}/train.csv", "--validation_file={}/validation.csv", "--test_file={}/test.csv"]


def test_own_files(glue):
    settings = parse_glue_flags(
        [*glue.model, *glue.words(*OWN, "--do_train", "--do_eval", "--do_predict", "--text_column", "a", "b")]
    )
    assert (settings.task_name, settings.data_dir, settings.text_column) == (None, None, ("a", "b"))
    assert (settings.train_file, settings.validation_file, settings.test_file) == tuple(
        f"{glue.folder}/{name}.csv" for name in ("train", "validation", "test")
    )


def test_own_files_in_a_folder(glue):
    settings = parse_glue_flags(
        [*glue.model, *glue.words(
            "--data_dir={}/news", "--train_file=train.txt", "--validation_file=dev.txt", "--class_file=class.txt",
            "--test_file={}/test.csv", "--do_train", "--do_eval", "--do_predict",
        )]
    )  # fmt: skip
    assert settings.train_file == f"{glue.folder}/news/train.txt"
    assert settings.validation_file == f"{glue.folder}/news/dev.txt"
    assert settings.class_file == f"{glue.folder}/news/class.txt"
    assert settings.test_file == f"{glue.folder}/test.csv"


def test_only_the_files_of_the_phase_must_exist(glue):
    settings = parse_glue_flags([*glue.model, "--train_file=gone.csv", *glue.words(OWN[1]), "--do_eval"])
    assert settings.train_file == "gone.csv" and settings.test_file is None


@pytest.mark.parametrize(
    "argv, columns",
    [
        (["--text_column_names=text"], ("text",)),
        (["--text_column_names=premise,hypothesis"], ("premise", "hypothesis")),
        (["--text_column_names", "premise", "hypothesis"], ("premise", "hypothesis")),
        (["--text_column_names=a, b", "--text_column", "a", "b"], ("a", "b")),
    ],
    ids=" ".join,
)
def test_text_columns_of_hugging_face(glue, argv, columns):
    settings = parse_glue_flags([*glue.model, *glue.words(*OWN), "--do_train", *argv])
    assert settings.text_column == columns
    pair = notes_with(settings, "the two are a pair of texts, where Hugging Face's script joined them into one")
    assert len(pair) == (len(columns) == 2)


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--do_train"], "no data is named: give --task_name and --data_dir for a GLUE task, or --train_file"),
        (["--do_train", "--data_dir={}"], "no data is named: give --task_name and --data_dir"),
        (["--do_train", "--task_name=mrpc"], "--task_name=mrpc needs --data_dir, the folder of its train.tsv, dev.tsv"),
        (
            ["--do_train", "--task_name=squad", "--data_dir={}"],
            "--task_name is 'squad'; expected one of cola, sst-2, mrpc",
        ),
        (
            ["--do_train", "--task_name=mrpc", "--data_dir={}/none"],
            "--data_dir names {}/none, which does not exist; a fol",
        ),
        (
            ["--do_train", "--task_name=mrpc", "--data_dir={}/train.csv"],
            "--data_dir names {}/train.csv, which is a file",
        ),
        (
            ["--do_train", "--task_name=mrpc", "--data_dir={}", "--train_file={}/train.csv", "--label_column_name=x"],
            "--train_file, --label_column_name contradict --task_name=mrpc, whose files are those in --data_dir",
        ),
        (["--do_calib", OWN[1]], "--do_calib needs --train_file, a csv, tsv, txt or json file (or --task_name and"),
        (["--do_eval", OWN[0]], "--do_eval needs --validation_file, a csv, tsv, txt or json file"),
        (
            ["--do_train", "--eval_strategy=epoch", OWN[0]],
            "--eval_strategy needs --validation_file, a csv, tsv, txt or json file",
        ),
        (["--do_predict", OWN[0]], "--do_predict needs --test_file, a csv, tsv, txt or json file"),
        (
            ["--do_train", "--train_file=none.csv"],
            "--train_file names none.csv, which does not exist; a file is expected.",
        ),
        (["--do_train", "--train_file={}/news"], "--train_file names {}/news, which is a folder; a file is expected."),
        (["--do_train", OWN[0], "--class_file=none.txt"], "--class_file names none.txt, which does not exist"),
        (
            ["--do_train", OWN[0], "--text_column", "a", "b", "c"],
            "--text_column takes one or two names of columns, found",
        ),
        (["--do_train", OWN[0], "--text_column_names=a,b,c"], "--text_column_names takes one or two names of columns"),
        (["--do_train", OWN[0], "--text_column", "a", "a"], "--text_column and --label_column name a column twice"),
        (
            ["--do_train", OWN[0], "--text_column=a", "--label_column=a"],
            "--text_column and --label_column name a column",
        ),
        (
            ["--do_train", OWN[0], "--text_column=a", "--text_column_names=b"],
            "--text_column_names contradicts --text_col",
        ),
        (
            ["--do_train", OWN[0], "--do_regression", "--class_file={}/news/class.txt"],
            "--do_regression contradicts --class_file: a regression has no classes.",
        ),
        (
            ["--do_train", OWN[0], "--max_seq_length=2"],
            "--max_seq_length takes a whole number of at least 3, found '2'.",
        ),
        (
            ["--do_train", OWN[0], "--text_column", "a", "b", "--max_seq_length=4"],
            "--max_seq_length=4 leaves no room for two texts: it must be at least 5",
        ),
        (
            ["--do_train", "--task_name=mrpc", "--data_dir={}", "--max_seq_length=4"],
            "--max_seq_length=4 leaves no room for two texts",
        ),
        (
            ["--do_train", OWN[0], "--max_train_samples=0"],
            "--max_train_samples takes a whole number of at least 1, found",
        ),
        (
            [OWN[0]],
            "nothing to do: give at least one of --do_train, --do_calib, --do_eval, --do_predict and --export_onnx",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(glue, argv, sentence):
    with pytest.raises(UserError) as error:
        parse_glue_flags([*glue.model, *glue.words(*argv)])
    assert str(error.value).startswith(glue.words(sentence)[0])
    assert "\n" not in str(error.value)


def test_a_single_text_needs_less_room(glue):
    argv = ["--do_train", "--task_name=cola", "--data_dir={}/glue_data", "--max_seq_length=3"]
    assert parse_glue_flags([*glue.model, *glue.words(*argv)]).max_seq_length == 3


def test_the_output_folder_is_required(glue):
    with pytest.raises(
        UserError, match="^--output_dir is required: the folder for checkpoints, predictions and scores.$"
    ):
        parse_glue_flags([*glue.task, glue.model[0], "--do_train"])
