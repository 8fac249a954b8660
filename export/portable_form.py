"""The int8 form in standard operators that onnxruntime turns into its int8 kernels: rank-2 Gemm with an int32 bias.

A Gemm whose three inputs are DequantizeLinear becomes QGemm with a real result. With a float bias, or as MatMul + Add,
onnxruntime would dequantize the weights on every call and multiply in float32, several times slower. Where the result
is rounded, onnxruntime lets QGemm write the integers at once.
"""

from collections.abc import Mapping

import numpy as np

from export.form import Operand
from export.grids import Grid
from export.integer_form import IntegerForm

# An int32 bias is rounded to steps of input scale * kernel scale; one coarser than this is added in float32 instead.
_COARSEST_BIAS_STEP = 2.0**-7


class PortableForm(IntegerForm):
    """DequantizeLinear -> Gemm or MatMul, with uint8 activations."""

    def integer_dense(self, x: Operand, grid: Grid, scope: str) -> str:
        scales = np.broadcast_to(grid.scale, self.tensors[f"{scope}/bias"].shape).astype(np.float32)
        real_x = self.dequantize(x, f"{scope}/input/DequantizeLinear")
        kernel = self._constant(f"{scope}/kernel", grid.integers(self.tensors[f"{scope}/kernel"]), scales)
        aftergemm = f"{scope}/aftergemm_quantizer"
        bias = None if aftergemm in self.grids else self._integer_bias(scope, x, scales)
        if bias is not None:
            return self.builder.node("Gemm", [real_x, kernel, bias], f"{scope}/Gemm")
        product = self.builder.node("Gemm", [real_x, kernel], f"{scope}/Gemm")
        bias = self.builder.constant(f"{scope}/bias", self.tensors[f"{scope}/bias"])
        return self.builder.node("Add", [self.fake_quantize(product, aftergemm), bias], f"{scope}/Add")

    def integer_product(self, a: Operand, b: Operand, name: str, factor: float) -> str:
        left = self.dequantize(a, f"{name}/a/DequantizeLinear", factor)
        right = self.dequantize(b, f"{name}/b/DequantizeLinear")
        return self.builder.node("MatMul", [left, right], f"{name}/MatMul")

    def _integer_bias(self, scope: str, x: Operand, scales: np.ndarray) -> str | None:
        assert x.grid is not None
        steps = np.float32(x.grid.scale) * scales
        integers = integer_bias(self.tensors[f"{scope}/bias"], steps)
        return None if integers is None else self._constant(f"{scope}/bias", integers, steps, axis=0)

    def _constant(self, name: str, integers: np.ndarray, scales: np.ndarray, axis: int = 1) -> str:
        """The reals that a stored tensor of integers stands for."""
        inputs = [
            self.builder.constant(name, integers),
            self.builder.constant(f"{name}/scale", scales),
            self.builder.constant(f"{name}/zero_point", np.zeros(scales.shape, integers.dtype)),
        ]
        return self.builder.node("DequantizeLinear", inputs, f"{name}/DequantizeLinear", axis=axis)


def integer_bias(bias: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
    """A bias as int32 multiples of its product's steps, one per channel; None where that is imprecise or overflows."""
    integers = np.rint(bias.astype(np.float64) / steps)
    if steps.max() > _COARSEST_BIAS_STEP or np.abs(integers).max() > 2**30:
        return None
    return integers.astype(np.int32)


def rounded_biases(tensors: Mapping[str, np.ndarray], grids: Mapping[str, Grid]) -> dict[str, np.ndarray]:
    """The tensors with their biases as a portable model holds them, for a reference of the same numbers."""
    rounded = dict(tensors)
    for scope in {name.removesuffix("/kernel_quantizer") for name in grids if name.endswith("/kernel_quantizer")}:
        if f"{scope}/input_quantizer" in grids and f"{scope}/aftergemm_quantizer" not in grids:
            scales = grids[f"{scope}/input_quantizer"].scale * grids[f"{scope}/kernel_quantizer"].scale
            steps = np.broadcast_to(scales, tensors[f"{scope}/bias"].shape).astype(np.float32)
            integers = integer_bias(tensors[f"{scope}/bias"], steps)
            if integers is not None:
                rounded[f"{scope}/bias"] = integers.astype(np.float32) * steps
    return rounded
