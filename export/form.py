"""How products and quantizers are written as ONNX nodes: the base form, standard operators in float32.

A form is what differs between precisions and targets; graph.py writes the same BERT with each. A tensor that is to be
multiplied is an Operand: its form decides whether the nodes between quantizer and product move integers or reals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.builder import GraphBuilder
from export.grids import Grid


@dataclass(frozen=True)
class Operand:
    """A tensor on its way into a product: real numbers, or the integers of a grid with their zero point.

    `name` is the tensor; `scale` and `zero_point` name constants, and are empty where the tensor is real.
    """

    name: str
    grid: Grid | None = None
    scale: str = ""
    zero_point: str = ""


class Form:
    """Float32 with standard operators: tensors with a grid are rounded to it by QuantizeLinear and DequantizeLinear.

    `flat`: hidden states are [batch * positions, hidden], so a product and its bias are one Gemm; else they are
    [batch, positions, hidden].
    """

    flat = True
    unsigned_zero = True  # symmetric signed integers q are stored as uint8 q + 128, which is what x86 multiplies fast

    def __init__(self, builder: GraphBuilder, tensors: Mapping[str, np.ndarray], grids: Mapping[str, Grid]) -> None:
        """tensors: the checkpoint's by canonical name; grids: of the enabled quantizers by scope."""
        self.builder, self.tensors, self.grids = builder, tensors, grids
        self._quantized: dict[tuple, Operand] = {}

    def operand(self, x: str, scope: str) -> Operand:
        """The tensor x as an operand, rounded by its quantizer `scope` where that is on."""
        return Operand(self.fake_quantize(x, scope))

    def fake_quantize(self, x: str, scope: str) -> str:
        """The tensor x rounded by the quantizer `scope`, float32; x itself where that is off."""
        return self.real(self.quantize(x, scope), scope) if scope in self.grids else x

    def dense(self, x: Operand, scope: str) -> str:
        """x @ kernel + bias of the layer `scope`, float32; the product is rounded in between where its quantizer is on.

        A kernel with a grid is stored as the real numbers that its integers stand for.
        """
        kernel = self.builder.constant(f"{scope}/kernel", self._real_kernel(scope))
        return self.add_bias(x.name, kernel, scope)

    def add_bias(self, x: str, kernel: str, scope: str) -> str:
        """The nodes x @ kernel + bias, all real."""
        bias = self.builder.constant(f"{scope}/bias", self.tensors[f"{scope}/bias"])
        aftergemm = f"{scope}/aftergemm_quantizer"
        if self.flat and aftergemm not in self.grids:
            return self.builder.node("Gemm", [x, kernel, bias], f"{scope}/Gemm")
        product = self.builder.node("MatMul", [x, kernel], f"{scope}/MatMul")
        return self.builder.node("Add", [self.fake_quantize(product, aftergemm), bias], f"{scope}/Add")

    def product(self, a: Operand, b: Operand, name: str, factor: float = 1.0) -> str:
        """factor * (a @ b), float32; both are activations."""
        product = self.builder.node("MatMul", [a.name, b.name], f"{name}/MatMul")
        if factor == 1.0:
            return product
        return self.builder.node(
            "Mul", [product, self.builder.constant(f"{name}/factor", np.float32(factor))], f"{name}/Mul"
        )

    def rounded_product(self, a: Operand, b: Operand, name: str, scope: str) -> Operand:
        """a @ b as an operand, rounded by the quantizer `scope` where that is on."""
        return self.operand(self.product(a, b, name), scope)

    def activation(self, x: str, function: str, name: str) -> str:
        """The activation function of `checkpoints.config.BertConfig.activation`, from operators of opset 17."""
        node, number = (
            self.builder.node,
            lambda label, value: self.builder.constant(f"{name}/{label}", np.float32(value)),
        )
        if function == "relu":
            return node("Relu", [x], f"{name}/Relu")
        if function == "tanh":
            return node("Tanh", [x], f"{name}/Tanh")
        if function == "silu":
            return node("Mul", [x, node("Sigmoid", [x], f"{name}/Sigmoid")], f"{name}/silu")
        one, half = number("one", 1.0), number("half", 0.5)
        if function == "gelu":
            # In the shape that onnxruntime, OpenVINO and TensorRT know as GELU and compute in one pass.
            inner = node("Erf", [node("Div", [x, number("sqrt2", np.sqrt(2.0))], f"{name}/Div")], f"{name}/Erf")
        else:
            cube = node("Pow", [x, number("three", 3.0)], f"{name}/Pow")
            cube = node("Mul", [cube, number("cubic", 0.044715)], f"{name}/cubic_term")
            scaled = node(
                "Mul", [node("Add", [x, cube], f"{name}/sum"), number("scale", np.sqrt(2 / np.pi))], f"{name}/scaled"
            )
            inner = node("Tanh", [scaled], f"{name}/Tanh")
        inner = node("Add", [inner, one], f"{name}/Add")
        return node("Mul", [node("Mul", [x, inner], f"{name}/Mul"), half], f"{name}/gelu")

    def move(self, operator: str, x: Operand, more: Sequence[str], name: str, **attributes) -> Operand:
        """An operator that moves elements without changing them (Reshape, Transpose), on what the operand holds."""
        return replace(x, name=self.builder.node(operator, [x.name, *more], name, **attributes))

    def quantize(self, x: str, scope: str, signed_bytes: bool = False) -> Operand:
        """The integers of x on the grid of `scope`; equal quantizers of one tensor share one node.

        Args:
            signed_bytes: store symmetric integers as int8 with zero point 0 although the form prefers uint8.
        """
        grid = self.grids[scope]
        unsigned = self.unsigned_zero and not signed_bytes
        key = (x, grid.settings, grid.amax.tobytes(), unsigned)
        if key not in self._quantized:
            zero_point: np.int8 | np.uint8 = np.int8(0)
            if not grid.signed:
                zero_point = np.uint8(0)
            elif unsigned:
                zero_point = np.uint8(128)
            scale = self.builder.constant(f"{scope}/scale", grid.scale)
            zero = self.builder.constant(f"{scope}/zero_point", zero_point)
            clipped = x if grid.fills_int8 else self._clip(x, scope, grid)
            name = self.builder.node("QuantizeLinear", [clipped, scale, zero], f"{scope}/QuantizeLinear")
            self._quantized[key] = Operand(name, grid, scale, zero)
        return self._quantized[key]

    def dequantize(self, x: Operand, name: str, factor: float = 1.0) -> str:
        """factor times the real numbers that an operand's integers stand for."""
        scale = x.scale
        if factor != 1.0 and x.grid is not None:
            scale = self.builder.constant(f"{name}/scale", np.float32(x.grid.scale * np.float32(factor)))
        return self.builder.node("DequantizeLinear", [x.name, scale, x.zero_point], name)

    def real(self, x: Operand, name: str) -> str:
        """An operand as a float32 tensor."""
        return x.name if x.grid is None else self.dequantize(x, f"{name}/DequantizeLinear")

    def scaled(self, x: Operand, name: str, factor: float) -> str:
        """factor times an operand, float32."""
        number = self.builder.constant(f"{name}/factor", np.float32(factor))
        return self.builder.node("Mul", [self.real(x, name), number], f"{name}/Mul")

    def _clip(self, x: str, scope: str, grid: Grid) -> str:
        # Not Clip: onnxruntime would fuse it into a Gemm before it, and that Gemm then runs in float32.
        low, high = (
            self.builder.constant(f"{scope}/{name}", bound)
            for name, bound in zip(("low", "high"), grid.bounds, strict=True)
        )
        return self.builder.node("Min", [self.builder.node("Max", [x, low], f"{scope}/Max"), high], f"{scope}/Min")

    def _real_kernel(self, scope: str) -> np.ndarray:
        kernel, grid = self.tensors[f"{scope}/kernel"], self.grids.get(f"{scope}/kernel_quantizer")
        return kernel if grid is None else grid.rounded(kernel)
