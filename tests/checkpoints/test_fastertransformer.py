import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from checkpoints import names
from checkpoints.fastertransformer import read_fastertransformer, write_fastertransformer
from twinquant.errors import UserError

torch = pytest.importorskip("torch")

QUERY = "bert.encoder.layer.0.attention.self.query"


def test_a_round_trip_keeps_everything(tmp_path, squad_checkpoint, assert_same_arrays):
    write_fastertransformer(tmp_path / "pytorch_model.bin", squad_checkpoint)
    found = read_fastertransformer(tmp_path / "pytorch_model.bin")
    assert_same_arrays(found.tensors, squad_checkpoint.tensors)
    assert_same_arrays(found.ranges, squad_checkpoint.ranges)
    assert found.config == squad_checkpoint.config
    assert json.loads((tmp_path / "bert_config.json").read_text())["hidden_size"] == 8


def test_the_file_is_named_and_shaped_as_the_original(tmp_path, squad_checkpoint):
    write_fastertransformer(tmp_path / "pytorch_model.bin", squad_checkpoint)
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert state[f"{QUERY}._weight_quantizer._amax"].shape == (8, 1)
    assert state[f"{QUERY}._input_quantizer._amax"].shape == ()
    assert state["bert.encoder.final_input_quantizer._amax"] == 0.5
    assert state["bert.encoder.layer.1.attention.output.layernorm_input_quantizer._amax"] == 3
    assert "bert.embeddings.LayerNorm.gamma" in state
    kernel = squad_checkpoint.tensors["bert/encoder/layer_1/intermediate/dense/kernel"]
    np.testing.assert_array_equal(state["bert.encoder.layer.1.intermediate.dense.weight"].numpy(), kernel.T)


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "model"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_files_of_the_original(tmp_path, wrapped, legacy):
    weight = torch.arange(6.0).reshape(2, 3)
    state = {
        f"module.{QUERY}.weight": weight.half(),
        f"module.{QUERY}._weight_quantizer._amax": torch.tensor([[2.0], [5.0]]),
        f"module.{QUERY}._input_quantizer._amax": torch.tensor(4.0),
        "module.bert.embeddings.LayerNorm.beta": torch.ones(3),
        "module.cls.predictions.bias": torch.ones(3),
    }
    content = {"model": state, "epoch": 2} if wrapped else state
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    found = read_fastertransformer(tmp_path / "model.pt")
    query = names.quantizer_scope(f"{QUERY}._input_quantizer").removesuffix("/input_quantizer")
    np.testing.assert_array_equal(found.tensors[f"{query}/kernel"], weight.numpy().T, strict=True)
    np.testing.assert_array_equal(found.ranges[f"{query}/kernel_quantizer"], np.array([2, 5], np.float32), strict=True)
    np.testing.assert_array_equal(found.ranges[f"{query}/input_quantizer"], np.array(4, np.float32), strict=True)
    assert sorted(found.tensors) == ["bert/embeddings/LayerNorm/beta", f"{query}/kernel"]
    assert found.unused == ["module.cls.predictions.bias"]
    assert found.config is None


class Harmful:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": Harmful()}, "is not a readable PyTorch state dict"),
        ([1, 2], "holds no state dict: .* found list"),
        ({"a": 1}, "holds no state dict"),
        ({"a": torch.ones(1)}, "holds no BERT tensors: .* found a"),
        ({"qa_outputs.bias": torch.ones(2, dtype=torch.int8)}, "qa_outputs.bias of .* is int8, expected floats"),
        ({"qa_outputs.bias": torch.ones(2).to_sparse()}, "layout torch.sparse_coo cannot be read"),
        (
            {"qa_outputs.bias": torch.ones(2), f"{QUERY}._input_quantizer._amax": torch.ones(8, 1)},
            r"the range .*_input_quantizer\._amax of .* has the shape \(8, 1\)",
        ),
        (
            {"qa_outputs.bias": torch.ones(2), f"{QUERY}._weight_quantizer._amax": torch.ones(4, 2)},
            r"the range .*_weight_quantizer\._amax of .* has the shape \(4, 2\)",
        ),
        (
            {"qa_outputs.bias": torch.ones(2), f"{QUERY}._input_quantizer._amax": torch.tensor(-1.0)},
            "is negative",
        ),
    ],
    ids=["code", "list", "numbers", "foreign", "int8", "sparse", "activation", "matrix", "negative"],
)
def test_files_that_cannot_be_used(tmp_path, capsys, content, sentence):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=sentence):
        read_fastertransformer(tmp_path / "model.pt")
    assert "ran" not in capsys.readouterr().out


def test_a_truncated_file_is_named(tmp_path, squad_checkpoint):
    path = tmp_path / "model.pt"
    write_fastertransformer(path, squad_checkpoint)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.pt is not a readable PyTorch state dict"):
        read_fastertransformer(path)
    with pytest.raises(UserError, match=r"absent\.pt does not exist"):
        read_fastertransformer(tmp_path / "absent.pt")


def test_a_file_that_cannot_grow_is_a_user_error(tmp_path, squad_checkpoint):
    squad_checkpoint.config = None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*model\.pt"):
            write_fastertransformer(tmp_path / "model.pt", squad_checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*model*"))


def test_without_torch_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"reading .*model\.pt needs PyTorch, which is not installed"):
        read_fastertransformer(tmp_path / "model.pt")


def test_the_package_imports_neither_framework():
    code = "import sys, checkpoints.checkpoint; print({'torch', 'tensorflow', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
