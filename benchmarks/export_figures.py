"""The figures that the exported models are to reach, computed from one run's times."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.export_models import STATIC, our_name
from benchmarks.export_openvino_peers import NNCF, SIGNED
from benchmarks.int8_peak import Peak
from benchmarks.turns import FLOAT, ONNXRUNTIME, TORCH, Timings, fastest, times_faster
from checkpoints.config import BertConfig

FAST_MODES = ("ft1", "ort")
INTEGER_MODES = ("ft2", "ft3")
FP32_BOUND = 3.4  # on a CPU with VNNI, whose int8 peak is four times that of fp32; without VNNI it is two times
QUANTIZER_BOUNDS = {"1x128": 1.13, "1x384": 1.25, "8x128": 1.18}
SLOWEST_PORTABLE = 1.12


@dataclass(frozen=True)
class Figure:
    """One comparison: `value` times as fast as, or a share; `bound` is the least it is to be, None where none is set.

    cpu_value: the same by CPU time, which other work on the machine moves less. reached: of `value`, by the clock; None
    where there is no bound.
    """

    batch: str
    what: str
    value: float
    cpu_value: float
    bound: float | None = None

    @property
    def reached(self) -> bool | None:
        return None if self.bound is None else self.value >= self.bound

    def __str__(self) -> str:
        verdict = {True: "reached", False: "NOT REACHED", None: "no bound here"}[self.reached]
        bound = "" if self.bound is None else f" (at least {self.bound:.2f})"
        values = f"{self.value:5.2f}{bound:16} CPU time: {self.cpu_value:5.2f}"
        return f"  {self.batch:6} {self.what:74} {values}  {verdict}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reached": self.reached}


def speed_figures(batch: str, timings: Timings, vnni: bool) -> list[Figure]:
    """Every figure about speed whose models were measured.

    Args:
        batch: "rows x positions" as "8x128". vnni: whether this CPU has it.
    """
    figures = []

    def compare(ours: str, peer: str | None, bound: float | None, of: str = "") -> None:
        if ours in timings and peer is not None and peer in timings:
            what = f"{ours} / {of}{peer}"
            ratios = (times_faster(timings[ours], timings[peer], kind) for kind in ("wall", "cpu"))
            figures.append(Figure(batch, what, *ratios, bound))

    for mode in FAST_MODES:
        ours = our_name(mode)
        compare(ours, fastest(timings, FLOAT), FP32_BOUND if vnni else None, "fastest fp32: ")
        compare(ours, fastest(timings, ONNXRUNTIME), QUANTIZER_BOUNDS.get(batch), "fastest quantizer: ")
        for peer in (name for name, timing in timings.items() if timing.group == TORCH):
            compare(ours, peer, 1.0)
        compare(ours, NNCF, 1.0)
    compare(SIGNED, NNCF, 1.0)
    for mode in INTEGER_MODES:
        compare(our_name(mode), STATIC, 1.0)
    for mode in (*FAST_MODES, *INTEGER_MODES):
        compare(our_name(mode, portable=True), our_name(mode), 1 / SLOWEST_PORTABLE)
    return figures


def peak_figures(batch: str, timings: Timings, config: BertConfig, peak: Peak, names: Sequence[str]) -> list[Figure]:
    """The share of the CPU's int8 peak that each model reaches, its products' operations by its whole time."""
    rows, positions = (int(number) for number in batch.split("x"))
    operations = product_operations(config, rows, positions)
    figures = []
    for name in names:
        if name in timings:
            shares = (operations / (timings[name].median(kind) * 1e6) / peak.int8 for kind in ("wall", "cpu"))
            figures.append(Figure(batch, f"{name}: share of the int8 peak", *shares))
    return figures


def product_operations(config: BertConfig, rows: int, positions: int) -> int:
    """Operations of the encoder's products, linear layers and attention; multiplication and addition are two."""
    hidden, inner = config.hidden_size, config.intermediate_size
    linear = 2 * rows * positions * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 2 * 2 * rows * positions * positions * hidden
    return config.num_hidden_layers * (linear + attention)


def summary(figures: Sequence[Figure]) -> Mapping[str, int]:
    """How many were reached, not reached, and had no bound."""
    return {
        "reached": sum(figure.reached is True for figure in figures),
        "not reached": sum(figure.reached is False for figure in figures),
        "no bound here": sum(figure.reached is None for figure in figures),
    }
