"""AdamW as google-research/bert trains, in PyTorch: no bias correction, decoupled decay, global-norm clipping."""

from collections.abc import Mapping

import numpy as np
import torch

from backends.base import OptimizerSettings, decays, optimizer_slots

# PyTorch's AdamW divides by 1 - beta**step. From this step on the float64 power is 0, so the division is by 1: no bias
# correction, and the fused kernel (one pass over memory) can be used.
NO_BIAS_CORRECTION = 1e6


class AdamW:
    """The update of all parameters, and its state as arrays by name."""

    def __init__(self, parameters: dict[str, torch.Tensor], settings: OptimizerSettings) -> None:
        """parameters: trainable tensors by canonical name, in a fixed order."""
        self.parameters = parameters
        self.settings = settings
        groups = [
            {"params": [p for name, p in parameters.items() if decays(name)], "weight_decay": settings.weight_decay},
            {"params": [p for name, p in parameters.items() if not decays(name)], "weight_decay": 0.0},
        ]
        betas = (settings.beta1, settings.beta2)
        self.adam = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings.epsilon, fused=True)
        for parameter in parameters.values():
            self.adam.state[parameter] = {
                "step": torch.tensor(NO_BIAS_CORRECTION, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def apply(self, gradients: list[torch.Tensor], learning_rate: float) -> bool:
        """Clips the gradients (in place) to the global norm and updates; False, without an update, if not finite."""
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            return False
        limit = self.settings.max_grad_norm
        torch._foreach_mul_(gradients, limit / torch.clamp(norm, min=limit))
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
            self.adam.state[parameter]["step"].fill_(NO_BIAS_CORRECTION)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return True

    def state(self) -> dict[str, np.ndarray]:
        """`<name>/adam_m` and `<name>/adam_v`, float32, in the parameter's own layout."""
        arrays = {}
        for name, parameter in self.parameters.items():
            slots = self.adam.state[parameter]
            arrays[f"{name}/adam_m"] = slots["exp_avg"].cpu().numpy().copy()
            arrays[f"{name}/adam_v"] = slots["exp_avg_sq"].cpu().numpy().copy()
        return arrays

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what `state` gave; UserError where an array is missing or of another shape."""
        for name, parameter in self.parameters.items():
            slots = self.adam.state[parameter]
            first, second = optimizer_slots(arrays, name, parameter.shape)
            slots["exp_avg"].copy_(torch.from_numpy(np.ascontiguousarray(first)))
            slots["exp_avg_sq"].copy_(torch.from_numpy(np.ascontiguousarray(second)))
