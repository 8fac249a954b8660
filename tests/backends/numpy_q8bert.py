"""q8bert in NumPy float64: the model of numpy_bert.py with embeddings, pooler and head quantized, and its averages."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy_bert import NumpyBert
from tiny_bert import make_batch, tiny_config, tiny_tensors

from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from quantization.modes import all_quantizers, enabled_quantizers, q8bert_mode
from training.initialization import random_checkpoint

HEADS = {QUESTION_ANSWERING: None, CLASSIFICATION: 3}  # and the number of labels
CONFIG = tiny_config(num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=24)
LENGTHS = (5, 3)
CLEAR = 2e-4  # of a step; float32 is wrong by less than 1e-4 of one here


class NumpyQ8Bert(NumpyBert):
    """A model with either head. Averages move with every call where `decay` is given; else `ranges` stay."""

    def __init__(
        self,
        config: BertConfig,
        tensors: Mapping[str, np.ndarray],
        head: str,
        decay: float | None = None,
        ranges: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(config, tensors, ranges=dict(ranges or {}))
        self.head, self.decay = head, decay
        self.averages: dict[str, float] = {}
        self.rows = all_quantizers(config.num_hidden_layers, head)
        self.enabled = enabled_quantizers(config.num_hidden_layers, q8bert_mode(), head)

    def __call__(self, batch):
        self.seen, self.margin = {}, 0.5
        table, ids = self.tensors, batch["input_ids"]
        words, positions = (
            self.fake(table[name], f"{name}_quantizer")
            for name in ("bert/embeddings/word_embeddings", "bert/embeddings/position_embeddings")
        )
        x = (
            words[ids]
            + table["bert/embeddings/token_type_embeddings"][batch["segment_ids"]]
            + positions[: ids.shape[1]]
        )
        x = self.norm(x, "bert/embeddings/LayerNorm")
        for layer in range(self.config.num_hidden_layers):
            x = self.layer(x, batch["input_mask"], f"bert/encoder/layer_{layer}")
        if self.head == CLASSIFICATION:
            pooled = np.tanh(self.dense(x[:, 0], "bert/pooler/dense"))
            return {"logits": self.last_layer(pooled, "")}
        logits = self.last_layer(x, "cls/squad/")
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}

    def last_layer(self, x, scope):
        weights = self.fake(self.tensors[f"{scope}output_weights"], f"{scope}output_weights_quantizer")
        return self.fake(x, f"{scope}output_input_quantizer") @ weights.T + self.tensors[f"{scope}output_bias"]

    def fake(self, x, scope):
        if scope not in self.enabled:
            return super().fake(x, scope)
        largest, margin = float(np.abs(x).max()), self.margin
        if self.rows[scope].is_weight:
            self.ranges[scope] = np.float32(largest)
            y = super().fake(x, scope)
            self.margin = margin  # a weight is the same number everywhere
            return y
        if self.decay is not None:
            old = self.averages.get(scope, largest)
            self.averages[scope] = old - (1 - self.decay) * (old - largest)
            self.ranges[scope] = np.float32(self.averages[scope])
        return super().fake(x, scope)


def head_tensors(head: str, config: BertConfig = CONFIG, seed: int = 0) -> dict[str, np.ndarray]:
    """`tiny_tensors` with that head, and a pooler that does not saturate."""
    tensors = tiny_tensors(config, seed, QUESTION_ANSWERING)
    expected = random_checkpoint(config, head, seed, HEADS[head]).tensors
    return {name: tensors.get(name, array) for name, array in expected.items()}


def labeled_batch(head: str, seed: int = 0, lengths=LENGTHS, config: BertConfig = CONFIG) -> dict[str, np.ndarray]:
    """Random rows with the labels of that head."""
    if head == QUESTION_ANSWERING:
        return make_batch(config, lengths, seed=seed, labels=True)
    labels = np.random.default_rng(seed).integers(0, HEADS[head], len(lengths))
    return make_batch(config, lengths, seed=seed) | {"labels": labels.astype(np.int32)}


@cache
def clear_batches(head: str, count: int, decay: float):
    """Batches none of whose values comes near a tie, with the reference's averages and logits after each."""
    batches, results = [], []
    reference = NumpyQ8Bert(CONFIG, head_tensors(head), head, decay)
    for seed in range(300):
        before = dict(reference.averages)
        batch = labeled_batch(head, seed)
        logits = reference(batch)
        if reference.margin <= CLEAR:
            reference.averages = before
            continue
        batches.append(batch)
        results.append((dict(reference.averages), logits))
        if len(batches) == count:
            return batches, results
    raise AssertionError("no batches keep clear of ties")
