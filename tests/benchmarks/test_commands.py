"""Commands run one after the other: what they leave, and what is said where one fails."""

from pathlib import Path

import pytest

from benchmarks.commands import LOG, Command, CommandFailed, same_answers

SAYS_AND_WORKS = "import sys; print('loss 0.5', file=sys.stderr); print('nothing new'); sum(range(10**6))"
FAILS = "print('the last words'); raise SystemExit(3)"


def python(code: str, folder: Path) -> Command:
    """A command that runs Python code; its further words are the code's arguments."""
    return Command("a step", "pytorch", "--flag='two words'", folder, f'-c "{code}"')


def test_words_are_those_a_shell_would_make(tmp_path: Path) -> None:
    command = Command("calibrate", "tensorflow", "--quant_mode=ft2 --train_file='a b.json'", tmp_path)
    assert command.words == [
        *("run_squad.py", "--backend=tensorflow", "--quant_mode=ft2", "--train_file=a b.json"),
        f"--output_dir={tmp_path}",
    ]


def test_the_log_has_every_line_and_the_terminal_those_that_matter(tmp_path: Path, capfd) -> None:
    command = python(SAYS_AND_WORKS, tmp_path / "new folder")
    assert not (tmp_path / "new folder").exists()
    command.run()
    assert sorted((command.folder / LOG).read_text().splitlines()) == ["loss 0.5", "nothing new"]
    shown = capfd.readouterr().out.splitlines()
    assert shown[0].startswith("$ python -c ") and shown[1:] == ["  loss 0.5"]
    assert command.done
    assert 0.0 < command.processor_seconds and 0.0 < command.seconds < 60.0


def test_a_failing_command_names_its_log(tmp_path: Path, capfd) -> None:
    command = python(FAILS, tmp_path)
    with pytest.raises(CommandFailed, match=rf"'a step' with pytorch failed with exit code 3; .*{tmp_path / LOG}"):
        command.run()
    assert "the last words" in capfd.readouterr().out
    assert "the last words" in (tmp_path / LOG).read_text()
    assert not command.done


@pytest.mark.parametrize(
    ("other", "percent"),
    [
        pytest.param({"a": "x", "b": "y", "c": "z", "d": ""}, 100.0, id="all"),
        pytest.param({"a": "x", "b": "Y", "c": "z", "d": ""}, 75.0, id="one-of-four-differs"),
        pytest.param({"a": "", "b": "", "c": "", "d": "x"}, 0.0, id="none"),
    ],
)
def test_same_answers(other: dict, percent: float) -> None:
    assert same_answers({"a": "x", "b": "y", "c": "z", "d": ""}, other) == percent
