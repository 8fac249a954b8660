"""float32 products by oneDNN, for CPUs on which PyTorch's own are slow.

PyTorch multiplies float32 matrices by Intel's MKL, which uses AVX2 alone on AMD's CPUs; oneDNN, which PyTorch brings
too, uses AVX-512 on them and needs half the time. PyTorch offers oneDNN's product of plain tensors, which its compiler
calls, as an operator without a gradient.
"""

import torch

from backends.cpu import is_amd_with_avx512


def onednn_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `OneDnnLinear` is to multiply: where it is faster, and where this PyTorch has the operator."""
    usable = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return usable and hasattr(torch.ops.mkldnn, "_linear_pointwise") and is_amd_with_avx512()


def product(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """x @ kernel^T for float32 [..., in] and [out, in]."""
    return torch.ops.mkldnn._linear_pointwise(x, kernel, None, "none", [], "")


class OneDnnLinear(torch.autograd.Function):
    """y = x @ kernel^T for float32 [..., in] and [out, in], with its gradients."""

    @staticmethod
    def forward(ctx, x, kernel):
        ctx.save_for_backward(x, kernel)
        return product(x, kernel)

    @staticmethod
    def backward(ctx, gradient):
        x, kernel = ctx.saved_tensors
        of_x = product(gradient, kernel.t()) if ctx.needs_input_grad[0] else None
        rows, outputs = x.flatten(0, -2), gradient.flatten(0, -2)
        return of_x, product(outputs.t(), rows.t()) if ctx.needs_input_grad[1] else None
