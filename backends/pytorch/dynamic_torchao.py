"""Dynamic quantization by torchao, PyTorch's successor of torch.ao.quantization. Mirrors dynamic_torch.py.

torchao quantizes activations symmetrically and row by row (token by token), and multiplies with ``aten::_int_mm``. That
product has fast kernels on processors with VNNI or AMX only; elsewhere it is a plain loop, many times slower than
float32.
"""

import functools
import logging
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from backends.pytorch.dynamic_torch import Int8Weight
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")


class TorchaoLinear:
    """x @ weight + bias with a torchao weight; several weights that see the same x are one."""

    def __init__(self, weights: Sequence[Int8Weight], bias: torch.Tensor) -> None:
        """weights: with the same `in`; bias: float32 [sum of out]."""
        torchao = _torchao()
        self.sizes = [len(weight.integers) for weight in weights]
        self.per_channel = weights[0].scale.ndim == 1
        integers = torch.cat([weight.integers for weight in weights])
        scale = torch.cat([weight.scale.expand(len(weight.integers)) for weight in weights])[:, None]
        self.weight = torchao.Int8Tensor(
            integers,
            scale,
            block_size=[1, integers.shape[1]],
            dtype=torch.float32,
            act_quant_kwargs=torchao.QuantizeTensorToInt8Kwargs(torchao.PerRow(), reduce_range=torchao.reduce_range),
        )
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # [..., in] -> [..., out]
        return F.linear(x, self.weight, self.bias)

    def weights(self) -> list[Int8Weight]:
        """The weights as they were given."""
        pairs = zip(self.weight.qdata.split(self.sizes), self.weight.scale[:, 0].split(self.sizes), strict=True)
        return [Int8Weight(part, scale if self.per_channel else scale[0]) for part, scale in pairs]


def quantize_weight(kernel: torch.Tensor, per_channel: bool) -> Int8Weight:
    """torchao's integers and scales of a float32 kernel [out, in]; as in dynamic_torch.py."""
    torchao = _torchao()
    granularity = torchao.PerRow() if per_channel else torchao.PerTensor()
    tensor = torchao.Int8Tensor.from_hp(kernel, granularity, reduce_range=torchao.reduce_range)
    return Int8Weight(tensor.qdata, tensor.scale.flatten() if per_channel else tensor.scale.reshape(()))


@functools.cache
def require_torchao() -> None:
    """Says, once, how slow it is here if it is; UserError where torchao is not installed."""
    if _torchao().reduce_range:
        logger.warning(
            "warning: --dynamic_engine torchao multiplies int8 by a plain loop on this processor (no VNNI), many times "
            "slower than float32; --dynamic_engine torch has a kernel for it"
        )


class _Names(NamedTuple):
    """What is used of torchao."""

    Int8Tensor: Any
    PerRow: Any
    PerTensor: Any
    QuantizeTensorToInt8Kwargs: Any
    reduce_range: bool


@functools.cache
def _torchao() -> _Names:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # at its import, about CUDA extensions that do not fit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao  # noqa: F401  by itself first, to tell its absence from another version
            from torchao.quantization import Int8Tensor, PerRow, PerTensor
            from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs
            from torchao.utils import should_reduce_range
    except ImportError as error:
        found = "not installed" if error.name == "torchao" else f"of another version ({error})"
        raise UserError(
            f"--dynamic_engine torchao: torchao is {found}; pip install '.[torchao]' installs the right one"
        ) from error
    finally:
        logging.disable(level)
    # Integers of 7 bits, weights too, where sums of products of 8 bits could overflow.
    reduce_range = should_reduce_range(torch.device("cpu"))
    return _Names(Int8Tensor, PerRow, PerTensor, QuantizeTensorToInt8Kwargs, reduce_range)
