"""The card and the record beside an exported model."""

import ast
import re
from pathlib import Path

import pytest
from tiny_exports import LABELS, tiny_checkpoint

from checkpoints.hugging_face import write_hugging_face
from export.__main__ import main
from export.card import classifier_code
from export.runtime import OnnxPredictor, read_model
from export.triton import TritonSettings, copy_model
from tasks.classification import ClassificationTask
from tasks.text_classification import OwnDataSource
from twinquant.model_card import is_ours
from twinquant.run_record import read_records


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    write_hugging_face(tmp_path / "model.ckpt-7", tiny_checkpoint("glue", "ft1"))
    return tmp_path / "model.ckpt-7"


def export(checkpoint: Path, output: Path, *words: str) -> None:
    assert main(["onnx", f"--checkpoint={checkpoint}", f"--output={output}", *words]) == 0


def test_a_folder_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    words = ["--precision=int8", "--quant_mode=ft1", "--reduce_range", "--backend=pytorch"]
    export(checkpoint, tmp_path / "out", *words)
    card = hub.ModelCard.load(tmp_path / "out/README.md")
    assert card.data.library_name == "onnx" and card.data.pipeline_tag == "text-classification"
    assert "int8, mode ft1" in card.text and "- passed" in card.text and "- logits of " in card.text
    assert f"python -m export onnx --checkpoint={checkpoint}" in card.text
    (record,) = read_records(tmp_path / "out/run.json")
    assert (record["state"], record["program"], record["mode"]) == ("finished", "python -m export onnx", "ft1")
    before = (tmp_path / "out/README.md").read_bytes()
    export(checkpoint, tmp_path / "out", *words)
    assert (tmp_path / "out/README.md").read_bytes() == before
    assert len(read_records(tmp_path / "out/run.json")) == 2


@pytest.mark.parametrize("labels", [3, 1], ids=["classes", "regression"])
def test_the_lines_of_the_card_run_the_model(
    labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the project's own task and predictor do, with the checkpoint's case and the length that was given."""
    made = tiny_checkpoint("glue")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"one text and another . One And Text".split()]
    (tmp_path / "words.txt").write_text("\n".join([*tokens, *(f"filler{n}" for n in range(97 - len(tokens)))]))
    made.vocab_file, made.metadata["do_lower_case"] = tmp_path / "words.txt", "false"
    for name in ("output_weights", "output_bias"):
        made.tensors[name] = made.tensors[name][:labels]
    assert made.config is not None
    made.config = made.config.with_labels(LABELS[:labels])
    write_hugging_face(tmp_path / "cased", made)
    export(tmp_path / "cased", tmp_path / "out", "--nocheck", "--max_seq_length=40")
    card = (tmp_path / "out/README.md").read_text()
    assert "| Texts | at most 40 tokens (`--max_seq_length`); the model takes 64 |" in card
    assert "| Lower case | no |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    (tmp_path / "texts.tsv").write_text("text\tlabel\nOne text.\t0.5\nAnd another one.\t0.7\n")
    texts = OwnDataSource(test_file=tmp_path / "texts.tsv", label_names=LABELS[:labels], label_column="none")
    words = {"vocab_file": "vocab.txt", "do_lower_case": False, "do_eval": False, "do_predict": True}
    (prediction_set,) = ClassificationTask(source=texts, **words).prediction_sets()
    logits = OnnxPredictor("model.onnx", read_model("model.onnx")[1], 1).predict(
        prediction_set.features().batch([0, 1])
    )
    expected = logits["logits"]
    printed = ast.literal_eval(capsys.readouterr().out)
    if labels == 1:
        assert printed == pytest.approx(expected[:, 0].tolist(), abs=1e-5)
    else:
        assert printed == [LABELS[index] for index in expected.argmax(axis=1)]


def test_the_page_shows_the_lines_of_the_card(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
    code = classifier_code("model.onnx", 128, lower=True).replace('folder = "."', 'folder = "onnx/mrpc"')
    assert f"```python\n{code}```" in page


def test_several_models_in_one_folder(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export(checkpoint, tmp_path / "out" / name, "--nocheck")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a.md", "b.md"} <= names and not names & {"README.md", "run.json"}
    assert "It was not checked" in (tmp_path / "out/a.md").read_text()


def test_into_the_checkpoint_s_folder(checkpoint: Path) -> None:
    """Its own card stays; a file that nobody of us wrote, too."""
    (checkpoint / "README.md").write_text("the checkpoint's")
    export(checkpoint, checkpoint, "--nocheck")
    assert (checkpoint / "README.md").read_text() == "the checkpoint's"
    assert is_ours(checkpoint / "model.md", "model.onnx")
    (checkpoint / "model.md").write_text("mine")
    export(checkpoint, checkpoint, "--nocheck")
    assert (checkpoint / "model.md").read_text() == "mine"


def test_a_failed_export_leaves_no_record_in_a_new_folder(checkpoint: Path, tmp_path: Path) -> None:
    words = [f"--checkpoint={checkpoint}", f"--output={tmp_path / 'out'}", "--max_logit_difference=1e-12"]
    with pytest.raises(Exception, match="fails its check"):
        main(["onnx", *words])
    assert list((tmp_path / "out").iterdir()) == []


def test_triton_takes_the_card_along(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "named.onnx", "--nocheck")
    folder = TritonSettings().folder(tmp_path / "repository")
    folder.mkdir(parents=True)
    copy_model(tmp_path / "named.onnx", folder)
    assert (folder / "README.md").read_bytes() == (tmp_path / "named.md").read_bytes()
