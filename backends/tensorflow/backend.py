"""The TensorFlow backend. Mirrors backends/pytorch/backend.py."""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from backends.base import OUTPUT_NAMES, Backend, Batch
from backends.cpu import half_precision_pays
from backends.loss_scale import LossScale
from backends.tensorflow.losses import distillation_loss, task_loss
from backends.tensorflow.model import Settings, build_model, parameters_by_name
from backends.tensorflow.optimizer import AdamW
from backends.tensorflow.quantizers import Quantization
from checkpoints.names import expected_tensors
from quantization.histogram import Observer
from quantization.modes import Mode
from twinquant.errors import UserError
from twinquant.words import counted


def choose_device(requested: str) -> str:
    """The device of that name; "auto" is a GPU when there is one: the first visible, which collectives.py chooses."""
    gpus = tf.config.list_logical_devices("GPU")
    if requested == "auto":
        return gpus[0].name if gpus else "/CPU:0"
    kind, _, index = requested.partition(":")
    if kind == "cpu" and index in ("", "0"):
        return "/CPU:0"
    number = int(index or 0) if (index or "0").isdigit() else -1
    if kind in ("cuda", "gpu") and 0 <= number < len(gpus):
        return gpus[number].name
    raise UserError(f"--device {requested}: TensorFlow cannot use it here (it sees the cpu and {len(gpus)} GPUs)")


def _threads() -> int:
    """The threads of an operation, as TensorFlow chooses them: OMP_NUM_THREADS is nothing to it."""
    configured = tf.config.threading.get_intra_op_parallelism_threads()
    given = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return configured or (int(given) if given.isdigit() else 0) or len(os.sched_getaffinity(0))


def on_its_device(method: Callable) -> Callable:
    """The method of a backend with the backend's device as TensorFlow's default, which is else the first GPU.

    Without it variables and operations that name no device would not be where the model is.
    """

    @functools.wraps(method)
    def wrapped(self, *arguments, **keywords):
        with tf.device(self.device):
            return method(self, *arguments, **keywords)

    return wrapped


class TensorFlowBackend(Backend):
    """See `backends.base.Backend`."""

    name = "tensorflow"

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        tf.config.experimental.enable_op_determinism()
        # TF32, a GPU's default here, keeps 10 bits of float32's 23: enough for 8-bit integers, not for products of
        # floats, from which later quantizers would then make other integers than on a CPU.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        # These two passes regroup products of constants, which moves values across rounding borders.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "constant_folding": False})
        self.device = choose_device(self.runtime.device)
        self.product_dtype = tf.float32
        if self.runtime.half and "CPU" not in self.device:
            self.product_dtype = tf.float16
        elif self.runtime.half and half_precision_pays():
            self.product_dtype = tf.bfloat16
        self.quantization = Quantization(self.device)
        self.settings = Settings(self.quantization, self.product_dtype, self.runtime.dropout)
        with tf.device(self.device):
            self.model = build_model(self.config, self.head, self.num_labels, self.settings)
        found = parameters_by_name(self.model)
        expected = expected_tensors(self.config, self.head, self.num_labels)
        self.parameters = {name: found[name] for name in expected}
        self._compile()
        self.optimizer: AdamW | None = None
        self.loss_scale = LossScale.create(self.product_dtype == tf.float16, self.runtime.loss_scale)

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        for name, variable in self.parameters.items():
            variable.assign(tensors[name])
        self.optimizer = None
        self.loss_scale = LossScale.create(self.loss_scale.used, self.runtime.loss_scale)

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: variable.numpy() for name, variable in self.parameters.items()}

    def set_quantization(self, mode: Mode | None, ranges: Mapping[str, np.ndarray], step: int = 0) -> None:
        self.quantization.configure(mode, ranges, self.config.num_hidden_layers, self.head, step)
        self._compile()  # which quantizers are on is a part of the graph

    def ranges(self) -> dict[str, np.ndarray]:
        return self.quantization.ranges()

    @on_its_device
    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        self.quantization.check_ranges()
        inputs = self._inputs(batch)
        logits = self._graph(self._predict, inputs)(inputs)
        return {name: x.numpy() for name, x in zip(OUTPUT_NAMES[self.head], logits, strict=True)}

    @on_its_device
    def observe(self, batch: Batch, observer: Observer, include_padding: bool) -> None:
        self.settings.training, self.quantization.exact = False, False
        self.quantization.observer = observer
        self.quantization.lengths = None if include_padding else batch["input_mask"].sum(1)
        try:
            # Without a graph, so that the observer sees each tensor as it is made and memory holds one layer's.
            self._logits(self._inputs(batch))
        finally:
            self.quantization.observer = None

    @on_its_device
    def clipped_fractions(self, batch: Batch) -> dict[str, float]:
        self.settings.training, self.quantization.learning, self.quantization.exact = False, False, False
        counter = self.quantization.counter = self.quantization.new_counter()
        self.quantization.lengths = batch["input_mask"].sum(1)
        try:
            self._logits(self._inputs(batch))
        finally:
            self.quantization.counter = None
        return counter.fractions()

    def set_ranges(self, ranges: Mapping[str, np.ndarray]) -> None:
        self.quantization.set_ranges(ranges)

    @on_its_device
    def train_step(
        self, batches: Sequence[Batch], learning_rate: float, seed: int, shares: Sequence[float] | None = None
    ) -> float:
        shares = shares or [1.0 / len(batches)] * len(batches)
        if self.optimizer is None:
            self.optimizer = AdamW(self.parameters, self.optimizer_settings)
        if self.quantization.begin_step():
            self._compile_gradients()
        losses, gradients = [], None
        for number, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            step_seed = tf.constant([seed, number], tf.int32)
            inputs, factor = self._inputs(batch), tf.constant(self.loss_scale.value * share, tf.float32)
            loss, new = self._graph(self._gradients, inputs, step_seed, factor)(inputs, step_seed, factor)
            losses.append(float(loss))
            gradients = new if gradients is None else [a + b for a, b in zip(gradients, new, strict=True)]
        if self.sum_gradients is not None:
            gradients = self.sum_gradients(gradients)
        if self.loss_scale.used:
            gradients = [gradient * (1.0 / self.loss_scale.value) for gradient in gradients]
        finite = self.optimizer.apply(gradients, learning_rate)
        self.quantization.end_step(finite)
        loss = sum(share * loss for share, loss in zip(shares, losses, strict=True))
        self.loss_scale.update(finite)
        if not finite and not self.loss_scale.used:
            return math.nan  # the gradient overflowed, even if the loss did not
        return loss

    @property
    def compiles_training(self) -> bool:
        return not tf.config.functions_run_eagerly()

    def optimizer_state(self) -> dict[str, np.ndarray]:
        state = {} if self.optimizer is None else self.optimizer.state()
        return state | ({"loss_scale": self.loss_scale.to_array()} if self.loss_scale.used else {})

    @on_its_device
    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.optimizer = AdamW(self.parameters, self.optimizer_settings)
        self.optimizer.load_state(state)
        self.loss_scale.from_array(state.get("loss_scale"))

    @property
    def length_multiple(self) -> int:
        return 1 if "CPU" in self.device and self.product_dtype == tf.float32 else 8

    def place(self) -> str:
        return f"{'cpu' if 'CPU' in self.device else self.device}, {self.product_dtype.name} matrix products"

    def describe_device(self) -> str:
        device, _, products = self.place().rpartition(", ")
        threads = counted(_threads(), "thread")
        return f"TensorFlow {tf.__version__} on {device}, {threads}, {products}"

    def _compile(self) -> None:
        """Makes new graphs of prediction and gradients."""
        self._predict = tf.function(self._predict_eagerly, jit_compile=self.runtime.compile)
        self._compile_gradients()

    def _compile_gradients(self) -> None:
        self._gradients = tf.function(self._gradients_eagerly, jit_compile=self.runtime.compile)

    def _graph(self, function, inputs: dict[str, tf.Tensor], *others: tf.Tensor):
        """The function's graph for inputs of these names, of any batch size and length.

        One graph from the first call on: TensorFlow would make one for the first length it sees and a general one after
        the second, and a resumed run would not go through the graphs of an unbroken one. Tracing also takes long.
        """
        if tf.config.functions_run_eagerly():  # TensorFlow's switch for debugging
            return function
        open_sizes = {name: tf.TensorSpec([None] * len(x.shape), x.dtype, name) for name, x in inputs.items()}
        # TensorFlow keeps the graph and returns it for equal specifications.
        return function.get_concrete_function(open_sizes, *others)

    def _inputs(self, batch: Batch) -> dict[str, tf.Tensor]:
        return {name: tf.constant(array) for name, array in batch.items()}

    def _logits(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        return self.model(inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])

    @on_its_device
    def _predict_eagerly(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        self.settings.training, self.quantization.learning = False, False
        # Not in half precision, whose products of integers round, or overflow (float16 ends at 65504).
        self.quantization.exact = bool(self.quantization.quantizers) and self.settings.product_dtype == tf.float32
        return self._logits(inputs)

    @on_its_device
    def _gradients_eagerly(self, inputs: dict[str, tf.Tensor], seed: tf.Tensor, loss_factor: tf.Tensor):
        """The loss, and the gradient of loss_factor * loss, dense, in the order of the parameters."""
        self.settings.training, self.quantization.learning, self.quantization.exact = True, True, False
        self.settings.seed = seed
        with tf.GradientTape() as tape:
            logits = self._logits(inputs)
            loss = task_loss(self.head, logits, inputs)
            if self.distillation is not None:
                divergence = distillation_loss(self.head, logits, inputs, self.distillation)
                loss = loss + self.distillation.scale * divergence
            scaled = loss * loss_factor
        gradients = tape.gradient(scaled, list(self.parameters.values()))
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]
