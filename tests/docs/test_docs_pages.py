"""Pages say nothing that is not there: links, anchors, file names, make targets, modules and flags exist."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pages import ELLIPSIS, PAGES, ROOT, SHELLS, anchors, blocks, commands, links, python_words, spans, top_level_names

from export.compare.flags import COMPARE_FLAGS
from export.flags import CHECK_FLAGS, ONNX_FLAGS, TRITON_COMMAND_FLAGS
from export.sensitivity.flags import FLAGS as SENSITIVITY_FLAGS
from twinquant.flags import Flag, flag_names, parse_flags
from twinquant.glue_flags import ALL_FLAGS as GLUE_FLAGS
from twinquant.nlp_architect import inference_arguments, train_arguments
from twinquant.squad_flags import ALL_FLAGS as SQUAD_FLAGS

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
EXPORTS: dict[str, Sequence[Flag]] = {
    "onnx": ONNX_FLAGS,
    "check": CHECK_FLAGS,
    "compare": COMPARE_FLAGS,
    "sensitivity": SENSITIVITY_FLAGS,
    "triton": TRITON_COMMAND_FLAGS,
}
MADE_BY_COMMANDS = ("build/", "out/", "onnx/")
page_of = pytest.mark.parametrize("page", PAGES, ids=IDS)


def all_commands(page: Path) -> list[list[str]]:
    """What stands after `python` in blocks and code spans, and the words of nlp-train and nlp-inference."""
    text, variables = page.read_text(encoding="utf-8"), {}
    lines = [words for block in blocks(text) if block.language in SHELLS for words in block_commands(block, variables)]
    for span in spans(text):
        if span.startswith(("python ", "mpirun ", "horovodrun ", "nlp-")):
            lines += commands(span, variables)
    found = [words for line in lines if (words := python_words(line)) is not None]
    # Variables that the page explains in words stand for flags, too.
    return [[word for word in words if not word.startswith("$")] for words in found]


def block_commands(block, variables: dict[str, str]) -> list[list[str]]:
    """Commands of a block that begins with one; other blocks (files, tables) hold none."""
    if not re.search(r"^\s*(\$ )?(python|mpirun|horovodrun|nlp-|make|pip|\w+=|export )", block.text, re.MULTILINE):
        return []
    return list(commands(block.text, variables))


@page_of
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{target} has no such heading"


@page_of
def test_files_exist(page: Path) -> None:
    folders = tuple(f"{name}/" for name in top_level_names())
    for span in spans(page.read_text(encoding="utf-8")):
        is_file = re.fullmatch(r"[\w./-]+\.(py|md|json|tsv|c)", span) and span.startswith(folders)
        if is_file and not span.startswith(MADE_BY_COMMANDS):
            assert (ROOT / span).exists(), f"{span} does not exist"


@page_of
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    shell = "\n".join(block.text for block in blocks(text) if block.language in SHELLS)
    found = [span.split()[1] for span in spans(text) if re.match(r"make \w", span)]
    for target in found + re.findall(r"^\s*make ([\w-]+)", shell, re.MULTILINE):
        assert target in targets, f"make {target} does not exist"


def check(flags: Sequence[Flag], words: list[str], program: str) -> None:
    """Reads a command line; of one that is cut short by an ellipsis, the names of the flags."""
    if any(mark in word for word in words for mark in ELLIPSIS):
        known = {name for flag in flags for name in (flag.name, f"no{flag.name}", *flag.aliases)}
        unknown = {name.replace("-", "_") for name in flag_names(words)} - known
        assert not unknown, f"{program} has no {unknown}"
    else:
        parse_flags(flags, words, program, "")


def check_module(name: str, words: list[str]) -> None:
    if name == "export":
        if words and words[0] in EXPORTS and words[1:] != ["--help"]:
            check(EXPORTS[words[0]], words[1:], f"python -m export {words[0]}")
        else:
            assert not words or words[0] in (*EXPORTS, *ELLIPSIS, "COMMAND"), f"python -m export {words[0]}"
        return
    if not (ROOT / name.split(".")[0]).is_dir():
        assert importlib.util.find_spec(name.split(".")[0]) is not None or name.startswith("torch."), name
        return
    source = ROOT / f"{name.replace('.', '/')}.py"
    assert source.is_file(), f"python -m {name}: no {source}"
    text = source.read_text()
    for flag in flag_names(words):
        assert re.search(rf"\b{flag}\b", text), f"python -m {name} has no --{flag}"


@page_of
def test_commands_have_flags_that_exist(page: Path) -> None:
    scripts: dict[str, Callable[[list[str]], None]] = {
        "run_squad.py": lambda words: check(SQUAD_FLAGS, words, "run_squad.py"),
        "run_glue.py": lambda words: check(GLUE_FLAGS, words, "run_glue.py"),
        "nlp-train": lambda words: check(GLUE_FLAGS, train_arguments(words), "nlp-train"),
        "nlp-inference": lambda words: check(GLUE_FLAGS, inference_arguments(words), "nlp-inference"),
    }
    for program, *words in all_commands(page):
        if program == "-m":
            check_module(words[0], words[1:])
        elif program in scripts:
            if "--help" not in words:
                scripts[program](words)
        else:
            # The originals' own programs are named in the tables of old commands.
            assert program in ELLIPSIS or "squad_evaluate" in program, f"python {program}"


def test_commands_are_found_at_all() -> None:
    """The tests above would pass over pages whose commands they do not see."""
    found = {name: len(all_commands(page)) for name, page in zip(IDS, PAGES, strict=True)}
    assert found["README.md"] and found["docs/from_fastertransformer.md"] >= 4 and found["docs/export.md"] >= 5
    assert sum(found.values()) > 60


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("`python run_squad.py --quant_mod=ft2`", "quant_mod", id="unknown-flag"),
        pytest.param("`python run_squad.py … --quant_mod …`", "quant_mod", id="unknown-flag-beside-an-ellipsis"),
        pytest.param("```\nmpirun -np 2 python run_glue.py --seeds=3\n```", "seeds", id="behind-mpirun"),
        pytest.param("`python -m benchmarks.nothing`", "benchmarks.nothing", id="no-such-module"),
        pytest.param("`python -m export onnx --modell x`", "modell", id="export"),
    ],
)
def test_wrong_commands_are_seen(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text + "\n")
    with pytest.raises(Exception, match=sentence):
        test_commands_have_flags_that_exist(tmp_path / "page.md")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_index_names_every_page() -> None:
    named = set(links((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    missing = {page.name for page in (ROOT / "docs").glob("*.md")} - named - {"README.md"}
    assert not missing, f"docs/README.md does not name {missing}"
