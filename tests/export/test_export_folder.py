"""Where a model goes: a folder that transformers loads, nothing half written, nobody's files overwritten."""

import json
from pathlib import Path

import pytest
from tiny_exports import TASKS, exported, int8, tiny_checkpoint, tiny_source

from checkpoints.hugging_face import write_hugging_face
from export.__main__ import main
from export.commands import export_model
from export.settings import ExportSettings
from export.source import Source, load_source
from export.verdict import Verdict
from twinquant.errors import UserError

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(92))]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A source from disk, with a vocabulary."""
    checkpoint = tiny_checkpoint("glue", "ft1")
    checkpoint.vocab_file = tmp_path / "words.txt"
    checkpoint.vocab_file.write_text("\n".join(TOKENS) + "\n")
    checkpoint.metadata["do_lower_case"] = "true"
    write_hugging_face(tmp_path / "checkpoint", checkpoint)
    return load_source(str(tmp_path / "checkpoint"))


def test_transformers_reads_the_folder(source: Source, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    exported(source, int8("ft1"), tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.architectures == ["BertForSequenceClassification"] and config.num_labels == 3
    assert list(config.id2label.values()) == ["contradiction", "entailment", "neutral"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    encoded = tokenizer("Word3 word5", "word1")
    assert encoded["input_ids"] == [2, 8, 10, 3, 6, 3] and encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    assert set(encoded) == {"input_ids", "attention_mask", "token_type_ids"}


def test_output_names(source: Source, tmp_path: Path) -> None:
    companions = ["config.json", "tokenizer_config.json", "vocab.txt"]
    export_model(source, ExportSettings(), tmp_path / "folder/deep")
    assert sorted(file.name for file in (tmp_path / "folder/deep").iterdir()) == sorted([*companions, "model.onnx"])
    export_model(source, ExportSettings(), tmp_path / "named/other.onnx")
    export_model(source, int8("ft1"), tmp_path / "named/model_int8.onnx")
    names = sorted(file.name for file in (tmp_path / "named").iterdir())
    assert names == sorted([*companions, "other.onnx", "model_int8.onnx"])


def test_files_that_describe_the_same_model_stay(source: Source, tmp_path: Path) -> None:
    """Into the checkpoint's own folder, whose config.json may hold more."""
    folder = Path(source.name)
    config = json.loads((folder / "config.json").read_text()) | {"finetuning_task": "mnli"}
    (folder / "config.json").write_text(json.dumps(config))
    export_model(source, ExportSettings(), folder)
    assert json.loads((folder / "config.json").read_text()) == config
    assert (folder / "model.onnx").exists() and (folder / "model.safetensors").exists()


def test_another_models_folder_is_refused(source: Source, tmp_path: Path) -> None:
    export_model(tiny_source("squad", hidden_size=16), ExportSettings(), tmp_path / "out")
    before = (tmp_path / "out/model.onnx").read_bytes()
    with pytest.raises(UserError, match=r"config\.json describes another model \(hidden_size is 16, not 32\)"):
        export_model(source, ExportSettings(), tmp_path / "out")
    assert (tmp_path / "out/model.onnx").read_bytes() == before
    other = tiny_source("glue")
    assert other.label_names is not None
    other.label_names[:] = ["a", "b", "c"]
    export_model(other, ExportSettings(), tmp_path / "labels")
    with pytest.raises(UserError, match=r"config\.json describes another model \(label_names"):
        export_model(source, ExportSettings(), tmp_path / "labels")
    unnamed = json.loads((tmp_path / "labels/config.json").read_text())
    for key in ("id2label", "label2id"):  # as transformers leaves its own names out
        unnamed.pop(key, None)
    if source.label_names is not None:
        (tmp_path / "labels/config.json").write_text(json.dumps(unnamed))
        export_model(source, ExportSettings(), tmp_path / "labels")
    export_model(tiny_source("squad" if source.task == "glue" else "glue"), ExportSettings(), tmp_path / "head")
    with pytest.raises(UserError, match=r"config\.json describes another model \(architectures is \['BertFor"):
        export_model(source, ExportSettings(), tmp_path / "head")
    (tmp_path / "words").mkdir()
    (tmp_path / "words/vocab.txt").write_text("[UNK]\n")
    with pytest.raises(UserError, match=r"vocab\.txt is another model's vocabulary"):
        export_model(source, ExportSettings(), tmp_path / "words")


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_fails_its_check_is_not_left(task: str, tmp_path: Path) -> None:
    source, seen = tiny_source(task), []

    def fail(path: Path) -> Verdict:
        seen.append((path, path.exists()))
        return Verdict(ExportSettings(), failures=["it is wrong"])

    export_model(source, ExportSettings(), tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(UserError, match=r"m\.onnx was not written, it fails its check: it is wrong"):
        export_model(source, ExportSettings(int8_embeddings=True), tmp_path / "m.onnx", fail)
    assert seen[0][1] and seen[0][0] != tmp_path / "m.onnx"
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "m.onnx"]


def test_the_check_at_the_end_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    write_hugging_face(tmp_path / "checkpoint", tiny_checkpoint())
    words = ["onnx", f"--checkpoint={tmp_path}/checkpoint", f"--output={tmp_path}/out"]
    with pytest.raises(
        UserError, match="it fails its check: logits differ by up to .*, --max_logit_difference is 1e-12"
    ):
        main([*words, "--max_logit_difference=1e-12"])
    assert list((tmp_path / "out").iterdir()) == []
    assert main(words) == 0
    assert "wrote" in capsys.readouterr().out and (tmp_path / "out/model.onnx").exists()


@pytest.mark.parametrize("output", ["file/model.onnx", "/proc/nowhere/m.onnx", "taken.onnx"])
def test_places_that_cannot_be_written(output: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(UserError, match="cannot be made|cannot write"):
        export_model(tiny_source(), ExportSettings(), tmp_path / output)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import export.commands

    def write(path: Path, *arguments: object) -> list[str]:
        path.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.commands, "write_model", write)
    with pytest.raises(UserError, match=r"cannot write .*m\.onnx: No space left on device"):
        export_model(tiny_source(), ExportSettings(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
