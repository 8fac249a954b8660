"""int8 without calibration: the range of every activation is found when the model runs, by DynamicQuantizeLinear.

Weights are int8 at their maximum, one scale per output channel; products of two activations stay in float32, where
onnxruntime has no fast kernel for two ranges found at run time.
"""

from collections.abc import Mapping

import numpy as np

from export.builder import CONTRIB, GraphBuilder
from export.contrib_form import contrib_gelu
from export.form import Form, Operand
from export.grids import kernel_grid


class DynamicForm(Form):
    """x @ kernel as DynamicQuantizeLinear and MatMulIntegerToFloat, or in standard operators where `portable`."""

    def __init__(
        self, builder: GraphBuilder, tensors: Mapping[str, np.ndarray], weight_bits: int = 8, portable: bool = False
    ) -> None:
        super().__init__(builder, tensors, {})
        self.weight_bits, self.portable = weight_bits, portable

    def dense(self, x: Operand, scope: str) -> str:
        grid = kernel_grid(scope, self.tensors[f"{scope}/kernel"], self.weight_bits)
        integers = self._dynamic(x)
        kernel = self.builder.constant(f"{scope}/kernel", grid.integers(self.tensors[f"{scope}/kernel"]))
        scale = self.builder.constant(f"{scope}/kernel/scale", grid.scale)
        bias = self.builder.constant(f"{scope}/bias", self.tensors[f"{scope}/bias"])
        if not self.portable:
            inputs = [integers.name, kernel, integers.scale, scale, integers.zero_point, "", bias]
            return self.builder.node("MatMulIntegerToFloat", inputs, f"{scope}/MatMulIntegerToFloat", CONTRIB)
        zero = self.builder.constant(f"{scope}/kernel/zero_point", np.zeros(grid.scale.shape, np.int8))
        node = self.builder.node
        total = node("MatMulInteger", [integers.name, kernel, integers.zero_point, zero], f"{scope}/MatMulInteger")
        both = node("Mul", [integers.scale, scale], f"{scope}/scales")
        real = node("Mul", [node("Cast", [total], f"{scope}/Cast", to=1), both], f"{scope}/Mul")
        return node("Add", [real, bias], f"{scope}/Add")

    def activation(self, x: str, function: str, name: str) -> str:
        fused = None if self.portable else contrib_gelu(self.builder, x, function, name)
        return fused or super().activation(x, function, name)

    def _dynamic(self, x: Operand) -> Operand:
        """Integers of x with scale and zero point from its own minimum and maximum, once per tensor."""
        key = (x.name,)
        if key not in self._quantized:
            names = [f"{x.name}/{part}" for part in ("integers", "scale", "zero_point")]
            node = f"{x.name}/DynamicQuantizeLinear"
            name, scale, zero = self.builder.node_with_outputs("DynamicQuantizeLinear", [x.name], node, names)
            self._quantized[key] = Operand(name, None, scale, zero)
        return self._quantized[key]
