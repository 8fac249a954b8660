"""What each quantizer costs: errors of the logits and the score when one tensor alone is quantized, or all but one."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.base import Backend
from checkpoints.names import CLASSIFICATION
from quantization.modes import Mode, enabled_quantizers
from quantization.ranges import Ranges
from tasks.base import Features, PredictionSet, Task
from training.prediction import predict_all
from training.progress import Progress
from twinquant.errors import UserError

_QKV_INPUTS = tuple(f"attention/self/{name}/input_quantizer" for name in ("query", "key", "value"))


@dataclass(frozen=True)
class QuantizedTensor:
    """One tensor of one layer and the quantizers that round it: one scope, or three where Q, K and V share an input."""

    name: str
    scopes: tuple[str, ...]


@dataclass
class TensorCost:
    """What one tensor's rounding does.

    Errors are mean absolute differences of the logits to float's; score drops are points of 100 below float's. `alone`:
    nothing else is quantized; `without`: everything else is. None where that was not measured.
    """

    tensor: QuantizedTensor
    alone_error: float
    alone_drop: float
    without_error: float | None = None
    without_drop: float | None = None


def quantized_tensors(mode: Mode, num_hidden_layers: int) -> list[QuantizedTensor]:
    """The tensors that a mode quantizes, in the order of its table; query, key and value read one input."""
    scopes = list(enabled_quantizers(num_hidden_layers, mode))
    tensors = []
    for scope in scopes:
        prefix, _, ending = scope.partition("/attention/self/")
        shared = tuple(f"{prefix}/{other}" for other in _QKV_INPUTS if f"{prefix}/{other}" in scopes)
        if scope not in shared:
            tensors.append(QuantizedTensor(scope, (scope,)))
        elif scope == shared[0]:
            names = ",".join(other.split("/")[-2] for other in shared)
            name = f"{prefix}/attention/self/{{{names}}}/input_quantizer" if len(shared) > 1 else scope
            tensors.append(QuantizedTensor(name, shared))
    return tensors


class Evaluator:
    """Runs a checkpoint on one data set with any of its quantizers on, and compares with its float logits."""

    def __init__(
        self, backend: Backend, mode: Mode, ranges: Ranges, task: Task, num_hidden_layers: int, batch_size: int,
        longest: int,
    ) -> None:  # fmt: skip
        """backend: loaded, quantization off. ranges: those that the mode needs. longest: max_seq_length.

        Raises UserError where the data has no right answers.
        """
        self.backend, self.mode, self.ranges, self.task = backend, mode, ranges, task
        self.scopes = frozenset(enabled_quantizers(num_hidden_layers, mode))
        self.batch_size, self.longest = batch_size, longest
        self.sets: list[tuple[PredictionSet, Features]] = [
            (one, one.features()) for one in task.prediction_sets() if one.has_labels
        ]
        if not self.sets:
            raise UserError("the data has no right answers: sensitivity needs scores; give --data labeled examples")
        self.rows = sum(len(features) for _, features in self.sets)
        self.passes = 0
        self._float_logits = self._predict(self.scopes)
        self.float_score = self._score(self._float_logits)

    def evaluate(self, excluded: Iterable[str]) -> tuple[float, float]:
        """(error, drop) with all quantizers on but the excluded ones; see `TensorCost` for the units."""
        logits = self._predict(frozenset(excluded))
        return self._error(logits), self.float_score - self._score(logits)

    def evaluate_alone(self, scopes: Iterable[str]) -> tuple[float, float]:
        """(error, drop) with no other quantizer on than these."""
        return self.evaluate(self.scopes - frozenset(scopes))

    def _predict(self, excluded: frozenset[str]) -> list[Mapping[str, Sequence[np.ndarray]]]:
        if excluded >= self.scopes:
            self.backend.set_quantization(None, {})
        else:
            mode = dataclasses.replace(self.mode, excluded=self.mode.excluded | excluded)
            self.backend.set_quantization(mode, self.ranges)
        self.passes += 1
        return [
            predict_all(self.backend, features, self.batch_size, self.longest, quiet=True) for _, features in self.sets
        ]

    def _score(self, logits: Sequence[Mapping[str, Sequence[np.ndarray]]]) -> float:
        """The task's main score in points of 100."""
        scores: dict[str, float] = {}
        for (one, _), outputs in zip(self.sets, logits, strict=True):
            scores |= one.finish(outputs, None)
        return self.task.main_score(scores) * (100.0 if self.task.head == CLASSIFICATION else 1.0)

    def _error(self, logits: Sequence[Mapping[str, Sequence[np.ndarray]]]) -> float:
        total, count = 0.0, 0
        for (_, features), found, expected in zip(self.sets, logits, self._float_logits, strict=True):
            for name in expected:
                for ours, theirs, length in zip(found[name], expected[name], features.lengths, strict=True):
                    difference = np.abs(ours - theirs)[: None if self.task.head == CLASSIFICATION else length]
                    total, count = total + float(difference.sum(dtype=np.float64)), count + difference.size
        return total / max(count, 1)


def measure(evaluator: Evaluator, tensors: Sequence[QuantizedTensor], also_without: bool = False) -> list[TensorCost]:
    """The cost of every tensor, the largest error first; an error that is not finite comes before all."""
    costs = []
    with Progress("sensitivity", len(tensors), "tensor") as progress:
        for tensor in tensors:
            cost = TensorCost(tensor, *evaluator.evaluate_alone(tensor.scopes))
            if also_without:
                cost.without_error, cost.without_drop = evaluator.evaluate(tensor.scopes)
            costs.append(cost)
            progress.advance(note=tensor.name)
    return sorted(costs, key=lambda cost: -cost.alone_error if math.isfinite(cost.alone_error) else -math.inf)
