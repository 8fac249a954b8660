"""README.md beside a model, in the layout of Hugging Face's model cards: a YAML header, then what a reader asks first.

Nothing in a card tells the time, so that the same run writes the same bytes. The license is left out: it follows from
the model and the data that were trained on, which this project does not know.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twinquant import __version__
from twinquant.files import write_bytes_atomically
from twinquant.git_revision import git_revision
from twinquant.machine import installed_versions

logger = logging.getLogger("twinquant")

FILE = "README.md"
PIPELINES = {"question_answering": "question-answering", "classification": "text-classification"}
# The names under which the Hugging Face hub knows these scores.
_METRICS = {
    "acc": "accuracy",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearmanr": "spearmanr",
    "exact": "exact_match",
}
_MARK = "<!-- Written by twinquant for {name}; it is written anew with the model as long as this line stays. -->"
_MARK_START = "<!-- Written by twinquant for "


@dataclass(frozen=True)
class Card:
    """What a card says.

    name: the model's, without folder. head: "question_answering" or "classification". library: the one that loads the
    files ("transformers", "onnx"), None where that is this project alone. facts: rows of a table. scores: as the run
    names them, on `data`; empty where they are not known. part: of the data that was scored, "" for all: scores of a
    part are not put into the header, where the hub would take them for the data set's. command: the line that made the
    model. use: how to run it, lines of Markdown. packages: those whose versions shaped it.
    """

    name: str
    head: str
    summary: str
    facts: Mapping[str, str]
    library: str | None = None
    tags: Sequence[str] = ()
    data: str | None = None
    part: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    score_note: str = ""
    command: str | None = None
    use: Sequence[str] = ()
    packages: Sequence[str] = ()


def make_card(card: Card) -> str:
    """The text of README.md."""
    lines = ["---", *_header(card), "---", "", _MARK.format(name=card.name), "", f"# {card.name}", "", card.summary, ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in card.facts.items()), ""]
    lines += ["## Scores", ""]
    if card.scores:
        place = card.data or "the data that was predicted"
        lines += [f"On {card.part} of {place}:" if card.part else f"On {place}:", "", "| score | value |"]
        lines += ["|---|---:|", *(f"| {name} | {value:.4f} |" for name, value in card.scores.items())]
    else:
        lines.append("None were known when this card was written.")
    lines += ["", card.score_note] if card.score_note else []
    if card.use:
        lines += ["", "## Use", "", *card.use]
    lines += ["", "## How it was made", ""]
    lines += ["```", card.command, "```", ""] if card.command else []
    lines += [f"{describe_versions(card.packages)}.", ""]
    lines += ["## License", "", "Not stated: it depends on the model and the data that this one was trained on.", ""]
    return "\n".join(lines)


def write_card(folder: Path, text: str) -> bool:
    """Writes README.md unless one is there that somebody else wrote, or has made their own; returns whether it did."""
    path = folder / FILE
    if path.exists() and not is_ours(path):
        logger.info("%s is not this program's and stays; no model card is written", path)
        return False
    write_bytes_atomically(path, text.encode("utf-8"))
    return True


def is_ours(path: Path, name: str | None = None) -> bool:
    """Whether a file is a card of this project, and of the model of that name where one is given."""
    mark = _MARK_START if name is None else _MARK.format(name=name)
    try:
        return mark in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def describe_versions(packages: Sequence[str] = ()) -> str:
    """ "twinquant 0.1.0 (commit 0123456789ab), torch 2.13.0, numpy 2.4.6"."""
    revision = git_revision()
    commit = ""
    if revision is not None:
        changed = ", with changes" if revision["changed"] else ""
        commit = f" (commit {revision['commit'][:12]}{changed})"
    installed = installed_versions()
    others = {name: installed[name] for name in packages if name in installed}
    return ", ".join([f"twinquant {__version__}{commit}", *(f"{name} {found}" for name, found in others.items())])


def _header(card: Card) -> list[str]:
    # JSON's strings and lists are YAML's too, so what is quoted by json is safe in YAML.
    pipeline = PIPELINES[card.head]
    lines = [f"library_name: {card.library}"] if card.library else []
    lines += [f"pipeline_tag: {pipeline}", f"tags: {json.dumps(['bert', *card.tags], ensure_ascii=False)}"]
    if card.scores and card.data and not card.part:
        metrics = [
            {"type": _METRICS.get(name, name), "name": name, "value": round(value, 4)}
            for name, value in card.scores.items()
        ]
        result = {
            "task": {"type": pipeline},
            "dataset": {"name": card.data, "type": card.data},
            "metrics": metrics,
        }
        lines += ["model-index:", f"- name: {json.dumps(card.name, ensure_ascii=False)}", "  results:"]
        lines.append(f"  - {json.dumps(result, ensure_ascii=False)}")
    return lines


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())
