"""The blocks of the pages that are marked to run, for real, one after the other, on a tiny model and a little data."""

import contextlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, ROOT, Block, blocks, commands, python_words
from small_runs import (
    SPECIAL_TOKENS,
    random_tensors,
    tiny_config,
    vocabulary,
    write_google_folder,
    write_squad_folder,
)
from tiny_bert import FRAMEWORKS, require

import run_glue
import run_squad
from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.hugging_face import write_hugging_face
from checkpoints.names import QUESTION_ANSWERING
from checkpoints.value import Checkpoint
from export.__main__ import main as export_main
from twinquant.main import run_main
from twinquant.nlp_architect import main_inference, main_train

RUN_PAGES = [page for page in PAGES if any(block.run is not None for block in blocks(page.read_text(encoding="utf-8")))]
CHARACTERS = "教育财经股票房产科学社会政治体育游戏娱乐新闻"
HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "run_squad.py": lambda words: run_main(run_squad.main, "run_squad.py", words),
    "run_glue.py": lambda words: run_main(run_glue.main, "run_glue.py", words),
    "nlp-train": main_train,
    "nlp-inference": main_inference,
}


def write_hugging_face_folder(folder: Path, tokens: Sequence[str], head: str | None = None) -> None:
    """A model of that vocabulary as the hub has it; a pre-trained one has no head."""
    config = tiny_config(len(tokens))
    write_hugging_face(folder, Checkpoint(random_tensors(config, head), config=config))
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def write_mrpc(folder: Path) -> None:
    """Pairs of the sample sentences; equal ones are paraphrases."""
    folder.mkdir(parents=True)
    lines = (ROOT / "samples" / "classification_dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    sentences = [line.split("\t")[0] for line in lines]
    for name, count in (("train", 24), ("dev", 10)):
        pairs = [(sentences[row], sentences[row + row % 2]) for row in range(count)]
        rows = [f"{1 - row % 2}\t{row}\t{row}\t{one}\t{two}" for row, (one, two) in enumerate(pairs)]
        (folder / f"{name}.tsv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")


def write_news(folder: Path) -> None:
    """Titles of random characters in two classes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 90), ("dev", 12), ("test", 12)):
        titles = ["".join(rng.choice(list(CHARACTERS), 9)) for _ in range(count)]
        text = "".join(f"{title}\t{row % 2}\n" for row, title in enumerate(titles))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "class.txt").write_text("finance\neducation\n", encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages' commands name: models, SQuAD, MRPC and news titles under the guides' names."""
    folder = tmp_path_factory.mktemp("pages")
    write_google_folder(folder / "squad_model", positions=384)
    write_squad_folder(folder / "squad_data")
    write_hugging_face_folder(folder / "bert-base-uncased", vocabulary())
    write_hugging_face_folder(folder / "bert-base-chinese", [*SPECIAL_TOKENS, *sorted(set(CHARACTERS))])
    write_hugging_face_folder(folder / "minilm-squad", vocabulary(), QUESTION_ANSWERING)
    shutil.copy(folder / "squad_data" / "dev-v1.1.json", folder / "xquad.en.json")
    write_mrpc(folder / "glue_data" / "MRPC")
    write_news(folder / "THUCNews" / "data")
    (folder / "squad_model" / "finetuned").mkdir()
    config = tiny_config(len(vocabulary()), positions=384)
    finetuned = Checkpoint(random_tensors(config), config=config)
    write_fastertransformer(folder / "squad_model" / "finetuned" / "pytorch_model.bin", finetuned)
    return folder


def run_block(block: Block, variables: dict[str, str]) -> None:
    """Runs what the block shows, in the current folder."""
    text = block.text
    for old, new in (block.run or {}).items():
        assert old in text, f"{old} is replaced, but not in the block"
        text = text.replace(old, new)
    if block.language == "python":
        exec(compile(text, "block", "exec"), {})
        return
    for words in commands(text, variables):
        program, *rest = [*(python_words(words) or words), *block.more]
        if program == "-m" and rest[0] == "export":
            code = run_main(export_main, "python -m export", rest[1:])
        else:
            code = PROGRAMS[program](rest)
        assert code == 0, f"{' '.join(words)} ended with exit code {code}"


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_marked_blocks_run(page: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FRAMEWORKS:
        require(name)
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    variables: dict[str, str] = {}
    output = io.StringIO()
    with contextlib.redirect_stderr(output):
        try:
            for block in blocks(page.read_text(encoding="utf-8")):
                if block.run is not None:
                    run_block(block, variables)
        except BaseException:
            print(output.getvalue()[-4000:])
            raise
