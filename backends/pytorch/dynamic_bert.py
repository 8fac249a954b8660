"""BERT's encoder for dynamic int8 prediction: int8 linear layers, everything else float32.

The same computation as model.py's without its quantizers. Queries, keys and values come from one product, so that
their common input is quantized once. B = batch, S = positions, H = hidden size, A = heads, D = H / A, F = intermediate.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from backends.base import MASK_VALUE
from backends.pytorch.dynamic_rows import activate_within, attend_within
from backends.pytorch.model import Embeddings, LayerNorm, activation_function
from checkpoints.config import BertConfig

Function = Callable[[torch.Tensor], torch.Tensor]
MakeLinear = Callable[[Sequence[str]], Function]
"""From the scopes of dense layers that see the same input to one int8 layer, [..., in] -> [..., sum of out]."""


class DynamicLayer(nn.Module):
    """One transformer layer; `norms` are those of model.py's layer."""

    def __init__(self, scope: str, make: MakeLinear, norms: tuple[LayerNorm, LayerNorm]) -> None:
        super().__init__()
        self.query_key_value = make([f"{scope}/attention/self/{name}" for name in ("query", "key", "value")])
        self.attention_output = make([f"{scope}/attention/output/dense"])
        self.intermediate = make([f"{scope}/intermediate/dense"])
        self.output = make([f"{scope}/output/dense"])
        self.attention_norm, self.output_norm = norms

    def forward(self, x: torch.Tensor, attend: Function, activate: Function) -> torch.Tensor:  # [..., H] -> [..., H]
        context = attend(self.query_key_value(x))
        x = self.attention_norm.forward(self.attention_output(context).add_(x))
        return self.output_norm.forward(self.output(activate(self.intermediate(x))).add_(x))


class DynamicBert(nn.Module):
    """Embeddings and encoder."""

    def __init__(self, config: BertConfig, embeddings: Embeddings, layers: Sequence[DynamicLayer]) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.activation = activation_function(config)
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layers)

    def forward(
        self, input_ids: torch.Tensor, input_mask: torch.Tensor, segment_ids: torch.Tensor
    ) -> torch.Tensor:  # int [B, S] three times -> [B, S, H]
        x = self.embeddings(input_ids, segment_ids)
        attend = attend_to_all(input_mask, self.heads)
        for layer in self.layers:
            x = layer(x, attend, self.activation)
        return x

    def sentences(
        self, input_ids: torch.Tensor, input_mask: torch.Tensor, segment_ids: torch.Tensor
    ) -> list[torch.Tensor]:  # int [B, S] three times -> [length, H] for every sentence
        """As `forward`, without padding, for linear layers that quantize row by row."""
        lengths = input_mask.sum(1).tolist()
        x = self.embeddings(input_ids, segment_ids)[input_mask.bool()]  # [tokens, H]
        attend, activate = attend_within(lengths, self.heads), activate_within(lengths, self.activation)
        for layer in self.layers:
            x = layer(x, attend, activate)
        return list(x.split(lengths))


def attend_to_all(input_mask: torch.Tensor, heads: int) -> Function:
    """Attention over padded sentences: a function from [B, S, 3H] to [B, S, H]."""
    mask = None
    if not bool(input_mask.all()):  # adding nothing takes time too
        mask = (1.0 - input_mask[:, None, None, :].float()) * MASK_VALUE  # [B, 1, 1, S]

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        query, key, value = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)  # [B, A, S, D] each
        return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)

    return attend


class DynamicPooler(nn.Module):
    """The first token's output through an int8 layer and tanh."""

    def __init__(self, make: MakeLinear) -> None:
        super().__init__()
        self.dense = make(["bert/pooler/dense"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, S, H] -> [B, H]
        return torch.tanh(self.dense(x[:, 0]))
