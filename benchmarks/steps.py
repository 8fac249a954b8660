"""Time of a QAT step, a calibration batch and a fake-quantized prediction, as ratios to the float model's.

python -m benchmarks.steps [--backend pytorch] [--shape base|mini] [--rounds 5]

Every ratio is between medians of rounds that alternate within one process. Peers: the same backend's float step and
float prediction, and, for PyTorch, the same model with torch.ao's FakeQuantize modules in the place of our quantizers.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np

from backends import BACKEND_NAMES, create_backend
from backends.base import QUESTION_ANSWERING, Backend
from checkpoints.config import BertConfig
from quantization.histogram import Observer
from quantization.modes import MODES
from quantization.ranges import Ranges, select_ranges
from training.calibration import find_ranges
from training.initialization import random_checkpoint
from twinquant.memory import keep_freed_memory

BASE = BertConfig(30522, 768, 12, 12, 3072)
SHAPES = {
    "base": (BASE, 8, 128),
    "mini": (dataclasses.replace(BASE, hidden_size=384, num_hidden_layers=6, intermediate_size=1536), 8, 128),
}
MODE = MODES["ft2"]


def alternate(rounds: int, *functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function over rounds in which all take turns; one warm-up round is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if number:
                seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in times]


def random_batch(config: BertConfig, batch_size: int, length: int) -> dict[str, np.ndarray]:
    """Token ids without padding, so that every tensor has its full size."""
    generator = np.random.default_rng(0)
    ids = generator.integers(0, config.vocab_size, (batch_size, length)).astype(np.int32)
    batch = {"input_ids": ids, "input_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    positions = generator.integers(0, length, (2, batch_size)).astype(np.int32)
    return batch | {"start_positions": positions[0], "end_positions": positions[1]}


def use_torch_ao(backend: Backend, ranges: Ranges) -> None:
    """Puts torch.ao's FakeQuantize, with the same scales and its observer off, in the place of our quantizers."""
    import warnings

    import torch
    from torch.ao.quantization import FakeQuantize, MinMaxObserver

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for scope in backend.quantization.quantizers:
        module = FakeQuantize(
            MinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric
        )
        module.scale.fill_(float(ranges[scope]) / 127.0)
        module.disable_observer()
        module.key = (scope,)  # torch.ao's preparation quantizes each consumer's input by itself
        backend.quantization.quantizers[scope] = module


def measure(name: str, shape: str, rounds: int) -> None:
    """Prints one line per ratio."""
    config, batch_size, length = SHAPES[shape]
    tensors = random_checkpoint(config, QUESTION_ANSWERING, seed=0).tensors
    batch = random_batch(config, batch_size, length)
    inputs = {key: batch[key] for key in ("input_ids", "input_mask", "segment_ids")}

    def new() -> Backend:
        backend = create_backend(name, config)
        backend.load(tensors)
        return backend

    floating, quantized = new(), new()
    observer = Observer()
    floating.observe(inputs, observer, include_padding=False)
    found, _ = find_ranges(observer, tensors, config, MODE, "percentile", 99.99)
    ranges = select_ranges(found, tensors, MODE, "benchmark")
    quantized.set_quantization(MODE, ranges)
    print(f"{name}, {shape}: batch {batch_size} x {length}, {rounds} rounds; {floating.describe_device()}")

    def report(what: str, seconds: list[float], bound: str) -> None:
        print(f"  {what:58} {seconds[0]:7.3f} s / {seconds[1]:7.3f} s = {seconds[0] / seconds[1]:5.2f}  ({bound})")

    report(
        "calibration batch / float prediction",
        alternate(rounds, lambda: floating.observe(inputs, observer, False), lambda: floating.predict(inputs)),
        "at most 2.5",
    )
    report(
        "fake-quantized prediction / float prediction",
        alternate(rounds, lambda: quantized.predict(inputs), lambda: floating.predict(inputs)),
        "at most 2",
    )
    report(
        "QAT step / float step",
        alternate(
            rounds, lambda: quantized.train_step([batch], 1e-5, 1), lambda: floating.train_step([batch], 1e-5, 1)
        ),
        "at most 1.5",
    )
    if name == "pytorch":
        peer = floating  # reused: three models of BERT-base's size with optimizer states need not be in memory
        peer.set_quantization(MODE, ranges)
        use_torch_ao(peer, ranges)
        times = alternate(
            rounds, lambda: quantized.train_step([batch], 1e-5, 1), lambda: peer.train_step([batch], 1e-5, 1)
        )
        report("QAT step / QAT step with torch.ao's FakeQuantize", times, "at most 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKEND_NAMES)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    for name in [arguments.backend] if arguments.backend else BACKEND_NAMES:
        measure(name, arguments.shape, arguments.rounds)


if __name__ == "__main__":
    main()
