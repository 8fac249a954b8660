"""What a run begins with: the vocabulary beside the checkpoint against the one that was named."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from checkpoints.checkpoint import Checkpoint
from training.start import lower_case_of, vocab_file_of


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
