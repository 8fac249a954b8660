"""What a run begins with: the vocabulary beside the checkpoint against the one that was named."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_bert import tiny_config

from checkpoints.checkpoint import Checkpoint
from training.saves import RunFolder
from training.start import check_start_stays, config_with_labels, lower_case_of, vocab_file_of
from twinquant.errors import UserError


@dataclass
class Settings:
    vocab_file: str | None = None
    do_lower_case: bool = True
    explicit: frozenset[str] = frozenset()
    dialect: str = "tensorflow"


@pytest.mark.parametrize(
    ("named", "beside", "warned"),
    [
        pytest.param("[PAD]\na\nb\n", "[PAD]\na\nb\n", False, id="equal"),
        pytest.param("[PAD]\nb\na\n", "[PAD]\na\nb\n", True, id="another-order"),
        pytest.param("[PAD]\na\nb\n", None, False, id="none-beside"),
        pytest.param(None, "[PAD]\na\nb\n", False, id="none-named"),
    ],
)
def test_another_vocabulary_than_the_checkpoints_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, named: str | None, beside: str | None, warned: bool
) -> None:
    """A vocabulary of the right size in another order fits the embedding, and makes every answer noise."""
    paths: list[Path | None] = []
    for name, content in (("named.txt", named), ("vocab.txt", beside)):
        paths.append(None if content is None else tmp_path / name)
        if content is not None:
            (tmp_path / name).write_text(content)
    settings = Settings(None if paths[0] is None else str(paths[0]))
    with caplog.at_level(logging.WARNING, "twinquant"):
        found = vocab_file_of(settings, Checkpoint(tensors={}, source="model", vocab_file=paths[1]))
    assert found == (paths[0] or paths[1])
    assert bool(caplog.messages) == warned
    assert not warned or f"{paths[0]} is another vocabulary than {paths[1]}" in caplog.text


@pytest.mark.parametrize(
    ("said", "fetched", "given", "lower", "told"),
    [
        pytest.param("false", True, {}, False, "INFO", id="cased-on-the-hub"),
        pytest.param("true", True, {}, True, "", id="uncased-on-the-hub"),
        pytest.param("false", True, {"explicit": frozenset({"do_lower_case"})}, True, "WARNING", id="given"),
        pytest.param("false", True, {"dialect": "pytorch"}, True, "WARNING", id="the-twin"),
        pytest.param("false", False, {}, True, "", id="a-folder"),
        pytest.param(None, True, {}, True, "", id="silent"),
    ],
)
def test_a_model_of_the_hub_says_its_case(
    caplog: pytest.LogCaptureFixture, said: str | None, fetched: bool, given: dict[str, Any], lower: bool, told: str
) -> None:
    """Its tokenizer_config.json is fetched after the flags were settled."""
    metadata = {} if said is None else {"do_lower_case": said}
    checkpoint = Checkpoint(tensors={}, source="org/bert", metadata=metadata, fetched_into="/cache" if fetched else "")
    with caplog.at_level(logging.INFO, "twinquant"):
        found = lower_case_of(Settings(**given), checkpoint)
    assert found.do_lower_case is lower
    assert [record.levelname for record in caplog.records] == ([told] if told else [])


@dataclass
class Training:
    init_checkpoint: str | None = None
    teacher: str | None = None
    evaluate_per_epoch: bool = False
    evaluate_steps: int | None = None


@pytest.mark.parametrize("flag", ["init_checkpoint", "teacher"])
@pytest.mark.parametrize(
    ("name", "more", "lost"),
    [
        pytest.param("out/model.ckpt-3", {}, True, id="a step"),
        pytest.param("out/../out/model.ckpt-3/model.safetensors", {}, True, id="a file of a step"),
        pytest.param("out/model.ckpt-3.index", {}, True, id="the index of a step"),
        pytest.param("out", {}, True, id="the folder of a step"),
        pytest.param("out/model.ckpt-best", {}, False, id="the best"),
        pytest.param("out/model.ckpt-best", {"evaluate_steps": 2}, True, id="the best, evaluating"),
        pytest.param("out/model.ckpt-best", {"evaluate_per_epoch": True}, True, id="the best, every epoch"),
        pytest.param("out/model.ckpt-calibrated", {"evaluate_steps": 2}, False, id="calibrated"),
        pytest.param("elsewhere/model.ckpt-3", {}, False, id="elsewhere"),
    ],
)
def test_a_training_does_not_remove_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, name: str, more: dict[str, Any], lost: bool
) -> None:
    """--overwrite_output_dir removed the checkpoint that the run had begun with, and no save was possible after it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("model.ckpt-3", "model.ckpt-best", "model.ckpt-calibrated"):
        Path("out", folder).mkdir(parents=True)
    Path("out", "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    settings, folder = Training(**{flag: name}, **more), RunFolder(Path("out"), "pytorch", 3)
    if not lost:
        check_start_stays(settings, folder)  # type: ignore[arg-type]
        return
    with pytest.raises(UserError, match=f"--{flag} {name} would be lost: training anew in the same --output_dir"):
        check_start_stays(settings, folder)  # type: ignore[arg-type]


@dataclass
class Labeled:
    label_names: list[str] | None
    head: str = "classification"


@pytest.mark.parametrize(
    ("found", "here", "warned"),
    [
        pytest.param(["good", "bad"], ["x", "y"], True, id="other names"),
        pytest.param(["good", "bad"], ["0", "1"], True, id="numbers for names"),
        pytest.param(["0", "1"], ["bad", "good"], False, id="names for numbers"),
        pytest.param(["LABEL_0", "LABEL_1"], ["bad", "good"], False, id="names for none"),
        pytest.param(["bad", "good"], ["bad", "good"], False, id="equal"),
    ],
)
def test_classes_of_other_names_are_told(
    caplog: pytest.LogCaptureFixture, found: list[str], here: list[str], warned: bool
) -> None:
    config = tiny_config().with_labels(found)
    checkpoint = Checkpoint(tensors={}, config=config, source="model")
    with caplog.at_level(logging.WARNING, "twinquant"):
        config_with_labels(config, Labeled(here), checkpoint)  # type: ignore[arg-type]
    sentence = f"model was trained for the classes {', '.join(found)}; here its outputs stand for {', '.join(here)}"
    assert (sentence in caplog.text) == warned and bool(caplog.messages) == warned


@pytest.mark.parametrize("here", [["a", "b"], None], ids=["classes", "regression"])
def test_what_the_config_says_of_another_task_goes_with_its_head(here: list[str] | None) -> None:
    of_mnli = {"problem_type": "single_label_classification", "num_labels": 3, "finetuning_task": "mnli", "mine": 1}
    config = tiny_config().with_labels(["x", "y", "z"])
    config = dataclasses.replace(config, extra={**config.extra, **of_mnli})
    checkpoint = Checkpoint(tensors={}, config=config, source="model")
    found = config_with_labels(config, Labeled(here), checkpoint)  # type: ignore[arg-type]
    left = {key: found.extra[key] for key in of_mnli if key in found.extra}
    assert left == ({"mine": 1} if here else {"problem_type": "regression", "mine": 1})
    assert found.label_names == (here or ["LABEL_0"])
    # Of the same classes all is kept.
    same = config_with_labels(config, Labeled(["x", "y", "z"]), checkpoint)  # type: ignore[arg-type]
    assert same.extra == config.extra
