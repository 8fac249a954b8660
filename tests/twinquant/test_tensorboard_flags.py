"""--tensorboard, --logging_dir and --report_to in both scripts."""

import pytest
from glue_files import GlueFiles, make_glue_files

from twinquant.errors import UserError


@pytest.fixture(params=["squad", "glue"])
def script(request: pytest.FixtureRequest, squad, tmp_path):
    """What reads the flags of one of the scripts, for a training."""
    glue: GlueFiles = make_glue_files(tmp_path)
    return lambda *words: {"squad": squad, "glue": glue}[request.param].parse("--do_train", *words)


@pytest.fixture(params=[True, False], ids=["installed", "not installed"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    import twinquant.tensorboard_flags as flags

    real = flags.find_spec
    monkeypatch.setattr(flags, "find_spec", lambda name: real("json") if request.param else None)
    return request.param


def noted(settings, text: str) -> int:
    return sum(text in note for note in settings.notes)


@pytest.mark.parametrize(
    "words", [["--tensorboard"], ["--report_to", "tensorboard"], ["--report_to=tensorboard,wandb"]], ids=" ".join
)
def test_asked_for_by_name(script, installed: bool, words: list[str]) -> None:
    if installed:
        settings = script(*words)
        assert settings.tensorboard and settings.logging_dir is None
        assert noted(settings, "--report_to wandb has no effect") == ("wandb" in words[-1])
    else:
        with pytest.raises(UserError, match="needs the package tensorboard, not installed; pip install"):
            script(*words)


@pytest.mark.parametrize("words", [["--logging_dir=logs"], ["--report_to=all"]], ids=" ".join)
def test_old_command_lines_that_mean_it_by_the_way(script, installed: bool, words: list[str]) -> None:
    settings = script(*words)
    assert settings.tensorboard is installed
    assert noted(settings, "has no effect: the package tensorboard is not installed") == (not installed)


@pytest.mark.parametrize(
    "words",
    [[], ["--report_to=none"], ["--report_to=wandb"], ["--notensorboard"], ["--report_to=none", "--logging_dir=logs"]],
    ids=" ".join,
)
def test_off(script, installed: bool, words: list[str]) -> None:
    settings = script(*words)
    assert not settings.tensorboard
    assert noted(settings, "--logging_dir has no effect: no event files") == (
        installed and "--logging_dir=logs" in words
    )


def test_contradiction(script) -> None:
    with pytest.raises(UserError, match="--report_to none contradicts --tensorboard"):
        script("--tensorboard", "--report_to=none")


def test_without_training(squad) -> None:
    pytest.importorskip("tensorboard")
    settings = squad.parse("--do_predict", "--tensorboard")
    assert not settings.tensorboard and noted(settings, "--tensorboard has no effect without --do_train or --do_calib")
    assert squad.parse("--do_calib", "--tensorboard").tensorboard
