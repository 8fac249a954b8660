"""The float model against transformers' BERT, against the other backend, against itself under padding, and pinned."""

import numpy as np
import pytest
from numpy_bert import NumpyBert
from tiny_bert import make_backend, make_batch, pad_batch, relative_error, tiny_config, tiny_tensors

from checkpoints.config import BertConfig
from checkpoints.names import hugging_face_name, is_transposed

CONFIGS = {
    "gelu": tiny_config(),
    "gelu_new": tiny_config(hidden_act="gelu_new"),
    "relu-one-segment-type": tiny_config(hidden_act="relu", type_vocab_size=1),
    "three-segment-types": tiny_config(type_vocab_size=3, layer_norm_eps=1e-5),
    "odd-sizes": tiny_config(
        vocab_size=101, hidden_size=33, num_attention_heads=3, intermediate_size=35, max_position_embeddings=19
    ),
    "tanh-one-head": tiny_config(hidden_act="tanh", num_attention_heads=1, num_hidden_layers=1),
    "silu": tiny_config(hidden_act="silu", num_hidden_layers=1),
}
LENGTHS = [19, 7, 13]
NAMES = ("start_logits", "end_logits")


def transformers_logits(config: BertConfig, tensors, batch):
    """The same weights in transformers' BertForQuestionAnswering."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    known = {name: value for name, value in config.to_dict().items() if name != "hidden_act"}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(hidden_act=config.hidden_act, **known)).eval()
    arrays = {name: array.T if is_transposed(name) else array for name, array in tensors.items()}
    state = {hugging_face_name(name): torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    report = model.load_state_dict(state, strict=False)
    assert report.unexpected_keys == [] and all("position_ids" in name for name in report.missing_keys)
    inputs = {name: torch.tensor(batch[name].astype(np.int64)) for name in ("input_ids", "input_mask", "segment_ids")}
    with torch.no_grad():
        output = model(inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])
    return {name: getattr(output, name).numpy() for name in NAMES}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_pytorch_equals_transformers(config):
    tensors, batch = tiny_tensors(config), make_batch(config, LENGTHS)
    expected = transformers_logits(config, tensors, batch)
    found = make_backend("pytorch", config, tensors).predict(batch)
    for name in NAMES:
        assert relative_error(found[name], expected[name]) < 1e-5


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_backends_agree(both_backends, config):
    tensors, batch = tiny_tensors(config), make_batch(config, LENGTHS)
    first, second = (make_backend(name, config, tensors).predict(batch) for name in both_backends)
    for name in NAMES:
        assert first[name].dtype == second[name].dtype == np.float32
        assert relative_error(first[name], second[name]) < 1e-5


def test_float64_reference_agrees(backend_name):
    config = CONFIGS["gelu_new"]
    tensors, batch = tiny_tensors(config), make_batch(config, LENGTHS)
    expected = NumpyBert(config, tensors)(batch)
    found = make_backend(backend_name, config, tensors).predict(batch)
    for name in NAMES:
        assert relative_error(found[name], expected[name]) < 1e-5


def test_logits_do_not_depend_on_padding_or_neighbors(backend_name):
    config = CONFIGS["gelu"]
    backend = make_backend(backend_name, config)
    together = backend.predict(make_batch(config, LENGTHS))
    for padded in (24, 64):
        wider = backend.predict(make_batch(config, LENGTHS, padded))
        for name in NAMES:
            for row, length in enumerate(LENGTHS):
                assert relative_error(wider[name][row, :length], together[name][row, :length]) < 1e-5
    # The first row alone, without any padding.
    alone = backend.predict(make_batch(config, LENGTHS[:1]))
    for name in NAMES:
        assert relative_error(alone[name][0], together[name][0, : LENGTHS[0]]) < 1e-5


def test_what_stands_in_the_padding_does_not_matter(backend_name):
    config = CONFIGS["gelu"]
    backend = make_backend(backend_name, config)
    batch = pad_batch(make_batch(config, [9]), 16)
    other = batch | {"input_ids": batch["input_ids"] + 5 * (1 - batch["input_mask"])}
    first, second = backend.predict(batch), backend.predict(other)
    for name in NAMES:
        assert relative_error(second[name][:, :9], first[name][:, :9]) < 1e-6


def test_the_whole_position_table_is_usable(backend_name):
    config = CONFIGS["odd-sizes"]
    backend = make_backend(backend_name, config)
    assert backend.predict(make_batch(config, [config.max_position_embeddings]))["start_logits"].shape == (1, 19)


def test_tensors_come_back_as_loaded(backend_name):
    config = CONFIGS["odd-sizes"]
    tensors = tiny_tensors(config)
    found = make_backend(backend_name, config, tensors).tensors()
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


# Start and end logits at the first three positions of each row; a change means that trained models change too.
PINNED = {
    "start_logits": [[0.59229, -1.19089, -1.48529], [-0.16679, -1.16831, -1.5598]],
    "end_logits": [[1.09348, 1.03722, 0.19427], [1.31197, 1.20902, -0.09736]],
}


def test_forward_pass_is_stable(backend_name):
    config = CONFIGS["gelu"]
    found = make_backend(backend_name, config, tiny_tensors(config, seed=3)).predict(make_batch(config, [8, 5]))
    for name in NAMES:
        np.testing.assert_allclose(found[name][:, :3], PINNED[name], rtol=0, atol=2e-5)
