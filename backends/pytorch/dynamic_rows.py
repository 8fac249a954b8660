"""Answers that do not depend on the batch: a scale for every row of an activation, and attention without padding.

quantize_dynamic takes one range over a whole batch, so that a sentence's logits change with its neighbours, and with
their padding. Here every row (token) has its own range, which is also the finer one, and everything else is either
computed row by row or sentence by sentence, so that a sentence gets the same logits, to the bit, in every batch.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from backends.pytorch.dynamic_torch import PackedLinear

SMALL_PRODUCT = 256
"""Products of up to so many outputs get rows of padding: with AMX oneDNN 3.12 rounds them otherwise than others."""


class RowwiseLinear:
    """x @ weight + bias where every row of x is quantized by its own minimum and maximum."""

    def __init__(self, inner: PackedLinear, bias: torch.Tensor) -> None:
        """inner: the product without a bias; bias: float32 [out]."""
        self.inner, self.bias = inner, bias
        self.fewest_rows = SMALL_PRODUCT // len(bias) + 1
        self.column_sums = torch.cat([w.integers.sum(1, dtype=torch.int32) * w.scale for w in inner.weights()])  # [out]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # [rows, in] -> [rows, out]
        # x = lowest + span * y with y in [0, 1]. Every row of y reaches exactly 0 and 1, so the kernel, which takes one
        # range for all rows, always takes the same one. Products of integers are exact, and the steps after them are
        # single roundings: no element depends on another row, nor, where small products are padded, on their number.
        lowest = x.amin(-1, keepdim=True)
        span = x.amax(-1, keepdim=True).sub_(lowest)
        span.masked_fill_(span == 0.0, 1.0)
        scaled = (x - lowest).div_(span)
        missing = max(0, self.fewest_rows - len(x))
        product = self.inner(F.pad(scaled, (0, 0, 0, missing)) if missing else scaled)[: len(x)]
        return product.mul_(span).add_(lowest * self.column_sums).add_(self.bias)

    def weights(self):
        """As `PackedLinear.weights`."""
        return self.inner.weights()


def attend_within(lengths: Sequence[int], heads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Attention inside each of the sentences that follow each other in one tensor, without padding.

    Returns:
        A function from queries, keys and values float32 [tokens, 3H] to the context [tokens, H].
    """

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        contexts = []
        for part in qkv.split(lengths):
            query, key, value = part.view(1, len(part), 3, heads, -1).permute(2, 0, 3, 1, 4)  # [1, A, S, D] each
            contexts.append(F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1))
        return torch.cat(contexts)

    return attend


def activate_within(lengths: Sequence[int], activation: Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation sentence by sentence, in place.

    Vectorized functions end with some elements that are computed singly and may differ in the last bit; which ones
    those are must depend on the sentence alone.
    """

    def activate(x: torch.Tensor) -> torch.Tensor:  # [tokens, F]
        for part in x.split(lengths):
            part.copy_(activation(part))
        return x

    return activate
