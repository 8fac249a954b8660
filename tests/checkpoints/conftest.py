"""A tiny random model in canonical form."""

from collections.abc import Callable

import numpy as np
import pytest

from checkpoints import names
from checkpoints.config import BertConfig
from checkpoints.value import Checkpoint

QUERY = "bert/encoder/layer_0/attention/self/query"


@pytest.fixture
def tiny_config() -> BertConfig:
    return BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )


@pytest.fixture
def make_checkpoint(tiny_config) -> Callable[..., Checkpoint]:
    def make(head=None, pooler=False, num_labels=None) -> Checkpoint:
        rng = np.random.default_rng(0)
        shapes = names.expected_tensors(tiny_config, head, num_labels, pooler)
        tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        return Checkpoint(tensors, config=tiny_config, source="the test's model")

    return make


@pytest.fixture
def squad_checkpoint(make_checkpoint, tmp_path) -> Checkpoint:
    """A question answering model with ranges (one of them per channel) and a vocabulary."""
    checkpoint = make_checkpoint(names.QUESTION_ANSWERING)
    checkpoint.ranges = {
        f"{QUERY}/kernel_quantizer": np.arange(1, 9, dtype=np.float32),
        f"{QUERY}/input_quantizer": np.array(2.5, np.float32),
        "bert/encoder/layer_1/attention/output/layernorm_input_quantizer": np.array(3, np.float32),
        "bert/final_input_quantizer": np.array(0.5, np.float32),
    }
    checkpoint.vocab_file = tmp_path / "words" / "vocab.txt"
    checkpoint.vocab_file.parent.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{index}" for index in range(25))]
    checkpoint.vocab_file.write_text("\n".join(words) + "\n", encoding="utf-8")
    checkpoint.metadata = {"do_lower_case": "false"}
    return checkpoint


@pytest.fixture
def assert_same_arrays() -> Callable[..., None]:
    def check(found, expected) -> None:
        assert sorted(found) == sorted(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype, name
            np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)

    return check
