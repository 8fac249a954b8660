"""A folder of the files that a command line of run_squad.py names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from twinquant.squad_flags import SquadSettings, parse_squad_flags


@dataclass(frozen=True)
class SquadFiles:
    """`files` are flags that name existing files; `parse` reads them with more flags behind them."""

    folder: Path

    @property
    def files(self) -> list[str]:
        return [
            f"--bert_config_file={self.folder}/uncased/bert_config.json",
            f"--vocab_file={self.folder}/uncased/vocab.txt",
            f"--train_file={self.folder}/train.json",
            f"--predict_file={self.folder}/dev.json",
            f"--init_checkpoint={self.folder}/uncased/bert_model.ckpt",
            f"--output_dir={self.folder}/out",
        ]

    def without(self, name: str) -> list[str]:
        """`files` but for one flag."""
        return [argument for argument in self.files if not argument.startswith(f"--{name}=")]

    def parse(self, *more: str) -> SquadSettings:
        return parse_squad_flags([*self.files, *more])

    def parse_only(self, *argv: str) -> SquadSettings:
        return parse_squad_flags([argument.replace("{}", str(self.folder)) for argument in argv])


@pytest.fixture
def squad(tmp_path: Path) -> SquadFiles:
    files = [
        "uncased/bert_config.json",
        "uncased/vocab.txt",
        "uncased/bert_model.ckpt.index",
        "finetuned/model.ckpt-5474.index",
        "calibrated/model.ckpt-calibrated.index",
        "twin/pytorch_model.bin",
        "train.json",
        "dev.json",
        "evaluate.py",
        "bert-base-cased/config.json",
        "bert-base-cased/vocab.txt",
        "squad/train-v1.1.json",
        "squad/dev-v1.1.json",
        "squad/dev-v2.0.json",
    ]
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    return SquadFiles(tmp_path)


@pytest.fixture
def notes_with() -> Callable[[SquadSettings, str], list[str]]:
    """The notes that hold a text."""
    return lambda settings, text: [note for note in settings.notes if text in note]
