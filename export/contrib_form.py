"""The int8 form that onnxruntime runs fastest on x86: MatMulIntegerToFloat, the bias inside, reals as results.

uint8 activations times int8 weights with one scale per channel is what its kernels are fast at; symmetric int8
activations are stored as uint8 with zero point 128, which are the same integers. Sums are int32, so that no order of
addition changes them, and the scales are applied once to a sum.
"""

import numpy as np

from export.builder import CONTRIB, GraphBuilder
from export.form import Operand
from export.grids import Grid
from export.integer_form import IntegerForm


class ContribForm(IntegerForm):
    """Operators of the domain com.microsoft where they are faster."""

    def integer_dense(self, x: Operand, grid: Grid, scope: str) -> str:
        kernel = self.builder.constant(f"{scope}/kernel", grid.integers(self.tensors[f"{scope}/kernel"]))
        scale = self.builder.constant(f"{scope}/kernel/scale", grid.scale)
        bias = self.builder.constant(f"{scope}/bias", self.tensors[f"{scope}/bias"])
        aftergemm = f"{scope}/aftergemm_quantizer"
        if aftergemm not in self.grids:
            return self._multiply(x, kernel, x.scale, scale, "", scope, bias)
        zero = self.builder.constant(f"{scope}/kernel/zero_point", np.zeros(grid.scale.shape, np.int8))
        product = self._multiply_to_integers(x, kernel, scale, zero, scope, aftergemm)
        return self.builder.node("Add", [self.real(product, aftergemm), bias], f"{scope}/Add")

    def integer_product(self, a: Operand, b: Operand, name: str, factor: float) -> str:
        scale = a.scale
        if factor != 1.0 and a.grid is not None:
            scale = self.builder.constant(f"{name}/scale", np.float32(a.grid.scale * np.float32(factor)))
        return self._multiply(a, b.name, scale, b.scale, b.zero_point, name)

    def rounded_product(self, a: Operand, b: Operand, name: str, scope: str) -> Operand:
        if a.grid is None or b.grid is None or scope not in self.grids:
            return super().rounded_product(a, b, name, scope)
        return self._multiply_to_integers(a, b.name, b.scale, b.zero_point, name, scope)

    def activation(self, x: str, function: str, name: str) -> str:
        return contrib_gelu(self.builder, x, function, name) or super().activation(x, function, name)

    def _multiply(
        self, a: Operand, b: str, a_scale: str, b_scale: str, b_zero_point: str, name: str, bias: str = ""
    ) -> str:
        """The product as reals, with a bias: the integers' sum times both scales."""
        inputs = [a.name, b, a_scale, b_scale, a.zero_point, b_zero_point, bias]
        while not inputs[-1]:
            inputs.pop()
        return self.builder.node("MatMulIntegerToFloat", inputs, f"{name}/MatMulIntegerToFloat", CONTRIB)

    def _multiply_to_integers(
        self, a: Operand, b: str, b_scale: str, b_zero_point: str, name: str, scope: str
    ) -> Operand:
        """The product on the grid of `scope`: its integers are written in the pass that multiplies."""
        grid = self.grids[scope]
        if not grid.fills_int8:
            return self.quantize(self._multiply(a, b, a.scale, b_scale, b_zero_point, name), scope)
        scale = self.builder.constant(f"{scope}/scale", grid.scale)
        zero = self.builder.constant(f"{scope}/zero_point", np.uint8(128 if grid.signed else 0))
        inputs = [a.name, a.scale, a.zero_point, b, b_scale, b_zero_point, scale, zero]
        return Operand(self.builder.node("QLinearMatMul", inputs, f"{name}/QLinearMatMul"), grid, scale, zero)


def contrib_gelu(builder: GraphBuilder, x: str, function: str, name: str) -> str | None:
    """The activation as one operator of onnxruntime's; None where it has none of its own."""
    operator = {"gelu": "Gelu", "gelu_tanh": "FastGelu"}.get(function)
    return builder.node(operator, [x], f"{name}/{operator}", CONTRIB) if operator else None
