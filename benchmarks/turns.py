"""Times of models that take turns: every round asks each of them once, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# Who made a model: what a ratio to "the fastest of ..." is taken over.
OURS, FLOAT, ONNXRUNTIME, TORCH, OPENVINO = "ours", "fp32", "onnxruntime int8", "torch int8", "openvino"


@dataclass(frozen=True)
class Runner:
    """A model that is ready: `run` makes one prediction for the batch that it was opened with."""

    name: str
    group: str
    run: Callable[[], object]


@dataclass
class Timing:
    """Milliseconds of every round, of the clock and of the processor (this process's), in the order of the rounds."""

    group: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def median(self, kind: str = "wall") -> float:
        """kind: "wall" or "cpu"."""
        return statistics.median(getattr(self, kind))


Timings = Mapping[str, Timing]


def take_turns(runners: Sequence[Runner], rounds: int) -> dict[str, Timing]:
    """Times each model once per round; two rounds before the first warm up. Every round begins with another model."""
    timings = {runner.name: Timing(runner.group) for runner in runners}
    for number in range(-2, rounds):
        start = number % len(runners)
        for runner in [*runners[start:], *runners[:start]]:
            started, started_cpu = time.perf_counter(), time.process_time()
            runner.run()
            wall, cpu = time.perf_counter() - started, time.process_time() - started_cpu
            if number >= 0:
                timings[runner.name].wall.append(1e3 * wall)
                timings[runner.name].cpu.append(1e3 * cpu)
    return timings


def times_faster(ours: Timing, peer: Timing, kind: str = "wall") -> float:
    """How many times faster `ours` is: the median over rounds of the ratio within a round.

    Within a round the two were measured seconds apart; over a whole run the machine's own speed changes more.
    """
    pairs = zip(getattr(peer, kind), getattr(ours, kind), strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def fastest(timings: Timings, *groups: str) -> str | None:
    """The name of the model of these groups with the smallest median; None where there is none."""
    names = [name for name, timing in timings.items() if timing.group in groups]
    return min(names, key=lambda name: timings[name].median(), default=None)
