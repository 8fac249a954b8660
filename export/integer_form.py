"""What the forms for onnxruntime's int8 kernels share: operands travel as integers, up to the product itself."""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from export.builder import GraphBuilder
from export.form import Form, Operand
from export.grids import Grid


class IntegerForm(Form):
    """Products of two quantized operands are left to the subclass; others are computed in float32."""

    def __init__(
        self,
        builder: GraphBuilder,
        tensors: Mapping[str, np.ndarray],
        grids: Mapping[str, Grid],
        signed_attention: bool = False,
    ) -> None:
        """signed_attention: K and V as int8, which is fastest with VNNI and inexact without; else as uint8, which every
        kernel multiplies exactly (and the only one that onnxruntime takes for QGemm's results)."""
        super().__init__(builder, tensors, grids)
        self.signed_attention = signed_attention

    @abstractmethod
    def integer_dense(self, x: Operand, grid: Grid, scope: str) -> str:
        """As `dense`, of integers x with a kernel that has a grid."""

    @abstractmethod
    def integer_product(self, a: Operand, b: Operand, name: str, factor: float) -> str:
        """As `product`, of two operands that are integers."""

    def operand(self, x: str, scope: str) -> Operand:
        if scope not in self.grids:
            return Operand(x)
        right = scope.endswith(("/matmul_k_input_quantizer", "/matmul_v_input_quantizer"))
        return self.quantize(x, scope, signed_bytes=right and self.signed_attention)

    def dense(self, x: Operand, scope: str) -> str:
        grid = self.grids.get(f"{scope}/kernel_quantizer")
        if grid is None or x.grid is None:
            return super().dense(Operand(self.real(x, f"{scope}/input")), scope)
        return self.integer_dense(x, grid, scope)

    def product(self, a: Operand, b: Operand, name: str, factor: float = 1.0) -> str:
        if a.grid is None or b.grid is None:
            left, right = self.real(a, f"{name}/a"), self.real(b, f"{name}/b")
            return super().product(Operand(left), Operand(right), name, factor)
        return self.integer_product(a, b, name, factor)

    def scaled(self, x: Operand, name: str, factor: float) -> str:
        if x.grid is None:
            return super().scaled(x, name, factor)
        return self.dequantize(x, f"{name}/DequantizeLinear", factor)  # one pass instead of two
