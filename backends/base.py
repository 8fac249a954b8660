"""What every backend offers: a model and its optimizer, nothing else. A third backend is written from this page.

A backend knows no files, flags, epochs or ranks. Tensors cross this line as NumPy arrays under canonical names
(Google's: ``bert/encoder/layer_0/attention/self/query/kernel``, kernels [in, out]), logits and batches as NumPy too, so
that whatever is framework-free is written once, outside.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.loss_scale import LossScale
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from quantization.histogram import Observer
from quantization.modes import Mode
from twinquant.errors import UserError

Batch = Mapping[str, np.ndarray]
"""input_ids, input_mask, segment_ids: int32 [B, S], padding at the tail. In training also the labels: start_positions
and end_positions int32 [B]; or labels int32 [B] (classes); or label_values float32 [B] (regression). When distilling
also the teacher's logits under their names in OUTPUT_NAMES with the prefix "teacher_"."""

OUTPUT_NAMES = {QUESTION_ANSWERING: ("start_logits", "end_logits"), CLASSIFICATION: ("logits",)}
"""What a model of each head gives: start_logits and end_logits float32 [B, S]; logits float32 [B, num_labels]."""

MASK_VALUE = -10000.0
"""Added to attention scores (after the division by sqrt(d)) and to logits of the training loss at padding positions:
large, finite, and within float16, so that no NaN or infinity reaches a quantizer or an exported graph."""


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW as google-research/bert trains: no bias correction, decoupled decay, global-norm clipping.

    ``update = m / (sqrt(v) + epsilon) + weight_decay * w;  w -= learning_rate * update``; no decay where the tensor's
    name matches LayerNorm or bias.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class DistillationSettings:
    """Teacher-student loss on logits: ``total = hard loss + scale * KL``, at temperature T without the T^2 factor.

    ``loss`` selects the original that is followed, since the two disagree: "tf" is KL(student || teacher) of
    softmax(logits / T) + 1e-9, summed over positions and averaged over the batch; "pytorch" is KL(teacher || student)
    averaged over batch and positions, that is divided by ``sequence_length`` as well. Both sum start and end. With a
    classification head the classes take the place of the positions, in number too; of a regression the loss is the mean
    squared difference of the two outputs, without temperature.
    """

    loss: str = "tf"
    temperature: float = 3.0
    scale: float = 10000.0
    sequence_length: int = 384


@dataclass(frozen=True)
class RuntimeSettings:
    """Where and how a backend computes.

    ``device``: "auto" (a GPU when there is one), "cpu", "cuda" or "cuda:<n>". ``half``: bfloat16 matrix products on a
    CPU, float16 with dynamic loss scaling on a GPU; everything else stays float32. ``compile``: XLA in TensorFlow,
    torch.compile in PyTorch. ``dropout``: off for tests of equality. ``loss_scale``: of float16, 0 = dynamic.
    """

    device: str = "auto"
    half: bool = False
    compile: bool = False
    dropout: bool = True
    loss_scale: float = 0.0


class Backend(ABC):
    """A BERT with one head, on one device."""

    name: str
    loss_scale: LossScale

    def __init__(
        self,
        config: BertConfig,
        head: str = QUESTION_ANSWERING,
        runtime: RuntimeSettings = RuntimeSettings(),
        optimizer: OptimizerSettings = OptimizerSettings(),
        distillation: DistillationSettings | None = None,
        num_labels: int | None = None,
    ) -> None:
        """Builds the model without weights; `load` must follow.

        Args:
            num_labels: of a classification head: number of classes, 1 for a regression.
        """
        self.config = config
        self.head = head
        self.num_labels = num_labels
        self.runtime = runtime
        self.optimizer_settings = optimizer
        self.distillation = distillation

    @abstractmethod
    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets every parameter from float32 arrays by canonical name; all must be there in the right shape.

        The caller (training/initialization.py) has completed and checked the mapping. The optimizer's state and a
        dynamic loss scale begin anew.
        """

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """A copy of every parameter, float32, by canonical name, in `checkpoints.names.expected_tensors`' order."""

    @abstractmethod
    def set_quantization(self, mode: Mode | None, ranges: Mapping[str, np.ndarray], step: int = 0) -> None:
        """Turns fake quantization on (mode, ranges from `quantization.ranges.select_ranges`) or off (None, {}).

        A mode that finds its ranges in training (`Mode.learns_ranges`: q8bert) is given {} before the first training
        step, and to go on with or to predict what `ranges` gave. Every call of `train_step` then counts as one step,
        whatever its number of micro batches: the averages move with each micro batch in order, and begin anew in the
        step with which their quantizer starts. Predictions leave averages and count as they are.

        Args:
            step: how many training steps the run has done: 0, or with what a resumed one goes on. With `load`,
                `load_optimizer_state` and the ranges, the next steps are then bit-equal to an unbroken run's.

        Raises:
            UserError: a range that calibration should have found is missing, or a given one is negative or not finite.
        """

    @abstractmethod
    def ranges(self) -> dict[str, np.ndarray]:
        """The ranges that training has found so far, float32 of shape () by quantizer scope; all others are left out.

        Empty in modes whose ranges come from calibration. Weights are not among them: their range is their maximum.
        """

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """Logits without dropout, by their names in OUTPUT_NAMES. Fake-quantized if that is on.

        In a mode that finds its ranges in training every quantizer is on, also one whose start is still ahead, with the
        ranges as they are now; UserError names a quantizer that has none yet.

        Fake-quantized prediction uses exact arithmetic, so that backends agree in the integers of every layer and not
        only for equal inputs: a difference in the last bit that moves one value across a rounding border would
        otherwise be amplified layer by layer. Matrix products multiply the integers themselves, which float32 adds up
        without rounding (below 2**24) whatever the order, as an int8 engine's int32 accumulators do, and the product
        is scaled after. LayerNorm, softmax, the activation and, where its operands are not quantized, the product of
        attention probabilities and V are computed in float64 and rounded once.
        """

    @abstractmethod
    def observe(self, batch: Batch, observer: Observer, include_padding: bool) -> None:
        """Runs the float model, whatever the quantization, and shows every quantizer's input to the observer.

        Tensors that several quantizers see are shown once, with all their scopes. Weights are not shown: their range is
        their maximum. Padding positions are left out unless `include_padding`.
        """

    @abstractmethod
    def clipped_fractions(self, batch: Batch) -> dict[str, float]:
        """The share of elements with |x| above the range, 0 to 1, for every quantizer that is on in training, by scope.

        The batch goes once through the fake-quantized model as training computes it, but without dropout; padding is
        left out. Nothing of the model, its ranges, its optimizer or the random numbers of the next step changes.
        Ranges that follow their tensor's maximum cannot clip and are left out; empty while quantization is off.
        """

    @abstractmethod
    def train_step(
        self, batches: Sequence[Batch], learning_rate: float, seed: int, shares: Sequence[float] | None = None
    ) -> float:
        """One optimizer step on the mean gradient of the micro batches; returns the mean loss.

        Args:
            batches: micro batches (gradient accumulation when more than one).
            learning_rate: of this step.
            seed: of this step's dropout, in [0, 2**31).
            shares: each micro batch's weight in the mean, 1 in all over the batches of all processes; default: equal,
                in one process.

        Returns:
            The loss before the update: this process's part of the mean. A NaN or infinite loss is returned, and the
            parameters are left as they were; so they are, and `loss_scale` counts it, where only the scaled gradient
            of float16 overflows.

        Raises:
            UserError: too many steps in a row were skipped so.
        """

    @property
    @abstractmethod
    def compiles_training(self) -> bool:
        """Whether the first training step makes and optimizes a graph, and so takes many times as long as others."""

    @abstractmethod
    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Everything beside `tensors` that the next step depends on, as arrays by name: ``<tensor>/adam_m``,
        ``<tensor>/adam_v`` and, with float16, ``loss_scale``."""

    @abstractmethod
    def load_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores what `optimizer_state` gave, so that the next steps are bit-equal to an unbroken run's."""

    sum_gradients: Callable[[list], list] | None = None
    """Hook for multi-process training: given this process's gradients (framework tensors, in the order of the
    trainable parameters), weighted by their shares, returns their sum over all processes. None: one process."""

    @abstractmethod
    def set_ranges(self, ranges: Mapping[str, np.ndarray]) -> None:
        """Sets moving averages that `ranges` gave, between two steps: where several processes train, to their mean."""

    @abstractmethod
    def describe_device(self) -> str:
        """One line on the framework, device, threads and precision that are in use."""

    @property
    @abstractmethod
    def length_multiple(self) -> int:
        """What lengths of batches are rounded up to: 8 on a GPU and in half precision, whose fast products need it; 1
        in float32 on a CPU, where padding is only more to compute."""

    @abstractmethod
    def place(self) -> str:
        """The device and its products, as "cpu, float32 matrix products": elsewhere a step rounds otherwise."""


def optimizer_slots(state: Mapping[str, np.ndarray], name: str, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """`<name>/adam_m` and `<name>/adam_v` of a training state; UserError unless both are float32 of that shape."""
    slots = [np.asarray(state.get(f"{name}/adam_{slot}", ())) for slot in "mv"]
    for slot, array in zip("mv", slots, strict=True):
        if f"{name}/adam_{slot}" not in state or array.dtype != np.float32 or array.shape != tuple(shape):
            there = f"is {array.dtype} {list(array.shape)}" if f"{name}/adam_{slot}" in state else "is missing"
            raise UserError(f"{name}/adam_{slot} {there}, expected float32 {list(shape)}")
    return slots[0], slots[1]


def decays(name: str) -> bool:
    """Whether weight decay applies to the tensor of that canonical name (google-research/bert's exclusion list)."""
    return not any(part in name for part in ("LayerNorm", "layer_norm", "bias"))
