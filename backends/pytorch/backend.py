"""The PyTorch backend. Mirrors backends/tensorflow/backend.py."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from backends.base import OUTPUT_NAMES, Backend, Batch
from backends.cpu import half_precision_pays
from backends.loss_scale import LossScale
from backends.pytorch.losses import distillation_loss, task_loss
from backends.pytorch.model import Settings, build_model, parameters_by_name
from backends.pytorch.onednn_linear import onednn_pays
from backends.pytorch.optimizer import AdamW
from backends.pytorch.quantizers import Quantization
from checkpoints.names import expected_tensors
from quantization.histogram import Observer
from quantization.modes import Mode
from twinquant.errors import UserError
from twinquant.words import counted


def choose_device(requested: str) -> torch.device:
    """The device of that name; "auto" is a GPU when there is one: the current one, which collectives.py chooses."""
    if requested == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(requested)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {requested}: PyTorch cannot use it here ({reason})") from error
    return device


class PyTorchBackend(Backend):
    """See `backends.base.Backend`."""

    name = "pytorch"

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        # TF32 keeps 10 bits of float32's 23: enough for 8-bit integers, not for products of floats, from which later
        # quantizers would then make other integers than on a CPU.
        torch.set_float32_matmul_precision("highest")
        self.device = choose_device(self.runtime.device)
        self.product_dtype = torch.float32
        if self.runtime.half and self.device.type != "cpu":
            self.product_dtype = torch.float16
        elif self.runtime.half and half_precision_pays():
            self.product_dtype = torch.bfloat16
        self.quantization = Quantization(self.device)
        # The compiler chooses its products itself.
        onednn = not self.runtime.compile and onednn_pays(self.device, self.product_dtype)
        self.settings = Settings(self.quantization, self.product_dtype, self.runtime.dropout, onednn)
        self.model = build_model(self.config, self.head, self.num_labels, self.settings).to(self.device)
        found = parameters_by_name(self.model)
        expected = expected_tensors(self.config, self.head, self.num_labels)
        self.parameters = {name: found[name] for name in expected}
        self.compute = self._compiled() if self.runtime.compile else self.model
        self.optimizer: AdamW | None = None
        self.loss_scale = LossScale.create(self.product_dtype == torch.float16, self.runtime.loss_scale)

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                array = tensors[name].T if name.endswith("/kernel") else tensors[name]
                parameter.copy_(torch.from_numpy(np.array(array, np.float32)))
        self.optimizer = None
        self.loss_scale = LossScale.create(self.loss_scale.used, self.runtime.loss_scale)

    def tensors(self) -> dict[str, np.ndarray]:
        arrays = {name: parameter.detach().cpu().numpy() for name, parameter in self.parameters.items()}
        return {name: (a.T if name.endswith("/kernel") else a).copy() for name, a in arrays.items()}

    def set_quantization(self, mode: Mode | None, ranges: Mapping[str, np.ndarray], step: int = 0) -> None:
        self.quantization.configure(mode, ranges, self.config.num_hidden_layers, self.head, step)

    def ranges(self) -> dict[str, np.ndarray]:
        return self.quantization.ranges()

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        self.quantization.check_ranges()
        self.settings.training, self.quantization.learning = False, False
        # Not in half precision, whose products of integers round, or overflow (float16 ends at 65504).
        self.quantization.exact = bool(self.quantization.quantizers) and self.settings.product_dtype == torch.float32
        with torch.inference_mode():
            logits = self._logits(self._inputs(batch))
        return {name: x.cpu().numpy() for name, x in zip(OUTPUT_NAMES[self.head], logits, strict=True)}

    def observe(self, batch: Batch, observer: Observer, include_padding: bool) -> None:
        self.settings.training, self.quantization.exact = False, False
        self.quantization.observer = observer
        self.quantization.lengths = None if include_padding else batch["input_mask"].sum(1)
        try:
            with torch.inference_mode():
                inputs = self._inputs(batch)
                self.model(inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])
        finally:
            self.quantization.observer = None

    def clipped_fractions(self, batch: Batch) -> dict[str, float]:
        self.settings.training, self.quantization.learning, self.quantization.exact = False, False, False
        counter = self.quantization.counter = self.quantization.new_counter()
        self.quantization.lengths = batch["input_mask"].sum(1)
        try:
            with torch.inference_mode():
                inputs = self._inputs(batch)
                self.model(inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])
        finally:
            self.quantization.counter = None
        return counter.fractions()

    def set_ranges(self, ranges: Mapping[str, np.ndarray]) -> None:
        self.quantization.set_ranges(ranges)

    def train_step(
        self, batches: Sequence[Batch], learning_rate: float, seed: int, shares: Sequence[float] | None = None
    ) -> float:
        shares = shares or [1.0 / len(batches)] * len(batches)
        if self.optimizer is None:
            self.optimizer = AdamW(self.parameters, self.optimizer_settings)
        self.settings.training, self.quantization.learning, self.quantization.exact = True, True, False
        self.quantization.begin_step()
        torch.manual_seed(seed)  # PyTorch's dropout draws from the global generator
        losses = [self._accumulate(self._inputs(b), share) for b, share in zip(batches, shares, strict=True)]
        gradients = [parameter.grad for parameter in self.parameters.values()]
        if self.sum_gradients is not None:
            gradients = self.sum_gradients(gradients)
        if self.loss_scale.used:
            torch._foreach_mul_(gradients, 1.0 / self.loss_scale.value)
        finite = self.optimizer.apply(gradients, learning_rate)
        self.quantization.end_step(finite)
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = sum(share * loss for share, loss in zip(shares, losses, strict=True))
        self.loss_scale.update(finite)
        if not finite and not self.loss_scale.used:
            return math.nan  # the gradient overflowed, even if the loss did not
        return loss

    @property
    def compiles_training(self) -> bool:
        return self.runtime.compile

    def optimizer_state(self) -> dict[str, np.ndarray]:
        state = {} if self.optimizer is None else self.optimizer.state()
        return state | ({"loss_scale": self.loss_scale.to_array()} if self.loss_scale.used else {})

    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.optimizer = AdamW(self.parameters, self.optimizer_settings)
        self.optimizer.load_state(state)
        self.loss_scale.from_array(state.get("loss_scale"))

    @property
    def length_multiple(self) -> int:
        return 1 if self.device.type == "cpu" and self.product_dtype == torch.float32 else 8

    def place(self) -> str:
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return f"{device}, {str(self.product_dtype).removeprefix('torch.')} matrix products"

    def describe_device(self) -> str:
        device, _, products = self.place().rpartition(", ")
        threads = counted(torch.get_num_threads(), "thread")
        return f"PyTorch {torch.__version__} on {device}, {threads}, {products}"

    def _compiled(self):
        if self.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
            raise UserError("--use_xla compiles PyTorch's model to C++: no compiler (g++) was found on the PATH")
        return torch.compile(self.model, dynamic=True)

    def _inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        arrays = {name: np.ascontiguousarray(array) for name, array in batch.items()}
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        return {name: tensor.long() if not tensor.is_floating_point() else tensor for name, tensor in tensors.items()}

    def _logits(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return self.compute(inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])

    def _accumulate(self, inputs: dict[str, torch.Tensor], share: float) -> float:
        """Adds the gradient of share * loss_scale * loss to the parameters' and returns the loss."""
        logits = self._logits(inputs)
        loss = task_loss(self.head, logits, inputs)
        if self.distillation is not None:
            divergence = distillation_loss(self.head, logits, inputs, self.distillation)
            loss = loss + self.distillation.scale * divergence
        (loss * (share * self.loss_scale.value)).backward()
        return float(loss.detach())
