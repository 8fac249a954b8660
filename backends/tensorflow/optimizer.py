"""AdamW as google-research/bert trains, in TensorFlow: no bias correction, decoupled decay, global-norm clipping."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from backends.base import OptimizerSettings, decays, optimizer_slots


class AdamW:
    """The update of all parameters, and its state as arrays by name."""

    def __init__(self, parameters: dict[str, tf.Variable], settings: OptimizerSettings) -> None:
        """parameters: trainable variables by canonical name, in a fixed order."""
        self.parameters = parameters
        self.settings = settings
        self.exp_avg = {name: tf.Variable(tf.zeros_like(variable)) for name, variable in parameters.items()}
        self.exp_avg_sq = {name: tf.Variable(tf.zeros_like(variable)) for name, variable in parameters.items()}
        self._apply = tf.function(self._update)

    def apply(self, gradients: list[tf.Tensor], learning_rate: float) -> bool:
        """Clips the gradients to the global norm and updates; False, without an update, if not finite."""
        norm = tf.linalg.global_norm(gradients)
        if not bool(tf.math.is_finite(norm)):
            return False
        limit = self.settings.max_grad_norm
        self._apply(gradients, limit / tf.maximum(norm, limit), tf.constant(learning_rate, tf.float32))
        return True

    def _update(self, gradients: list[tf.Tensor], clip: tf.Tensor, learning_rate: tf.Tensor) -> None:
        settings = self.settings
        for (name, variable), gradient in zip(self.parameters.items(), gradients, strict=True):
            if decays(name):
                variable.assign(variable * (1.0 - learning_rate * settings.weight_decay))
            # With both powers at zero this fused kernel corrects no bias:
            # w -= learning_rate * m / (sqrt(v) + epsilon).
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self.exp_avg[name].handle,
                v=self.exp_avg_sq[name].handle,
                beta1_power=0.0,
                beta2_power=0.0,
                lr=learning_rate,
                beta1=settings.beta1,
                beta2=settings.beta2,
                epsilon=settings.epsilon,
                grad=gradient * clip,
            )

    def state(self) -> dict[str, np.ndarray]:
        """`<name>/adam_m` and `<name>/adam_v`, float32, in the variable's own layout."""
        arrays = {}
        for name in self.parameters:
            arrays[f"{name}/adam_m"] = self.exp_avg[name].numpy()
            arrays[f"{name}/adam_v"] = self.exp_avg_sq[name].numpy()
        return arrays

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores what `state` gave; UserError where an array is missing or of another shape."""
        for name, variable in self.parameters.items():
            first, second = optimizer_slots(arrays, name, variable.shape.as_list())
            self.exp_avg[name].assign(first)
            self.exp_avg_sq[name].assign(second)
