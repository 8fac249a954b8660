"""BERT in PyTorch on one page, with a quantizer at every tensor of quantization/modes.py.

Devlin et al., 2018 (arXiv 1810.04805), in the arrangement of google-research/bert; quantizers where FasterTransformer's
BERT example has them. Mirrors backends/tensorflow/model.py. B = batch, S = positions, H = hidden size, A = attention
heads, D = H / A, F = intermediate size.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from backends.base import MASK_VALUE
from backends.pytorch.onednn_linear import OneDnnLinear
from backends.pytorch.quantizers import Quantization
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION


def activation_function(config: BertConfig):
    """The activation of the config: gelu is the erf form (arXiv 1606.08415), gelu_tanh the tanh form."""
    return {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "tanh": torch.tanh,
        "silu": F.silu,
    }[config.activation]


class Settings:
    """What all modules of one model share: quantizers, dropout and the type of matrix products."""

    def __init__(
        self, quantization: Quantization, product_dtype: torch.dtype, dropout: bool, onednn: bool = False
    ) -> None:
        self.quantization = quantization
        self.product_dtype = product_dtype
        self.onednn = onednn  # see onednn_linear.py
        self.dropout_enabled = dropout
        self.training = False

    def dropout(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        """Inverted dropout while training; the backend seeds the generator before every step."""
        return F.dropout(x, rate) if self.training and self.dropout_enabled and rate > 0.0 else x

    def precisely(self, function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        """function(*tensors); in exact arithmetic computed in float64 and rounded once."""
        if not self.quantization.exact:
            return function(*tensors)
        return function(*(tensor.double() for tensor in tensors)).float()

    def matmul(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a @ b in `product_dtype`, the result float32."""
        if self.product_dtype == torch.float32:
            return a @ b
        return (a.to(self.product_dtype) @ b.to(self.product_dtype)).float()

    def linear(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """x @ kernel^T like `matmul`; kernel: [out, in]."""
        return OneDnnLinear.apply(x, kernel) if self.onednn else self.matmul(x, kernel.t())


class Dense(nn.Module):
    """x @ kernel + bias with fake(kernel) and fake(x @ kernel); x comes in fake-quantized by its input quantizer."""

    def __init__(self, inputs: int, outputs: int, scope: str, settings: Settings) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(outputs, inputs))  # [out, in], PyTorch's order
        self.bias = nn.Parameter(torch.empty(outputs))
        self.scope, self.settings = scope, settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, S, in] -> [B, S, out]
        quantize = self.settings.quantization
        kernel = quantize.weight(self.kernel, f"{self.scope}/kernel_quantizer")
        product = self.settings.linear(x, kernel)
        product = quantize.scaled(product, [f"{self.scope}/input_quantizer", f"{self.scope}/kernel_quantizer"])
        (product,) = quantize(product, [f"{self.scope}/aftergemm_quantizer"])
        return product + self.bias


class LayerNorm(nn.Module):
    """Layer normalization over the last axis (arXiv 1607.06450)."""

    def __init__(self, size: int, epsilon: float, scope: str, settings: Settings) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(size))
        self.beta = nn.Parameter(torch.empty(size))
        self.epsilon, self.scope, self.settings = epsilon, scope, settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.settings.precisely(self.normalize, x, self.gamma, self.beta)

    def normalize(self, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, gamma.shape, gamma, beta, self.epsilon)


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalized."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        size = config.hidden_size
        self.scope, self.settings, self.rate = "bert/embeddings", settings, config.hidden_dropout_prob
        self.word_embeddings = nn.Parameter(torch.empty(config.vocab_size, size))
        self.token_type_embeddings = nn.Parameter(torch.empty(config.type_vocab_size, size))
        self.position_embeddings = nn.Parameter(torch.empty(config.max_position_embeddings, size))
        self.norm = LayerNorm(size, config.layer_norm_eps, f"{self.scope}/LayerNorm", settings)

    def forward(self, input_ids: torch.Tensor, segment_ids: torch.Tensor) -> torch.Tensor:  # [B, S] -> [B, S, H]
        quantize = self.settings.quantization
        words = F.embedding(input_ids, self.word_embeddings)
        words = quantize.rows(words, self.word_embeddings, f"{self.scope}/word_embeddings_quantizer")
        segments = F.embedding(segment_ids, self.token_type_embeddings)
        positions = self.position_embeddings[: input_ids.shape[1]]
        positions = quantize.rows(positions, self.position_embeddings, f"{self.scope}/position_embeddings_quantizer")
        return self.settings.dropout(self.norm(words + segments + positions), self.rate)


class SelfAttention(nn.Module):
    """Multi-head attention up to, and without, its output projection."""

    def __init__(self, config: BertConfig, scope: str, settings: Settings) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.scope, self.settings, self.rate = scope, settings, config.attention_probs_dropout_prob
        self.query = Dense(size, size, f"{scope}/query", settings)
        self.key = Dense(size, size, f"{scope}/key", settings)
        self.value = Dense(size, size, f"{scope}/value", settings)

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:  # [B, S, H] -> [B, A, S, D]
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(
        self, x_query: torch.Tensor, x_key: torch.Tensor, x_value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:  # [B, S, H] three times, [B, 1, 1, S] -> [B, S, H]
        quantize, scope = self.settings.quantization, self.scope
        query, key, value = self.query(x_query), self.key(x_key), self.value(x_value)
        (query,) = quantize(query, [f"{scope}/matmul_q_input_quantizer"])
        (key,) = quantize(key, [f"{scope}/matmul_k_input_quantizer"])
        (value,) = quantize(value, [f"{scope}/matmul_v_input_quantizer"])
        query, key, value = self.split_heads(query), self.split_heads(key), self.split_heads(value)
        if not (quantize.active or self.settings.training):
            # Fused attention: right, and fast for prediction only (its training step was 4 times slower on a CPU).
            dtype = self.settings.product_dtype
            fused = F.scaled_dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype), mask.to(dtype))
            context = fused.float()
        else:
            context = self.attend(query, key, value, mask)
        return context.transpose(1, 2).flatten(2)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:  # [B, A, S, D] three times -> [B, A, S, D]
        quantize, scope = self.settings.quantization, self.scope
        scores = self.settings.matmul(query, key.transpose(2, 3))  # [B, A, S, S]
        scores = quantize.scaled(scores, [f"{scope}/matmul_q_input_quantizer", f"{scope}/matmul_k_input_quantizer"])
        (scores,) = quantize(scores, [f"{scope}/softmax_input_quantizer"], (2, 3))
        scores = scores * (1.0 / math.sqrt(query.shape[-1])) + mask
        probabilities = self.settings.precisely(lambda x: F.softmax(x, -1), scores)
        probabilities = self.settings.dropout(probabilities, self.rate)
        (probabilities,) = quantize(probabilities, [f"{scope}/matmul_a_input_quantizer"], (2, 3))
        operands = [f"{scope}/matmul_a_input_quantizer", f"{scope}/matmul_v_input_quantizer"]
        if all(operand in quantize.quantizers for operand in operands):
            context = self.settings.matmul(probabilities, value)
        else:  # no product of integers, but what follows may be rounded to some
            context = self.settings.precisely(self.settings.matmul, probabilities, value)
        return quantize.scaled(context, operands)


class AddNorm(nn.Module):
    """Dense, dropout, residual addition and LayerNorm: the end of each half of a layer."""

    def __init__(self, inputs: int, config: BertConfig, scope: str, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings, self.rate = scope, settings, config.hidden_dropout_prob
        self.dense = Dense(inputs, config.hidden_size, f"{scope}/dense", settings)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps, f"{scope}/LayerNorm", settings)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:  # [B, S, in], [B, S, H] -> [B, S, H]
        quantize = self.settings.quantization
        (x,) = quantize(x, [f"{self.scope}/dense/input_quantizer"])
        local = self.settings.dropout(self.dense(x), self.rate)
        (local,) = quantize(local, [f"{self.scope}/add_local_input_quantizer"])
        (total,) = quantize(local + residual, [f"{self.scope}/layernorm_input_quantizer"])
        return self.norm(total)


class EncoderLayer(nn.Module):
    """One transformer layer."""

    def __init__(self, config: BertConfig, scope: str, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings = scope, settings
        self.attention = SelfAttention(config, f"{scope}/attention/self", settings)
        self.attention_output = AddNorm(config.hidden_size, config, f"{scope}/attention/output", settings)
        intermediate = f"{scope}/intermediate/dense"
        self.intermediate = Dense(config.hidden_size, config.intermediate_size, intermediate, settings)
        self.output = AddNorm(config.intermediate_size, config, f"{scope}/output", settings)
        self.activation = activation_function(config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # [B, S, H] -> [B, S, H]
        quantize, scope = self.settings.quantization, self.scope
        consumers = [f"{scope}/attention/self/{name}/input_quantizer" for name in ("query", "key", "value")]
        *x_qkv, residual = quantize(x, [*consumers, f"{scope}/attention/output/add_residual_input_quantizer"])
        x = self.attention_output(self.attention(*x_qkv, mask), residual)
        x, residual = quantize(
            x, [f"{scope}/intermediate/dense/input_quantizer", f"{scope}/output/add_residual_input_quantizer"]
        )
        return self.output(self.settings.precisely(self.activation, self.intermediate(x)), residual)


class Bert(nn.Module):
    """Embeddings and encoder: the last layer's output."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = Embeddings(config, settings)
        self.layers = nn.ModuleList(
            EncoderLayer(config, f"bert/encoder/layer_{i}", settings) for i in range(config.num_hidden_layers)
        )

    def forward(
        self, input_ids: torch.Tensor, input_mask: torch.Tensor, segment_ids: torch.Tensor
    ) -> torch.Tensor:  # int [B, S] three times -> [B, S, H]
        x = self.embeddings(input_ids, segment_ids)
        mask = (1.0 - input_mask[:, None, None, :].float()) * MASK_VALUE  # [B, 1, 1, S]
        for layer in self.layers:
            x = layer(x, mask)
        (x,) = self.settings.quantization(x, ["bert/final_input_quantizer"])
        return x


class Pooler(nn.Module):
    """The first token's output through a dense layer and tanh."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings = "bert/pooler", settings
        self.dense = Dense(config.hidden_size, config.hidden_size, f"{self.scope}/dense", settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, S, H] -> [B, H]
        (first,) = self.settings.quantization(x[:, :1], [f"{self.scope}/dense/input_quantizer"])
        return self.settings.precisely(torch.tanh, self.dense(first))[:, 0]


class Logits(nn.Module):
    """The last layer of a head: x @ output_weights^T + output_bias, in float32 also in half precision."""

    def __init__(self, size: int, outputs: int, scope: str, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings = scope, settings
        self.output_weights = nn.Parameter(torch.empty(outputs, size))
        self.output_bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, S, H] -> [B, S, outputs]
        quantize = self.settings.quantization
        operands = [f"{self.scope}/output_{name}_quantizer".lstrip("/") for name in ("input", "weights")]
        (x,) = quantize(x, operands[:1])
        weights = quantize.weight(self.output_weights, operands[1])
        return quantize.scaled(x @ weights.t(), operands) + self.output_bias


class QuestionAnswering(nn.Module):
    """BERT with the span head: a start and an end logit for every position."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        self.bert = Bert(config, settings)
        self.logits = Logits(config.hidden_size, 2, "cls/squad", settings)

    def forward(
        self, input_ids: torch.Tensor, input_mask: torch.Tensor, segment_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:  # -> start logits and end logits, [B, S] each
        logits = self.logits(self.bert(input_ids, input_mask, segment_ids))  # [B, S, 2]
        return logits[..., 0], logits[..., 1]


class Classification(nn.Module):
    """BERT with the sentence head: from the first token, pooled, a logit for every class (or the one value wanted)."""

    def __init__(self, config: BertConfig, settings: Settings, num_labels: int) -> None:
        super().__init__()
        self.bert = Bert(config, settings)
        self.pooler = Pooler(config, settings)
        self.settings, self.rate = settings, config.hidden_dropout_prob
        self.logits = Logits(config.hidden_size, num_labels, "", settings)

    def forward(
        self, input_ids: torch.Tensor, input_mask: torch.Tensor, segment_ids: torch.Tensor
    ) -> tuple[torch.Tensor]:  # -> logits, [B, num_labels]
        x = self.settings.dropout(self.pooler(self.bert(input_ids, input_mask, segment_ids)), self.rate)
        return (self.logits(x[:, None])[:, 0],)


def parameters_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by canonical name, in the model's order."""
    return {
        f"{module.scope}/{name}".lstrip("/"): parameter
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }


def build_model(config: BertConfig, head: str, num_labels: int | None, settings: Settings) -> nn.Module:
    """The model of that head; its outputs are in the order of `backends.base.OUTPUT_NAMES`."""
    if head == CLASSIFICATION:
        return Classification(config, settings, num_labels)
    return QuestionAnswering(config, settings)
