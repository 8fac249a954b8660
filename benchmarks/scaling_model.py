"""What a training step costs on N GPUs, by arithmetic: prints the table of predictions in docs/scaling.md.

    python -m benchmarks.scaling_model [--base_step 0.060] [--large_step 0.180] [--between 10e9] ...

Nothing here is measured. The step times and rates are assumptions to be replaced by the reader's own.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from backends.collectives import Collectives
from checkpoints.config import BertConfig
from checkpoints.names import QUESTION_ANSWERING, expected_tensors
from training.schedule import number_of_steps

MODELS = {
    "BERT-base": BertConfig(30522, 768, 12, 12, 3072),
    "BERT-large": BertConfig(30522, 1024, 24, 16, 4096),
}
GPUS = (4, 8, 64, 512)
EXAMPLES, EPOCHS, BATCH_SIZE = 87599, 2.0, 8  # SQuAD 1.1; rows of a step on one GPU
BYTES = 4  # of a float32
MICRO_BATCHES = 4  # of the column that shows gradient accumulation


@dataclass(frozen=True)
class Assumptions:
    """Rates of an imagined cluster; seconds, bytes, bytes per second."""

    base_step: float = 0.060  # BERT-base on one GPU without Horovod: forward, backward, optimizer, input
    large_step: float = 0.180
    gpus_per_machine: int = 8
    inside: float = 100e9  # of one ring over NVLink
    between: float = 10e9  # of a machine's 100 Gbit/s, of which 80 % are reached
    inside_latency: float = 5e-6  # of one message
    between_latency: float = 20e-6
    operation: float = 1e-3  # Horovod's cycle and our waiting, for each bucket
    memory: float = 800e9  # of the GPU: gradients are copied into buckets
    checksum: float = 1e9  # of the equality check before a save, with the copies it needs
    write: float = 0.5e9  # of the disk, with fsync
    period: int = 1000  # steps between two saves
    bucket_mb: float = 64.0


def tensor_bytes(config: BertConfig) -> list[int]:
    """Bytes of each gradient of a SQuAD model, in the order in which they are exchanged."""
    return [BYTES * math.prod(shape) for shape in expected_tensors(config, QUESTION_ANSWERING).values()]


def bucket_bytes(sizes: Sequence[int], bucket_mb: float) -> list[int]:
    """Bytes of each bucket that the product forms of tensors of so many bytes."""
    limit = cast(Collectives, SimpleNamespace(bucket_bytes=round(bucket_mb * 2**20)))
    return [sum(sizes[run]) for run in Collectives.buckets(limit, sizes)]


def ring_seconds(size: float, ranks: int, bandwidth: float, latency: float) -> float:
    """A ring allreduce: 2(N-1) messages, one after the other, of a 1/N of the array each."""
    messages = 2 * (ranks - 1)
    return messages * (size / ranks / bandwidth + latency)


def exchange_seconds(buckets: Sequence[int], ranks: int, assumed: Assumptions, half: bool = False) -> float:
    """All buckets, one after the other: agreeing on it, the ring, and the copies into the bucket and back.

    The ring goes once through every machine, so its slowest link gives the pace: that between the machines, as soon as
    there are two. The agreement is a small allreduce over a tree. Copies: each value is read and written once
    (8 bytes); in float16 also at both conversions (20 bytes).
    """
    if ranks == 1:
        return 0.0
    one_machine = ranks <= assumed.gpus_per_machine
    bandwidth = assumed.inside if one_machine else assumed.between
    latency = assumed.inside_latency if one_machine else assumed.between_latency
    agreement = assumed.operation + 2 * math.ceil(math.log2(ranks)) * latency
    total = 0.0
    for size in buckets:
        copies = size * (5 if half else 2) / assumed.memory
        total += agreement + copies + ring_seconds(size / 2 if half else size, ranks, bandwidth, latency)
    return total


def efficiency(step: float, exchange: float, micro_batches: int = 1) -> float:
    """Examples per second on N GPUs, divided by N times those of one: no exchange is hidden behind computing."""
    return micro_batches * step / (micro_batches * step + exchange)


def save_seconds(parameters: int, assumed: Assumptions) -> float:
    """How long all ranks stand still at a checkpoint: weights and two moments are checked, then rank 0 writes them."""
    size = 3 * BYTES * parameters
    return size / assumed.checksum + size / assumed.write


def saving_share(save: float, step: float, steps: int, period: int) -> float:
    """Share of a run's time in saves: one every `period` steps and one after the last."""
    saves = math.ceil(steps / period) * save
    return saves / (steps * step + saves)


def prediction(name: str, gpus: int, assumed: Assumptions) -> dict[str, Any]:
    """One row of the table; seconds and shares by name."""
    sizes = tensor_bytes(MODELS[name])
    buckets = bucket_bytes(sizes, assumed.bucket_mb)
    step = {"BERT-base": assumed.base_step, "BERT-large": assumed.large_step}[name]
    full, half = (exchange_seconds(buckets, gpus, assumed, half) for half in (False, True))
    steps = number_of_steps(EXAMPLES, BATCH_SIZE * gpus, EPOCHS)
    save = save_seconds(sum(sizes) // BYTES, assumed)
    return {
        "model": name,
        "gpus": gpus,
        "full": full,
        "full_efficiency": efficiency(step, full),
        "half": half,
        "half_efficiency": efficiency(step, half),
        "accumulated": efficiency(step, half, MICRO_BATCHES),
        "steps": steps,
        "saving": saving_share(save, step + half, steps, assumed.period),
    }


def markdown(assumed: Assumptions) -> str:
    """The table of docs/scaling.md."""
    names = [
        "model", "GPUs", "exchange, float32", "efficiency", "exchange, float16", "efficiency",
        f"float16, {MICRO_BATCHES} micro batches", "steps of 2 epochs", "time in saves",
    ]  # fmt: skip
    lines = [names, ["---"] * len(names)]
    for name in MODELS:
        for gpus in GPUS:
            row = prediction(name, gpus, assumed)
            full, half = (f"{1000 * row[kind]:.0f} ms" for kind in ("full", "half"))
            shares = [f"{row[key]:.0%}" for key in ("full_efficiency", "half_efficiency", "accumulated", "saving")]
            lines.append([name, str(gpus), full, shares[0], half, shares[1], shares[2], str(row["steps"]), shares[3]])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    print(markdown(Assumptions(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
