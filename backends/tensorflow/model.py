"""BERT in TensorFlow on one page, with a quantizer at every tensor of quantization/modes.py.

Devlin et al., 2018 (arXiv 1810.04805), in the arrangement of google-research/bert; quantizers where FasterTransformer's
BERT example has them. Mirrors backends/pytorch/model.py. B = batch, S = positions, H = hidden size, A = attention
heads, D = H / A, F = intermediate size.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from backends.base import MASK_VALUE
from backends.tensorflow.quantizers import Quantization
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION


def activation_function(config: BertConfig):
    """The activation of the config: gelu is the erf form (arXiv 1606.08415), gelu_tanh the tanh form."""
    return {
        # Not tf.nn.gelu, whose constants are float32's even for float64.
        "gelu": lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5))),
        "gelu_tanh": lambda x: 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))),
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "silu": tf.nn.silu,
    }[config.activation]


def empty(*shape: int) -> tf.Variable:
    return tf.Variable(tf.zeros(shape), shape=shape)


class Settings:
    """What all modules of one model share: quantizers, dropout and the type of matrix products."""

    def __init__(self, quantization: Quantization, product_dtype: tf.DType, dropout: bool) -> None:
        self.quantization = quantization
        self.product_dtype = product_dtype
        self.dropout_enabled = dropout
        self.training = False
        self.seed: tf.Tensor | None = None  # int32 [2], of this step
        self.dropout_sites = 0  # how many dropouts this forward pass has met

    def dropout(self, x: tf.Tensor, rate: float) -> tf.Tensor:
        """Inverted dropout while training; stateless, seeded by the step's seed and the site's number."""
        if not (self.training and self.dropout_enabled and rate > 0.0):
            return x
        self.dropout_sites += 1
        seed = tf.random.experimental.stateless_fold_in(self.seed, self.dropout_sites)
        return tf.nn.experimental.stateless_dropout(x, rate, seed)

    def precisely(self, function: Callable[..., tf.Tensor], *tensors: tf.Tensor) -> tf.Tensor:
        """function(*tensors); in exact arithmetic computed in float64 and rounded once."""
        if not self.quantization.exact:
            return function(*tensors)
        return tf.cast(function(*(tf.cast(tensor, tf.float64) for tensor in tensors)), tf.float32)

    def matmul(self, a: tf.Tensor, b: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
        """a @ b in `product_dtype`, the result float32."""
        if self.product_dtype == tf.float32:
            return tf.matmul(a, b, transpose_b=transpose_b)
        product = tf.matmul(tf.cast(a, self.product_dtype), tf.cast(b, self.product_dtype), transpose_b=transpose_b)
        return tf.cast(product, tf.float32)


class Dense(tf.Module):
    """x @ kernel + bias with fake(kernel) and fake(x @ kernel); x comes in fake-quantized by its input quantizer."""

    def __init__(self, inputs: int, outputs: int, scope: str, settings: Settings) -> None:
        super().__init__()
        self.kernel = empty(inputs, outputs)  # [in, out]
        self.bias = empty(outputs)
        self.scope, self.settings = scope, settings

    def __call__(self, x: tf.Tensor) -> tf.Tensor:  # [B, S, in] -> [B, S, out]
        quantize = self.settings.quantization
        kernel = quantize.weight(self.kernel, f"{self.scope}/kernel_quantizer")
        rows = tf.reshape(x, (-1, self.kernel.shape[0]))  # one large product, not B small ones
        product = self.settings.matmul(rows, kernel)
        product = quantize.scaled(product, [f"{self.scope}/input_quantizer", f"{self.scope}/kernel_quantizer"])
        product = tf.reshape(product, (tf.shape(x)[0], tf.shape(x)[1], self.kernel.shape[1]))
        (product,) = quantize(product, [f"{self.scope}/aftergemm_quantizer"])
        return product + self.bias


class LayerNorm(tf.Module):
    """Layer normalization over the last axis (arXiv 1607.06450)."""

    def __init__(self, size: int, epsilon: float, scope: str, settings: Settings) -> None:
        super().__init__()
        self.gamma = empty(size)
        self.beta = empty(size)
        self.epsilon, self.scope, self.settings = epsilon, scope, settings

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.settings.precisely(self.normalize, x, self.gamma, self.beta)

    def normalize(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        centered = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), -1, keepdims=True)
        return centered * tf.math.rsqrt(variance + self.epsilon) * gamma + beta


class Embeddings(tf.Module):
    """Sum of word, position and segment embeddings, normalized."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        size = config.hidden_size
        self.scope, self.settings, self.rate = "bert/embeddings", settings, config.hidden_dropout_prob
        self.word_embeddings = empty(config.vocab_size, size)
        self.token_type_embeddings = empty(config.type_vocab_size, size)
        self.position_embeddings = empty(config.max_position_embeddings, size)
        self.norm = LayerNorm(size, config.layer_norm_eps, f"{self.scope}/LayerNorm", settings)

    def __call__(self, input_ids: tf.Tensor, segment_ids: tf.Tensor) -> tf.Tensor:  # [B, S] -> [B, S, H]
        quantize = self.settings.quantization
        words = tf.gather(self.word_embeddings, input_ids)
        words = quantize.rows(words, self.word_embeddings, f"{self.scope}/word_embeddings_quantizer")
        segments = tf.gather(self.token_type_embeddings, segment_ids)
        positions = self.position_embeddings[: tf.shape(input_ids)[1]]
        positions = quantize.rows(positions, self.position_embeddings, f"{self.scope}/position_embeddings_quantizer")
        return self.settings.dropout(self.norm(words + segments + positions), self.rate)


class SelfAttention(tf.Module):
    """Multi-head attention up to, and without, its output projection."""

    def __init__(self, config: BertConfig, scope: str, settings: Settings) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.scope, self.settings, self.rate = scope, settings, config.attention_probs_dropout_prob
        self.query = Dense(size, size, f"{scope}/query", settings)
        self.key = Dense(size, size, f"{scope}/key", settings)
        self.value = Dense(size, size, f"{scope}/value", settings)

    def split_heads(self, x: tf.Tensor) -> tf.Tensor:  # [B, S, H] -> [B, A, S, D]
        size = x.shape[2] // self.heads
        return tf.transpose(tf.reshape(x, (tf.shape(x)[0], tf.shape(x)[1], self.heads, size)), (0, 2, 1, 3))

    def __call__(
        self, x_query: tf.Tensor, x_key: tf.Tensor, x_value: tf.Tensor, mask: tf.Tensor
    ) -> tf.Tensor:  # [B, S, H] three times, [B, 1, 1, S] -> [B, S, H]
        quantize, scope = self.settings.quantization, self.scope
        query, key, value = self.query(x_query), self.key(x_key), self.value(x_value)
        (query,) = quantize(query, [f"{scope}/matmul_q_input_quantizer"])
        (key,) = quantize(key, [f"{scope}/matmul_k_input_quantizer"])
        (value,) = quantize(value, [f"{scope}/matmul_v_input_quantizer"])
        query, key, value = self.split_heads(query), self.split_heads(key), self.split_heads(value)
        context = self.attend(query, key, value, mask)
        return tf.reshape(tf.transpose(context, (0, 2, 1, 3)), tf.shape(x_query))

    def attend(
        self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask: tf.Tensor
    ) -> tf.Tensor:  # [B, A, S, D] three times -> [B, A, S, D]
        quantize, scope = self.settings.quantization, self.scope
        scores = self.settings.matmul(query, key, transpose_b=True)  # [B, A, S, S]
        scores = quantize.scaled(scores, [f"{scope}/matmul_q_input_quantizer", f"{scope}/matmul_k_input_quantizer"])
        (scores,) = quantize(scores, [f"{scope}/softmax_input_quantizer"], (2, 3))
        scores = scores * (1.0 / math.sqrt(query.shape[-1])) + mask
        probabilities = self.settings.precisely(lambda x: tf.nn.softmax(x, -1), scores)
        probabilities = self.settings.dropout(probabilities, self.rate)
        (probabilities,) = quantize(probabilities, [f"{scope}/matmul_a_input_quantizer"], (2, 3))
        operands = [f"{scope}/matmul_a_input_quantizer", f"{scope}/matmul_v_input_quantizer"]
        if all(operand in quantize.quantizers for operand in operands):
            context = self.settings.matmul(probabilities, value)
        else:  # no product of integers, but what follows may be rounded to some
            context = self.settings.precisely(self.settings.matmul, probabilities, value)
        return quantize.scaled(context, operands)


class AddNorm(tf.Module):
    """Dense, dropout, residual addition and LayerNorm: the end of each half of a layer."""

    def __init__(self, inputs: int, config: BertConfig, scope: str, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings, self.rate = scope, settings, config.hidden_dropout_prob
        self.dense = Dense(inputs, config.hidden_size, f"{scope}/dense", settings)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps, f"{scope}/LayerNorm", settings)

    def __call__(self, x: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:  # [B, S, in], [B, S, H] -> [B, S, H]
        quantize = self.settings.quantization
        (x,) = quantize(x, [f"{self.scope}/dense/input_quantizer"])
        local = self.settings.dropout(self.dense(x), self.rate)
        (local,) = quantize(local, [f"{self.scope}/add_local_input_quantizer"])
        (total,) = quantize(local + residual, [f"{self.scope}/layernorm_input_quantizer"])
        return self.norm(total)


class EncoderLayer(tf.Module):
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

    def __call__(self, x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:  # [B, S, H] -> [B, S, H]
        quantize, scope = self.settings.quantization, self.scope
        consumers = [f"{scope}/attention/self/{name}/input_quantizer" for name in ("query", "key", "value")]
        *x_qkv, residual = quantize(x, [*consumers, f"{scope}/attention/output/add_residual_input_quantizer"])
        x = self.attention_output(self.attention(*x_qkv, mask), residual)
        x, residual = quantize(
            x, [f"{scope}/intermediate/dense/input_quantizer", f"{scope}/output/add_residual_input_quantizer"]
        )
        return self.output(self.settings.precisely(self.activation, self.intermediate(x)), residual)


class Bert(tf.Module):
    """Embeddings and encoder: the last layer's output."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = Embeddings(config, settings)
        self.layers = [
            EncoderLayer(config, f"bert/encoder/layer_{i}", settings) for i in range(config.num_hidden_layers)
        ]

    def __call__(
        self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
    ) -> tf.Tensor:  # int [B, S] three times -> [B, S, H]
        self.settings.dropout_sites = 0
        x = self.embeddings(input_ids, segment_ids)
        mask = (1.0 - tf.cast(input_mask[:, None, None, :], tf.float32)) * MASK_VALUE  # [B, 1, 1, S]
        for layer in self.layers:
            x = layer(x, mask)
        (x,) = self.settings.quantization(x, ["bert/final_input_quantizer"])
        return x


class Pooler(tf.Module):
    """The first token's output through a dense layer and tanh."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings = "bert/pooler", settings
        self.dense = Dense(config.hidden_size, config.hidden_size, f"{self.scope}/dense", settings)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:  # [B, S, H] -> [B, H]
        (first,) = self.settings.quantization(x[:, :1], [f"{self.scope}/dense/input_quantizer"])
        return self.settings.precisely(tf.tanh, self.dense(first))[:, 0]


class Logits(tf.Module):
    """The last layer of a head: x @ output_weights^T + output_bias, in float32 also in half precision."""

    def __init__(self, size: int, outputs: int, scope: str, settings: Settings) -> None:
        super().__init__()
        self.scope, self.settings = scope, settings
        self.output_weights = empty(outputs, size)
        self.output_bias = empty(outputs)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:  # [B, S, H] -> [B, S, outputs]
        quantize = self.settings.quantization
        operands = [f"{self.scope}/output_{name}_quantizer".lstrip("/") for name in ("input", "weights")]
        (x,) = quantize(x, operands[:1])
        weights = quantize.weight(self.output_weights, operands[1])
        return quantize.scaled(tf.einsum("bsh,lh->bsl", x, weights), operands) + self.output_bias


class QuestionAnswering(tf.Module):
    """BERT with the span head: a start and an end logit for every position."""

    def __init__(self, config: BertConfig, settings: Settings) -> None:
        super().__init__()
        self.bert = Bert(config, settings)
        self.logits = Logits(config.hidden_size, 2, "cls/squad", settings)

    def __call__(
        self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:  # -> start logits and end logits, [B, S] each
        logits = self.logits(self.bert(input_ids, input_mask, segment_ids))  # [B, S, 2]
        return logits[..., 0], logits[..., 1]


class Classification(tf.Module):
    """BERT with the sentence head: from the first token, pooled, a logit for every class (or the one value wanted)."""

    def __init__(self, config: BertConfig, settings: Settings, num_labels: int) -> None:
        super().__init__()
        self.bert = Bert(config, settings)
        self.pooler = Pooler(config, settings)
        self.settings, self.rate = settings, config.hidden_dropout_prob
        self.logits = Logits(config.hidden_size, num_labels, "", settings)

    def __call__(
        self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
    ) -> tuple[tf.Tensor]:  # -> logits, [B, num_labels]
        x = self.settings.dropout(self.pooler(self.bert(input_ids, input_mask, segment_ids)), self.rate)
        return (self.logits(x[:, None])[:, 0],)


def parameters_by_name(model: tf.Module) -> dict[str, tf.Variable]:
    """Every parameter by canonical name, in the model's order."""
    return {
        f"{module.scope}/{name}".lstrip("/"): variable
        for module in (model, *model.submodules)
        for name, variable in vars(module).items()
        if isinstance(variable, tf.Variable)
    }


def build_model(config: BertConfig, head: str, num_labels: int | None, settings: Settings) -> tf.Module:
    """The model of that head; its outputs are in the order of `backends.base.OUTPUT_NAMES`."""
    if head == CLASSIFICATION:
        return Classification(config, settings, num_labels)
    return QuestionAnswering(config, settings)
