"""Latency of exported models against every way to int8 that we know of on a CPU, in one process, in turns.

python -m benchmarks.export [--shape mini|base] [--batches 1x128 8x128 1x384] [--rounds 9] [--threads 1]
                            [--peers onnxruntime optimum torch compiled openvino] [--modes ...] [--output FILE]

All models hold the same random weights. Peers that are not installed are named; `pip install '.[peers]'` and `make
optimum` install what the table can hold. With one thread no runtime has a pool of threads that could disturb another.
Ratios are medians over rounds of the ratio within a round. See docs/export_speed.md.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backends.base import Batch
from benchmarks import export_openvino_peers, export_optimum_peers, export_torch_peers
from benchmarks.export_figures import FAST_MODES, INTEGER_MODES, Figure, peak_figures, speed_figures, summary
from benchmarks.export_models import (
    open_models,
    our_models,
    our_name,
    rough_source,
    write_model,
    write_ours,
    write_plain,
)
from benchmarks.export_models import write_peers as write_onnxruntime_peers
from benchmarks.int8_peak import Peak, measure_peak
from benchmarks.steps import SHAPES, random_batch
from benchmarks.turns import FLOAT, ONNXRUNTIME, Runner, Timings, fastest, take_turns, times_faster
from checkpoints.config import BertConfig
from export.cpu import has_vnni
from export.kernels import kernel_use
from export.runtime import read_model
from export.settings import ExportSettings
from quantization.modes import MODE_NAMES, MODES
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.main import run_main

PEERS = ("onnxruntime", "optimum", "torch", "compiled", "openvino")
Open = Callable[[Batch], list[Runner]]


def open_all(config: BertConfig, folder: Path, arguments: argparse.Namespace) -> list[Open]:
    """Writes and opens every model that was asked for; says what is left out, and sizes."""
    threads, peers = arguments.threads, arguments.peers
    ours = write_ours(config, folder, arguments.modes)
    for name, path in ours.items():
        share = 100 * kernel_use(path, read_model(path)[1]).int8_share
        print(f"  {name:30} {path.stat().st_size / 1e6:7.1f} MB, {share:6.2f} % of multiplications in int8")
    models = our_models(ours)
    plain = write_plain(config, folder)
    tensors = rough_source(config, True).tensors
    torch_left_out = export_torch_peers.left_out()
    for sentence in torch_left_out if {"torch", "compiled"} & set(peers) else []:
        print(f"  left out: {sentence}")
    has_torch = not any("all peers" in sentence for sentence in torch_left_out)
    if "onnxruntime" in peers:
        traced = export_torch_peers.trace_to_onnx(config, tensors, folder / "traced.onnx") if has_torch else None
        models |= write_onnxruntime_peers(plain, config, folder, traced)
    if "optimum" in peers:
        sentences = export_optimum_peers.left_out()
        for sentence in sentences:
            print(f"  left out: {sentence}")
        models |= {} if sentences else export_optimum_peers.write_models(config, tensors, folder)
    opened = [open_models(models, threads)]
    if has_torch and {"torch", "compiled"} & set(peers):
        opened.append(export_torch_peers.open_models(config, tensors, threads, "compiled" in peers))
    if "openvino" in peers:
        sentences = export_openvino_peers.left_out()
        for sentence in sentences:
            print(f"  left out: {sentence}")
        if not sentences:
            settings = ExportSettings("int8", MODES["ft1"], target="openvino")
            signed = write_model(rough_source(config, True), settings, folder / "signed")
            opened.append(export_openvino_peers.open_models(plain, signed, config, threads))
    return opened


def measure(batch: str, config: BertConfig, opened: list[Open], rounds: int) -> Timings:
    """Times of all models for one batch."""
    rows, positions = (int(number) for number in batch.split("x"))
    data = random_batch(config, rows, positions)
    return take_turns([runner for models in opened for runner in models(data)], rounds)


def print_table(batch: str, timings: Timings, rounds: int) -> None:
    """Medians, and ratios to the fastest fp32 and to the fastest of onnxruntime's quantizers, of both clocks."""
    floating, quantizer = fastest(timings, FLOAT) or our_name("fp32"), fastest(timings, ONNXRUNTIME)
    print(f"batch {batch}, medians of {rounds} rounds, milliseconds and times as fast as A and B; then CPU time alike")
    print(f"  A: {floating}, B: {quantizer or 'no quantizer of onnxruntime was measured'}")
    for name, timing in timings.items():
        columns = []
        for kind in ("wall", "cpu"):
            ratios = [times_faster(timing, timings[peer], kind) for peer in (floating, quantizer) if peer is not None]
            columns.append(f"{timing.median(kind):9.2f} ms " + " ".join(f"{ratio:5.2f}" for ratio in ratios))
        print(f"  {name:56}" + "   ".join(columns), flush=True)


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prints everything; returns it for JSON."""
    config = SHAPES[arguments.shape][0]
    machine = {
        "cpu": cpu_name(),
        "vnni": has_vnni(),
        "cores": os.cpu_count(),
        "load_at_start": [round(value, 2) for value in os.getloadavg()],
        "onnxruntime": version("onnxruntime"),
    }
    peak = find_peak()
    size = f"{config.num_hidden_layers} layers, hidden {config.hidden_size}"
    print(f"{arguments.shape}: {size}; threads: {arguments.threads}")
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"peak: {peak or 'not measured'}")
    figures: list[Figure] = []
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        opened = open_all(config, Path(folder), arguments)
        for batch in arguments.batches:
            timings = measure(batch, config, opened, arguments.rounds)
            print_table(batch, timings, arguments.rounds)
            figures += speed_figures(batch, timings, machine["vnni"])
            if peak is not None and arguments.threads == 1:
                names = [our_name(mode) for mode in (*FAST_MODES, *INTEGER_MODES)]
                figures += peak_figures(batch, timings, config, peak, names)
            times[batch] = {
                name: {"group": timing.group, "wall_ms": timing.median(), "cpu_ms": timing.median("cpu"),
                       "fastest_wall_ms": min(timing.wall)}
                for name, timing in timings.items()
            }  # fmt: skip
    print("figures:", *figures, sep="\n")
    print(", ".join(f"{count} {what}" for what, count in summary(figures).items()))
    return {
        "machine": machine,
        "shape": arguments.shape,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "peak": vars(peak) if peak is not None else None,
        "times": times,
        "figures": [figure.to_dict() for figure in figures],
        "summary": summary(figures),
    }


def find_peak() -> Peak | None:
    """The peak; None, and why, where it cannot be measured."""
    try:
        return measure_peak()
    except UserError as error:
        print(f"left out: the share of the int8 peak: {error}")
        return None


def cpu_name() -> str:
    """As /proc/cpuinfo has it; "unknown" elsewhere than on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--batches", nargs="+", default=["1x128", "8x128", "1x384"], help="rows x positions")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=MODE_NAMES, default=list(MODE_NAMES), help="ours to measure")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        help="whom to measure against; compiled: those of torch.compile, which take minutes to compile",
    )
    parser.add_argument("--output", help="a JSON file for all numbers")
    arguments = parser.parse_args(argv)
    for batch in arguments.batches:
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", batch) or int(batch.split("x")[1]) > 512:
            raise UserError(
                f"--batches: found {batch!r}, expected rows x positions such as 8x128, at most 512 positions"
            )
    if arguments.rounds < 1 or arguments.threads < 1:
        raise UserError("--rounds and --threads must be at least 1")
    found = report(arguments)
    if arguments.output is not None:
        write_json_atomically(arguments.output, found)


if __name__ == "__main__":
    sys.exit(run_main(main, "benchmarks.export"))
