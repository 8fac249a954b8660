import json

import pytest

from checkpoints.config import BertConfig
from twinquant.errors import UserError

SIZES = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


def test_defaults_are_bert_base():
    config = BertConfig.from_dict(SIZES, "test")
    assert (config.hidden_act, config.layer_norm_eps, config.type_vocab_size) == ("gelu", 1e-12, 2)
    assert (config.max_position_embeddings, config.hidden_dropout_prob, config.head_size) == (512, 0.1, 64)


def test_unknown_keys_survive_a_round_trip(tmp_path):
    values = {**SIZES, "directionality": "bidi", "pooler_fc_size": 768, "id2label": {"0": "no", "1": "yes"}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    config = BertConfig.from_json_file(path)
    again = config.to_dict()
    assert {key: again[key] for key in values} == values
    assert BertConfig.from_dict(again, "again") == config


def test_label_names_follow_the_number_not_the_text_order():
    names = [f"name{index}" for index in range(11)]
    config = BertConfig.from_dict(SIZES, "test").with_labels(names)
    assert config.label_names == names
    assert BertConfig.from_dict(SIZES, "test").label_names is None


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("gelu", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("swish", "silu"),
        ("relu", "relu"),
    ],
)
def test_activations(name, meaning):
    assert BertConfig.from_dict({**SIZES, "hidden_act": name}, "test").activation == meaning


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "roberta"}, "test: model_type is 'roberta', only 'bert' is supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu', expected one of gelu, "),
        ({"hidden_act": ["gelu"]}, "hidden_act is"),
        ({"hidden_size": 770}, "hidden_size 770 is not a multiple of num_attention_heads 12"),
        ({"hidden_size": "768"}, "hidden_size is '768', expected a positive whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob is None"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"layer_norm_eps": -1e-12}, "layer_norm_eps is -1e-12"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label is"),
        ({"id2label": ["a"]}, "id2label is"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_by_name(change, sentence):
    with pytest.raises(UserError) as caught:
        BertConfig.from_dict({**SIZES, **change}, "test")
    assert str(caught.value).startswith("test: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("key", SIZES)
def test_a_missing_size_is_refused_by_name(key):
    with pytest.raises(UserError, match=f"test: the key {key} is missing"):
        BertConfig.from_dict({name: value for name, value in SIZES.items() if name != key}, "test")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot read the model configuration"),
        (b"{", "is not a JSON file"),
        (b"\xff", "is not a JSON"),
        (b"[]", "found list"),
    ],
    ids=["absent", "cut", "binary", "list"],
)
def test_unreadable_files(tmp_path, content, sentence):
    path = tmp_path / "bert_config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        BertConfig.from_json_file(path)
    assert str(path) in str(caught.value)
