"""A folder of the files that a command line of run_glue.py names."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twinquant.glue_flags import ALL_FLAGS, GlueSettings, parse_glue_flags

FILES = {
    "uncased/bert_config.json": "{}",
    "uncased/vocab.txt": "",
    "uncased/bert_model.ckpt.index": "",
    "finetuned/model.ckpt-343.index": "",
    "finetuned/bert_config.json": "{}",
    "finetuned/vocab.txt": "",
    "twin/pytorch_model.bin": "",
    "bert-base-cased/config.json": "{}",
    "bert-base-cased/vocab.txt": "",
    "bert-base-cased/tokenizer_config.json": '{"do_lower_case": false}',
    "plain/config.json": "{}",
    "plain/vocab.txt": "",
    "glue_data/MRPC/train.tsv": "",
    "glue_data/CoLA/train.tsv": "",
    "news/train.txt": "",
    "news/dev.txt": "",
    "news/test.txt": "",
    "news/class.txt": "",
    "train.csv": "",
    "validation.csv": "",
    "test.csv": "",
}


@dataclass(frozen=True)
class GlueFiles:
    """`parse` reads flags behind those that name a task, a model and an output folder."""

    folder: Path

    @property
    def task(self) -> list[str]:
        return ["--task_name=MRPC", f"--data_dir={self.folder}/glue_data/MRPC"]

    @property
    def model(self) -> list[str]:
        return [f"--init_checkpoint={self.folder}/uncased/bert_model.ckpt", f"--output_dir={self.folder}/out"]

    def parse(self, *more: str) -> GlueSettings:
        return parse_glue_flags([*self.task, *self.model, *self.words(*more)])

    def parse_only(self, command: str) -> GlueSettings:
        """A command line as a shell would split it, {} being the folder."""
        return parse_glue_flags(self.words(*shlex.split(command.replace("\\\n", " "))))

    def words(self, *argv: str) -> list[str]:
        return [word.replace("{}", str(self.folder)) for word in argv]


def make_glue_files(folder: Path) -> GlueFiles:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return GlueFiles(folder)


def changed(settings: GlueSettings, *without: str) -> dict[str, Any]:
    """Fields that differ from the defaults of the flag table, but for `without`."""
    defaults = {flag.name: flag.default for flag in ALL_FLAGS if flag.kept}
    values = asdict(settings)
    return {name: values[name] for name, default in defaults.items() if name not in without and values[name] != default}


def notes_with(settings: GlueSettings, text: str) -> list[str]:
    return [note for note in settings.notes if text in note]
