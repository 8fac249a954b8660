"""PyTorch's own int8 kernels for dynamic quantization. The only file that touches quantized tensors of PyTorch.

torch.ao.quantization.quantize_dynamic packs int8 weights for one of several engines and calls
``quantized::linear_dynamic``, which takes the range of the input (minimum and maximum over the whole tensor), rounds
the input to 7 bits and multiplies integers. This file does the same by the same operators, to the bit, without
torch.ao.quantization, whose removal PyTorch announces (pytorch/ao#2259); the operators themselves are to go later
(pytorch#184982), and then this file goes with them: dynamic_torchao.py has the same functions.

7 bits: ``vpmaddubsw`` of processors without VNNI adds two products in 16 bits, which 8-bit activations overflow.
PyTorch reduces the range on every processor (reduce_range), x86 engine included, and so does this file.
"""

import functools
import logging
import platform
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch

from backends.cpu import has_int8_tiles
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")

ENGINES = ("x86", "onednn", "fbgemm", "qnnpack")
WIDE_HIDDEN_SIZE = 512


class Int8Weight(NamedTuple):
    """A kernel as the files hold it: int8 [out, in] and float32 scales, [] or [out]; weight = integers * scale."""

    integers: torch.Tensor
    scale: torch.Tensor


def quantize_weight(kernel: torch.Tensor, per_channel: bool) -> Int8Weight:
    """The integers and scales that quantize_dynamic's observers choose: symmetric, scale = max|w| / 127.5, qmin -128.

    Args:
        kernel: float32 [out, in].
        per_channel: one scale per output, else one for the whole kernel.
    """
    amax = kernel.abs().amax(1) if per_channel else kernel.abs().amax()
    scale = torch.clamp(amax / 127.5, min=torch.finfo(torch.float32).eps)
    factor = 1.0 / scale  # fbgemm multiplies by the reciprocal, and rounds half to even
    integers = torch.round(kernel * (factor[:, None] if per_channel else factor)).clamp_(-128, 127)
    return Int8Weight(integers.to(torch.int8), scale)


class PackedLinear:
    """x @ weight + bias with a packed int8 weight; several weights that see the same x are packed as one."""

    def __init__(self, weights: Sequence[Int8Weight], bias: torch.Tensor | None, engine: str) -> None:
        """weights: with the same `in`; bias: float32 [sum of out]; engine: one of `available_engines`."""
        self.sizes = [len(weight.integers) for weight in weights]
        self.per_channel = weights[0].scale.ndim == 1
        _announce_removal()
        with _quiet(), _engine(engine):
            self.packed = torch.ops.quantized.linear_prepack(_quantized_tensor(weights), bias)
        # qnnpack has no reduced range (it would only warn); its kernels widen before they add.
        self.reduce_range = engine != "qnnpack"
        self.multiply = torch.ops.quantized.linear_dynamic.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # [..., in] -> [..., out]
        return self.multiply(x, self.packed, self.reduce_range)

    def weights(self) -> list[Int8Weight]:
        """The weights as they were given, unpacked."""
        with _quiet():
            tensor, _ = torch.ops.quantized.linear_unpack(self.packed)
            integers = tensor.int_repr()
            if tensor.qscheme() == torch.per_tensor_affine:
                return [Int8Weight(integers, torch.tensor(tensor.q_scale(), dtype=torch.float32))]
            scales = tensor.q_per_channel_scales().to(torch.float32)
        pairs = zip(integers.split(self.sizes), scales.split(self.sizes), strict=True)
        return [Int8Weight(part, scale if self.per_channel else scale[0]) for part, scale in pairs]


def available_engines() -> list[str]:
    """The engines that this build of PyTorch offers on this processor."""
    return [engine for engine in ENGINES if engine in torch.backends.quantized.supported_engines]


def choose_engine(requested: str, hidden_size: int) -> str:
    """The engine to pack for; "auto" follows a rule.

    The rule: onednn on a processor with AMX, whose int8 tiles it alone uses, elsewhere from WIDE_HIDDEN_SIZE on;
    fbgemm for the rest; where that one is missing the first that is there. It is what benchmarks/dynamic.py found
    faster: with AMX MiniLM takes 20 to 37 % less time, without it is some percent. A rule and not a measurement on the
    spot, because the engines differ in the last bits, and a command should give the same logits each time on a
    processor. x86 is never chosen: for linear layers it is fbgemm.

    Raises:
        UserError: this PyTorch does not have the engine.
    """
    offered = available_engines()
    if requested == "auto":
        onednn_first = hidden_size >= WIDE_HIDDEN_SIZE or has_int8_tiles()
        preferred = ("onednn", "fbgemm") if onednn_first else ("fbgemm", "onednn")
        found = [engine for engine in (*preferred, "qnnpack") if engine in offered]
        if not found:
            raise UserError(
                "--quant_scheme dynamic: this PyTorch offers no int8 engine; --dynamic_engine torchao needs none"
            )
        return found[0]
    if requested not in offered:
        raise UserError(
            f"--quantized_engine {requested}: this PyTorch offers {', '.join(offered) or 'no engine'} on this processor"
        )
    if requested == "qnnpack" and platform.machine().lower() in ("x86_64", "amd64", "i386", "i686"):
        _warn_of_qnnpack()
    return requested


@functools.cache
def _warn_of_qnnpack() -> None:
    """Once: a run makes a model and reads it again, which chooses twice."""
    logger.warning("warning: --quantized_engine qnnpack is made for Arm; on x86 it is slower than float32")


def _quantized_tensor(weights: Sequence[Int8Weight]) -> torch.Tensor:
    """The weights one below the other as a qint8 tensor; scales per tensor are repeated where there are several."""
    if len(weights) == 1 and weights[0].scale.ndim == 0:
        return torch._make_per_tensor_quantized_tensor(weights[0].integers, float(weights[0].scale), 0)
    integers = torch.cat([weight.integers for weight in weights])
    scales = torch.cat([weight.scale.expand(len(weight.integers)) for weight in weights])
    return torch._make_per_channel_quantized_tensor(integers, scales, torch.zeros(len(scales), dtype=torch.int64), 0)


class _quiet(warnings.catch_warnings):
    """PyTorch's page-long warnings about the removal are said in one line, by `_announce_removal`."""

    def __enter__(self):
        entered = super().__enter__()
        warnings.simplefilter("ignore", category=UserWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        return entered


class _engine:
    """Packing asks a global variable of PyTorch which engine to pack for; products do not."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.before = torch.backends.quantized.engine
        torch.backends.quantized.engine = self.name

    def __exit__(self, *_) -> None:
        torch.backends.quantized.engine = self.before


@functools.cache
def _announce_removal() -> None:
    logger.info(
        "PyTorch %s announces the removal of the int8 operators used here; --dynamic_engine torchao is their successor",
        torch.__version__,
    )
