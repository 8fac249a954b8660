"""The int8 form of OpenVINO and TensorRT: QuantizeLinear and DequantizeLinear pairs on both operands of every product,
symmetric int8 with zero point 0, standard operators, hidden states of three axes."""

import numpy as np

from export.form import Form, Operand


class SignedForm(Form):
    """Activations are rounded in place by a pair; weights are int8 behind a DequantizeLinear."""

    flat = False
    unsigned_zero = False

    def dense(self, x: Operand, scope: str) -> str:
        grid = self.grids.get(f"{scope}/kernel_quantizer")
        if grid is None:
            return super().dense(x, scope)
        kernel = self.builder.constant(f"{scope}/kernel", grid.integers(self.tensors[f"{scope}/kernel"]))
        scale = self.builder.constant(f"{scope}/kernel/scale", grid.scale)
        zero = self.builder.constant(f"{scope}/kernel/zero_point", np.zeros(grid.scale.shape, np.int8))
        name = f"{scope}/kernel/DequantizeLinear"
        # The axis means nothing beside a single scale.
        kernel = self.builder.node("DequantizeLinear", [kernel, scale, zero], name, axis=1)
        return self.add_bias(x.name, kernel, scope)
