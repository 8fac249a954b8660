"""What a check found, which bounds it breaks, and how that is told."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from export.check import Comparison
from export.kernels import KernelUse
from export.settings import ExportSettings


@dataclass(frozen=True)
class Bounds:
    """What a comparison may show at most; see the flags of the same names.

    max_logit_difference: of an fp32 model. max_layer_difference: of every layer of an int8 model. min_equal_answers, in
    percent, and max_score_difference, in points of 100: of a quantized model on data. max_relative_difference: of a
    quantized model on random tokens. one_may_differ: a single different answer breaks no bound; among the few of a
    sample it says nothing of a share such as 0.1 %.
    """

    max_logit_difference: float = 1e-4
    max_layer_difference: float = 0.1
    min_equal_answers: float = 99.9
    max_score_difference: float = 0.1
    max_relative_difference: float = 2.0
    one_may_differ: bool = True


BOUNDS_ON_DATA = frozenset({"min_equal_answers", "max_score_difference"})


def bounds_in_use(precision: str, on_data: bool) -> frozenset[str]:
    """The bounds that a model of that precision is judged by, compared on data or on random tokens."""
    if precision == "fp32":
        return frozenset({"max_logit_difference"})
    used = BOUNDS_ON_DATA if on_data else frozenset({"max_relative_difference"})
    return used | {"max_layer_difference"} if precision == "int8" else used


@dataclass
class Verdict:
    """Everything that a check of one model found.

    layer_differences: see `export.layers`. file_bytes: the model's constants by type, and "graph" for the
    rest. expected_int8: how many products should run in int8. failures: one sentence each; the model passes where there
    are none. next_step: what can be done where the bounds that are broken are a matter of choice; "" else. notes: what
    the reader should know. bounds: those that it was judged by.
    """

    settings: ExportSettings
    comparison: Comparison | None = None
    layer_differences: list[float] = field(default_factory=list)
    kernels: KernelUse | None = None
    expected_int8: int = 0
    file_bytes: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    next_step: str = ""
    notes: list[str] = field(default_factory=list)
    bounds: Bounds | None = None

    def judge(self, bounds: Bounds) -> None:
        """Adds a failure for everything that is not as it should be."""
        self.bounds = bounds
        if self.kernels is not None and self.settings.target == "onnxruntime":
            self.failures += _broken_by_kernels(self.kernels, self.expected_int8)
        for layer, difference in enumerate(self.layer_differences):
            if not difference <= bounds.max_layer_difference:
                self.failures.append(
                    f"layer {layer} differs by {difference:.3f} of what quantization changes in it, "
                    f"--max_layer_difference is {bounds.max_layer_difference:g}"
                )
        if self.comparison is not None:
            broken = _broken_by_difference(self.comparison, self.settings, bounds)
            if broken and self.settings.precision != "fp32":
                self.next_step = _next_step(self.comparison, self.settings)
            self.failures += broken

    def lines(self) -> list[str]:
        """The report, for people."""
        lines = [f"model: {self.settings.describe()}"]
        if self.layer_differences:
            shares = " ".join(f"{difference:.3f}" for difference in self.layer_differences)
            lines.append(f"layers, each by itself: {shares} of what quantization changes")
        if self.comparison is not None:
            lines += _comparison_lines(self.comparison, self.settings, self.bounds)
        if self.kernels is not None:
            calls = ", ".join(f"{count} {operator}" for operator, count in sorted(self.kernels.calls.items()))
            lines.append(f"products: {calls}; {100 * self.kernels.int8_share:.2f} % of the multiplications in int8")
        sizes = ", ".join(f"{kind} {size / 1e6:.2f}" for kind, size in self.file_bytes.items() if size)
        lines.append(f"file: {sum(self.file_bytes.values()) / 1e6:.2f} MB ({sizes})")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"FAILED: {failure}" for failure in self.failures] or ["passed"]
        return [*lines, f"next: {self.next_step}"] if self.next_step else lines

    def to_dict(self) -> dict[str, Any]:
        """The report as values for JSON."""
        values: dict[str, Any] = {"model": self.settings.describe(), "passed": not self.failures}
        values["layer_differences"] = self.layer_differences
        if self.comparison is not None:
            values["comparison"] = dataclasses.asdict(self.comparison) | {
                "equal_percent": self.comparison.equal_percent,
                "score_difference": self.comparison.score_difference,
            }
        if self.kernels is not None:
            values["kernels"] = dataclasses.asdict(self.kernels) | {"int8_share": self.kernels.int8_share}
        return values | {
            "file_bytes": self.file_bytes,
            "failures": self.failures,
            "next_step": self.next_step,
            "notes": self.notes,
        }


def _broken_by_kernels(kernels: KernelUse, expected_int8: int) -> list[str]:
    broken = []
    if kernels.int8_calls < expected_int8:
        broken.append(
            f"onnxruntime runs {kernels.int8_calls} products in int8, {expected_int8} are quantized: the rest fell "
            "back to float32"
        )
    if kernels.dequantized_weights:
        broken.append(
            f"onnxruntime dequantizes {len(kernels.dequantized_weights)} stored weights on every call, such as "
            f"{kernels.dequantized_weights[0]}"
        )
    return broken


def _broken_by_difference(found: Comparison, settings: ExportSettings, bounds: Bounds) -> list[str]:
    # "not <=" and not ">", so that NaN breaks a bound.
    if settings.precision == "fp32":
        if not found.largest <= bounds.max_logit_difference:
            limit = f"--max_logit_difference is {bounds.max_logit_difference:g}"
            return [f"logits differ by up to {found.largest:.3g}, {limit}"]
        return []
    broken = []
    if found.relative is not None and not found.relative <= bounds.max_relative_difference:
        limit = f"--max_relative_difference is {bounds.max_relative_difference:g}"
        broken.append(f"logits differ by {found.relative:.2f} of {found.relative_to}, {limit}")
    if bounds.one_may_differ and found.answers - found.equal_answers == 1:
        return broken
    if not found.equal_percent >= bounds.min_equal_answers:
        limit = f"--min_equal_answers is {bounds.min_equal_answers:g}"
        broken.append(f"{found.equal_percent:.2f} % of {found.answers} answers are equal, {limit}")
    if not found.score_difference <= bounds.max_score_difference:
        limit = f"--max_score_difference is {bounds.max_score_difference:g}"
        broken.append(f"the main score differs by {found.score_difference:.3f} points, {limit}")
    return broken


def _next_step(found: Comparison, settings: ExportSettings) -> str:
    if found.relative is not None:
        return "logits of random tokens say little: check on data (--check_data of onnx, --data of check)"
    steps = ["where the scores of both are near enough, set a bound that allows it, such as --min_equal_answers=90"]
    if settings.precision == "int8":
        steps.append("`python -m export sensitivity` finds quantizers to leave in float")
    return "; ".join(["a share of more examples (--check_examples, --max_examples) is surer", *steps])


def _comparison_lines(found: Comparison, settings: ExportSettings, bounds: Bounds | None) -> list[str]:
    relative = f", mean {found.relative:.3f} of {found.relative_to}" if found.relative is not None else ""
    lines = [f"logits of {found.rows} rows: largest difference {found.largest:.3g}, mean {found.mean:.3g}{relative}"]
    if found.answers:
        different = found.answers - found.equal_answers
        line = f"answers: {different} of {found.answers} differ ({found.equal_percent:.2f} % are equal)"
        if settings.reduce_range and settings.mode is not None:
            line += " from those of the checkpoint with weights of 7 bits as well"
        lines.append(line + _bound_on_answers(settings, bounds))
    for name, score in found.model_scores.items():
        lines.append(f"{name}: {score:.4f} of the model, {found.reference_scores[name]:.4f} of the checkpoint")
    return lines


def _bound_on_answers(settings: ExportSettings, bounds: Bounds | None) -> str:
    if settings.precision == "fp32" or bounds is None or not bounds.min_equal_answers:
        return ""
    one = ", and a single one may always differ" if bounds.one_may_differ else ""
    return f"; at least {bounds.min_equal_answers:g} % must be equal{one}"
