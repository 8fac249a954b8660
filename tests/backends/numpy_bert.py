"""BERT's forward pass in NumPy float64, written from the table of quantized tensors and not from the backends.

Only the rounding itself is shared with the program (quantization/numerics.py, float32, as everywhere). Products,
softmax and LayerNorm are float64, so that a backend's float32 differs by rounding errors alone.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import erf

from checkpoints.config import BertConfig
from quantization.modes import Mode, all_quantizers, enabled_quantizers
from quantization.numerics import fake_quantize, scale_of

ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


class NumpyBert:
    """A span model; after a call `seen` holds what every quantizer was given, `margin` how near it came to a tie."""

    def __init__(
        self,
        config: BertConfig,
        tensors: Mapping[str, np.ndarray],
        mode: Mode | None = None,
        ranges: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.config, self.ranges = config, ranges or {}
        self.tensors = {name: array.astype(np.float64) for name, array in tensors.items()}
        self.enabled = enabled_quantizers(config.num_hidden_layers, mode) if mode else {}

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.seen: dict[str, np.ndarray] = {}
        self.margin = 0.5
        table = self.tensors
        ids, mask, segments = batch["input_ids"], batch["input_mask"], batch["segment_ids"]
        x = table["bert/embeddings/word_embeddings"][ids] + table["bert/embeddings/token_type_embeddings"][segments]
        x = self.norm(x + table["bert/embeddings/position_embeddings"][: ids.shape[1]], "bert/embeddings/LayerNorm")
        for layer in range(self.config.num_hidden_layers):
            x = self.layer(x, mask, f"bert/encoder/layer_{layer}")
        x = self.fake(x, "bert/final_input_quantizer")
        logits = x @ table["cls/squad/output_weights"].T + table["cls/squad/output_bias"]
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}

    def layer(self, x: np.ndarray, mask: np.ndarray, scope: str) -> np.ndarray:
        heads, size = self.config.num_attention_heads, self.config.head_size
        this = f"{scope}/attention/self"

        def by_head(y):
            return y.reshape(*y.shape[:2], heads, size).swapaxes(1, 2)

        q, k, v = (self.dense(x, f"{this}/{name}") for name in ("query", "key", "value"))
        q = by_head(self.fake(q, f"{this}/matmul_q_input_quantizer"))
        k = by_head(self.fake(k, f"{this}/matmul_k_input_quantizer"))
        v = by_head(self.fake(v, f"{this}/matmul_v_input_quantizer"))
        scores = self.fake(q @ k.swapaxes(2, 3), f"{this}/softmax_input_quantizer") / np.sqrt(size)
        scores = scores - 10000.0 * (mask[:, None, None, :] == 0)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = self.fake(weights / weights.sum(-1, keepdims=True), f"{this}/matmul_a_input_quantizer")
        context = (weights @ v).swapaxes(1, 2).reshape(x.shape)
        x = self.add_norm(context, x, f"{scope}/attention/output")
        inner = ACTIVATIONS[self.config.activation](self.dense(x, f"{scope}/intermediate/dense"))
        return self.add_norm(inner, x, f"{scope}/output")

    def add_norm(self, x: np.ndarray, residual: np.ndarray, scope: str) -> np.ndarray:
        local = self.fake(self.dense(x, f"{scope}/dense"), f"{scope}/add_local_input_quantizer")
        residual = self.fake(residual, f"{scope}/add_residual_input_quantizer")
        return self.norm(self.fake(local + residual, f"{scope}/layernorm_input_quantizer"), f"{scope}/LayerNorm")

    def dense(self, x: np.ndarray, scope: str) -> np.ndarray:
        kernel = self.fake(self.tensors[f"{scope}/kernel"], f"{scope}/kernel_quantizer")
        product = self.fake(x, f"{scope}/input_quantizer") @ kernel
        return self.fake(product, f"{scope}/aftergemm_quantizer") + self.tensors[f"{scope}/bias"]

    def norm(self, x: np.ndarray, scope: str) -> np.ndarray:
        deviation = np.sqrt(x.var(-1, keepdims=True) + self.config.layer_norm_eps)
        scaled = (x - x.mean(-1, keepdims=True)) / deviation
        return scaled * self.tensors[f"{scope}/gamma"] + self.tensors[f"{scope}/beta"]

    def fake(self, x: np.ndarray, scope: str) -> np.ndarray:
        assert scope not in self.seen, f"{scope} sees two tensors"
        self.seen[scope] = x
        settings = self.enabled.get(scope)
        if settings is None:
            return x
        amax = self.ranges.get(scope)
        if settings.axis is None and not scope.endswith("kernel_quantizer"):
            steps = x / scale_of(amax, settings)
            near = np.abs(np.mod(steps, 1.0) - 0.5)[np.abs(steps) < settings.qmax + 1]
            self.margin = min(self.margin, float(near.min(initial=0.5)))
        return fake_quantize(x, amax, settings, scope).astype(np.float64)


def ranges_of(seen: Mapping[str, np.ndarray], mode: Mode, layers: int, share: float = 0.9) -> dict[str, np.ndarray]:
    """Ranges for what a float forward pass saw: weights' maxima, `share` of activations' (so that some values clip)."""
    ranges = {}
    for scope, row in all_quantizers(layers).items():
        magnitude = np.abs(seen[scope])
        if row.is_weight:
            ranges[scope] = magnitude.max(0 if mode.per_channel else None).astype(np.float32)
        else:
            ranges[scope] = np.float32(share * magnitude.max())
    return ranges
