"""Markdown pages of the repository: their links, their code spans, and the commands in their blocks."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "samples").glob("*.md")])
SHELLS = ("", "sh", "bash", "shell")
ELLIPSIS = ("…", "...")

_FENCE = re.compile(
    r"(?:<!-- run(?P<run>:[^>]*)? -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"^<!-- run\b", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ASSIGNMENT = re.compile(r"(?:export )?(\w+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. `run`: the test runs it, with these replacements in its text; None: it is only read.

    `more`: flags that are added to every command when it is run, to make it short.
    """

    language: str
    text: str
    run: Mapping[str, str] | None
    more: tuple[str, ...] = ()


def blocks(text: str) -> list[Block]:
    """All fenced blocks. A comment `<!-- run -->` before one marks it.

    `<!-- run: old=new +--flag=value -->` also replaces a text in it, and adds a flag to its commands.
    """
    found = []
    for match in _FENCE.finditer(text):
        run, more = None, ()
        if match[0].startswith("<!--"):
            words = (match["run"] or "").lstrip(": ").split()
            run = dict(word.split("=") for word in words if not word.startswith("+"))
            more = tuple(word.removeprefix("+") for word in words if word.startswith("+"))
        found.append(Block(match["language"], match["text"], run, more))
    marks = len(_COMMENT.findall(text))
    assert marks == sum(block.run is not None for block in found), "a <!-- run --> mark stands before no block"
    return found


def commands(text: str, variables: dict[str, str]) -> Iterator[list[str]]:
    """The commands of a shell block as words, $NAMES replaced; assignments are kept in `variables`."""
    for line in _logical_lines(text):
        assigned = _ASSIGNMENT.fullmatch(line)
        if assigned is not None and len(shlex.split(line.removeprefix("export "))) == 1:
            variables[assigned[1]] = " ".join(shlex.split(_expand(assigned[2], variables))[0].split())
        elif words := shlex.split(_expand(line, variables), comments=True):
            yield words[1:] if words[0] == "$" else words


def _logical_lines(text: str) -> Iterator[str]:
    """Lines, joined at a backslash and within quotes."""
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if pending.lstrip().startswith("#"):
            pending = ""
            continue
        if pending.count('"') % 2 == 0:
            yield pending.strip()
            pending = ""
    assert not pending, f"a quotation mark is not closed: {pending}"


def _expand(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), text)


def python_words(words: list[str]) -> list[str] | None:
    """What follows `python` (also behind mpirun and its options), or nlp-train and its words; None: something else."""
    if words[0] in ("nlp-train", "nlp-inference"):
        return words if len(words) > 1 else None
    if words[0] in ("mpirun", "horovodrun") and "python" in words:
        words = words[words.index("python") :]
    return words[1:] if words[0] in ("python", "python3") and len(words) > 1 else None


def spans(text: str) -> list[str]:
    """Code within the text, not within blocks."""
    return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("", text))]


def links(text: str) -> list[str]:
    """Targets of links, outside blocks."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def top_level_names() -> set[str]:
    """Folders at the top of the repository that a file name in a page may begin with."""
    return {entry.name for entry in os.scandir(ROOT) if entry.is_dir() and not entry.name.startswith(".")}
