"""The shortest list of tensors to leave in float that a greedy search finds for a bound on the score's drop."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from export.sensitivity.costs import Evaluator, QuantizedTensor, TensorCost

logger = logging.getLogger("twinquant")


@dataclass(frozen=True)
class Exclusion:
    """What the search found.

    tensors: to be left in float, the most harmful first. quantized_drop, drop: points of 100 that the score loses with
    everything quantized and with the list left out; errors likewise (see `TensorCost`).
    """

    tensors: tuple[QuantizedTensor, ...]
    quantized_error: float
    quantized_drop: float
    error: float
    drop: float

    @property
    def scopes(self) -> list[str]:
        """The quantizers to be left out."""
        return [scope for tensor in self.tensors for scope in tensor.scopes]


def find_exclusion(evaluator: Evaluator, costs: Sequence[TensorCost], max_drop: float) -> Exclusion:
    """Leaves out the most harmful tensors until the score drops by at most `max_drop` points, then tries to put back.

    Greedy in the order of `costs` (largest error first). The number of tensors is found by bisection, which takes for
    granted that leaving out more does not cost score; the result is measured, not assumed. Then every tensor of the
    list, the least harmful first, is quantized again where the bound still holds.

    Leaving out everything is the float model, with a drop of 0: a bound of at least 0 is always met.
    """
    tensors = [cost.tensor for cost in costs]
    quantized_error, quantized_drop = evaluator.evaluate(())
    if quantized_drop <= max_drop:
        return Exclusion((), quantized_error, quantized_drop, quantized_error, quantized_drop)
    low, high = 0, len(tensors)  # `low` breaks the bound, `high` meets it
    found = (0.0, 0.0)
    while high - low > 1:
        middle = (low + high) // 2
        measured = evaluator.evaluate(_scopes(tensors[:middle]))
        logger.info("the %d most harmful of %d tensors in float: the score drops by %.2f", middle, len(tensors),
                    measured[1])  # fmt: skip
        if measured[1] <= max_drop:
            high, found = middle, measured
        else:
            low = middle
    kept = tensors[:high]
    for tensor in reversed(tensors[: high - 1]):  # the last one is needed, as the bisection has seen
        fewer = [other for other in kept if other is not tensor]
        measured = evaluator.evaluate(_scopes(fewer))
        if measured[1] <= max_drop:
            kept, found = fewer, measured
            logger.info("%s can be quantized all the same: the score drops by %.2f", tensor.name, measured[1])
    return Exclusion(tuple(kept), quantized_error, quantized_drop, *found)


def _scopes(tensors: Sequence[QuantizedTensor]) -> list[str]:
    return [scope for tensor in tensors for scope in tensor.scopes]
