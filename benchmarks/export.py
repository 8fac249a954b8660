"""Latency of exported models under onnxruntime, as ratios to its fp32 and to its own quantizers' models.

python -m benchmarks.export [--shape mini|base] [--batches 1x128 8x128 1x384] [--rounds 9] [--threads 1]

All models of a shape take turns within one process; times are medians, ratios between medians. The weights are random,
the ranges rough: neither changes the speed. Peers: onnxruntime's fp32 of the plain graph (MatMul and Add), which its
own optimizer fuses, and what quantize_dynamic and quantize_static make of that graph with their best settings (uint8
activations, int8 weights per channel).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.steps import SHAPES, random_batch
from checkpoints.config import BertConfig
from checkpoints.names import QUESTION_ANSWERING
from checkpoints.value import Checkpoint
from export.commands import export_model
from export.cpu import has_vnni
from export.kernels import kernel_use
from export.metadata import Metadata
from export.runtime import model_feeds, open_session, read_model, session_options
from export.settings import ExportSettings
from export.source import Source, make_source
from quantization.calibration import weight_amax
from quantization.modes import MODES, all_quantizers
from quantization.ranges import Ranges, fuse_qkv_ranges
from training.initialization import random_checkpoint
from twinquant.main import run_main

PLAIN, DYNAMIC, STATIC = "onnxruntime fp32", "onnxruntime quantize_dynamic", "onnxruntime quantize_static"


def rough_source(config: BertConfig, per_channel: bool) -> Source:
    """A model of random weights with ranges of about the right size."""
    checkpoint = random_checkpoint(config, QUESTION_ANSWERING, seed=0)
    ranges: Ranges = {}
    for scope, row in all_quantizers(config.num_hidden_layers).items():
        if row.is_weight:
            ranges[scope] = weight_amax(checkpoint.tensors[scope.removesuffix("_quantizer")], per_channel, name=scope)
        else:
            ranges[scope] = np.float32(1.0 if "matmul_a" in scope else 4.0)
    if not per_channel:
        ranges = fuse_qkv_ranges(ranges, config.num_hidden_layers)
    return make_source(Checkpoint(checkpoint.tensors, ranges, config, "random weights"), config)


def write_models(config: BertConfig, folder: Path) -> dict[str, Path]:
    """Every model that is timed, by its name in the table."""
    paths = {PLAIN: write(rough_source(config, True), ExportSettings(target="openvino"), folder / "plain")}
    paths |= write_peers(paths[PLAIN], config, folder)
    vnni = has_vnni()
    paths["fp32"] = write(rough_source(config, True), ExportSettings(), folder / "fp32")
    for mode in MODES.values():
        source = rough_source(config, mode.per_channel)
        for portable in (False, True):
            settings = ExportSettings("int8", mode, portable=portable, reduce_range=not vnni, vnni=vnni)
            name = f"int8 {mode.name}" + (" portable" if portable else "")
            paths[name] = write(source, settings, folder / name.replace(" ", "-"))
    settings = ExportSettings("int8", MODES["ort"], int8_embeddings=True, reduce_range=not vnni, vnni=vnni)
    paths["int8 ort, int8 embeddings"] = write(rough_source(config, True), settings, folder / "embeddings")
    dynamic = ExportSettings("int8-dynamic", reduce_range=not vnni)
    return paths | {"int8-dynamic": write(rough_source(config, True), dynamic, folder / "dynamic")}


def write(source: Source, settings: ExportSettings, folder: Path) -> Path:
    export_model(source, settings, folder)
    return folder / "model.onnx"


def write_peers(plain: Path, config: BertConfig, folder: Path) -> dict[str, Path]:
    """What onnxruntime's own quantizers make of the plain graph."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        """Two batches of random tokens: enough for ranges that need not be good."""

        def __init__(self) -> None:
            self.batches = iter([model_feeds(random_batch(config, 1, 64))] * 2)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    warnings.filterwarnings("ignore")
    paths = {DYNAMIC: folder / "quantize_dynamic.onnx", STATIC: folder / "quantize_static.onnx"}
    reduce = {"per_channel": True, "reduce_range": not has_vnni()}
    quantize_dynamic(plain, paths[DYNAMIC], weight_type=QuantType.QInt8, **reduce)
    quantize_static(
        plain,
        paths[STATIC],
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        **reduce,
    )
    return paths


def open_models(paths: dict[str, Path], threads: int) -> dict:
    """Sessions as a user opens them: onnxruntime's defaults, with the number of threads."""
    sessions = {}
    for name, path in paths.items():
        options = session_options(Metadata({"target": "onnxruntime", "reduce_range": "true"}), threads)
        sessions[name] = open_session(path, options)
    return sessions


def measure(sessions: dict, feeds: dict[str, np.ndarray], rounds: int) -> dict[str, tuple[float, float]]:
    """Per model the medians of wall-clock and of CPU milliseconds; the models take turns."""
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 1):
        for name, session in sessions.items():
            started, started_cpu = time.perf_counter(), time.process_time()
            session.run(None, feeds)
            if number:  # the first round warms up
                wall[name].append(1e3 * (time.perf_counter() - started))
                cpu[name].append(1e3 * (time.process_time() - started_cpu))
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in sessions}


def report(shape: str, batches: list[str], rounds: int, threads: int) -> None:
    """Prints one table per batch."""
    config = SHAPES[shape][0]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{shape}: {config.num_hidden_layers} layers, hidden {config.hidden_size}; threads: {threads}")
    print(
        f"onnxruntime {version('onnxruntime')}, onnx {version('onnx')}; VNNI: {has_vnni()}; load at the start: {load}"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = write_models(config, Path(folder))
        for name, path in paths.items():
            if name.startswith(("int8", "fp32")):
                share = kernel_use(path, read_model(path)[1]).int8_share
                print(
                    f"  {name:28} {path.stat().st_size / 1e6:7.1f} MB, {100 * share:6.2f} % of multiplications in int8"
                )
        sessions = open_models(paths, threads)
        for batch in batches:
            rows, positions = (int(number) for number in batch.split("x"))
            times = measure(sessions, model_feeds(random_batch(config, rows, positions)), rounds)
            print(
                f"batch {rows} x {positions}, medians of {rounds} rounds; wall-clock time, then CPU time: milliseconds,"
            )
            print("  how many times faster than onnxruntime's fp32, and than the better of its two quantizers")
            for name, milliseconds in times.items():
                columns = []
                for kind, value in enumerate(milliseconds):
                    peer = min(times[DYNAMIC][kind], times[STATIC][kind])
                    columns.append(f"{value:9.2f} ms {times[PLAIN][kind] / value:5.2f} {peer / value:5.2f}")
                print(f"  {name:30}" + "   ".join(columns), flush=True)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--batches", nargs="+", default=["1x128", "8x128", "1x384"], help="rows x positions")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    report(arguments.shape, arguments.batches, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    sys.exit(run_main(main, "benchmarks.export"))
