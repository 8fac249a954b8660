"""One process of benchmarks/horovod_scaling.py, which starts it: does one kind of work, round by round, when told.

An order is a file of JSON in the folder of the job; what all ranks found in a round is printed by rank 0 as one line.
Between two rounds the starter stops the process with SIGSTOP, so that another job is measured without its idle threads.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from backends import create_backend, create_collectives
from backends.base import QUESTION_ANSWERING, Backend
from benchmarks.steps import random_batch
from checkpoints.checkpoint import Checkpoint
from checkpoints.config import BertConfig
from checkpoints.names import expected_tensors
from tasks.base import Features
from tasks.squad import SquadTask
from training.initialization import random_checkpoint
from training.launch import prepare_environment
from training.loop import LoopSettings, TrainingLoop
from training.processes import ALONE, Processes
from training.saves import RunFolder
from twinquant.common_flags import MULTI_PROCESS_FLAGS
from twinquant.memory import keep_freed_memory

PREFIX = "RESULT "  # of the lines that rank 0 prints
ROWS = 512  # of the random data set
THREADS = Path("/proc/self/task")

Do = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes an order and returns what this rank found."""


def config_of(shape: str) -> BertConfig:
    """The model of a shape such as "12x768": layers x width, heads of 64, BERT's vocabulary."""
    layers, hidden = map(int, shape.split("x"))
    return BertConfig(30522, hidden, layers, max(1, hidden // 64), 4 * hidden)


class RandomFeatures(Features):
    """Rows of random tokens, all of one length."""

    def __init__(self, config: BertConfig, length: int) -> None:
        self.lengths = np.full(ROWS, length, np.int32)
        self._all = random_batch(config, ROWS, length)

    def batch(self, indexes: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        return {name: values[indexes] for name, values in self._all.items()}


class TimedFolder(RunFolder):
    """Remembers how long the last save took."""

    seconds = 0.0

    def save(self, *arguments: Any, **keywords: Any) -> Path:
        begin = time.perf_counter()
        path = super().save(*arguments, **keywords)
        self.seconds = time.perf_counter() - begin
        return path


class Model:
    """A model of a shape, and the product's training loop over random rows."""

    def __init__(self, options: dict[str, Any], shape: str, processes: Processes) -> None:
        self.options, self.config, self.processes, self.step = options, config_of(shape), processes, 0
        self.backend: Backend = create_backend(options["backend"], self.config)
        self.backend.load(random_checkpoint(self.config, QUESTION_ANSWERING, seed=0).tensors)
        self.folder = TimedFolder(Path(options["folder"], "run"), options["backend"], keep=1)
        self.folder.folder.mkdir(exist_ok=True)

    def loop(self, batch_size: int, length: int, exchange: bool = True) -> TrainingLoop:
        """Without `exchange` each rank trains a model of its own."""
        processes = self.processes if exchange else ALONE
        settings = LoopSettings(
            total_steps=2**31, batch_size=batch_size, global_batch=batch_size * processes.size, max_seq_length=length,
            pad_to_max_length=True, group_by_length=False, seed=0, save_steps=1000, epoch_rows=1,
            save_per_epoch=False, evaluate_per_epoch=False, log_steps=1000, fingerprint={},
        )  # fmt: skip
        features = RandomFeatures(self.config, length)
        return TrainingLoop(
            self.backend, features, lambda step: 1e-5, self.folder, settings, self._checkpoint, processes=processes
        )

    def seconds_of_steps(self, loop: TrainingLoop, count: int) -> float:
        """Seconds of one of `count` steps with what follows each, all ranks beginning together."""
        wait_for_all(self.processes)
        begin = time.perf_counter()
        for _ in range(count):
            loop._together(loop._step(self.step), None)
            self.step += 1
        return (time.perf_counter() - begin) / count

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.backend.tensors(), self.backend.ranges(), self.config, "benchmark")


def training(options: dict[str, Any], processes: Processes) -> Do:
    """Orders: "shape", "steps", "exchange". Finds the seconds of a step."""
    models: dict[str, Model] = {}

    def do(order: dict[str, Any]) -> dict[str, Any]:
        shape = order["shape"]
        if shape not in models:
            models[shape] = Model(options, shape, processes)
            models[shape].seconds_of_steps(models[shape].loop(1, 8), 1)  # starts and compiles
        loop = models[shape].loop(options["batch_size"], options["length"], order["exchange"])
        return {"step": models[shape].seconds_of_steps(loop, order["steps"])}

    return do


def exchange(options: dict[str, Any], processes: Processes) -> Do:
    """Orders: "shape", "compression", "bucket_mb". Finds the seconds in which the model's gradients are summed."""
    collectives = processes.collectives
    assert collectives is not None
    gradients: dict[str, list[Any]] = {}

    def do(order: dict[str, Any]) -> dict[str, Any]:
        shape = order["shape"]
        if shape not in gradients:
            generator = np.random.default_rng(processes.rank)
            shapes = expected_tensors(config_of(shape), QUESTION_ANSWERING).values()
            gradients[shape] = [_tensor(options["backend"], generator.random(s, np.float32)) for s in shapes]
        collectives.compression = order["compression"]
        collectives.bucket_bytes = round(order["bucket_mb"] * 2**20)
        wait_for_all(processes)
        begin = time.perf_counter()
        processes.sum_gradients(gradients[shape])
        seconds = time.perf_counter() - begin
        sizes = [4 * int(np.prod(gradient.shape)) for gradient in gradients[shape]]
        return {"seconds": seconds, "bytes": sum(sizes), "operations": len(collectives.buckets(sizes))}

    return do


def saving(options: dict[str, Any], processes: Processes) -> Do:
    """Orders: "steps". Finds the seconds of a step, where there are steps to do; else of the loop's save."""
    model = Model(options, options["shape"], processes)
    model.seconds_of_steps(model.loop(1, 8), 1)
    loop = model.loop(options["batch_size"], options["length"])

    def do(order: dict[str, Any]) -> dict[str, Any]:
        if order["steps"]:
            return {"step": model.seconds_of_steps(loop, order["steps"])}
        model.step += 1  # another name, so that an old checkpoint is removed as in a run
        wait_for_all(processes)
        begin = time.perf_counter()
        loop._save(model.step, 0)
        return {"save": time.perf_counter() - begin, "write": model.folder.seconds}

    return do


def features(options: dict[str, Any], processes: Processes) -> Do:
    """Orders: "cache", a new folder. Finds the CPU seconds of this rank's turn and of the whole phase.

    The turn is without the threads that were there before, such as Horovod's, which keep asking for work.
    """
    others = set(os.listdir(THREADS)) if processes.size > 1 else set()

    def do(order: dict[str, Any]) -> dict[str, Any]:
        own = 0.0
        task = SquadTask(vocab_file=options["vocab_file"], train_file=options["train_file"], cache_dir=order["cache"])

        def work() -> Features:
            nonlocal own
            begin = cpu_seconds(others)
            made = task.train_features()
            own = cpu_seconds(others) - begin
            return made

        wait_for_all(processes)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        made = processes.in_turns(work)
        cpu = time.process_time() - begin_cpu
        return {"turn": own, "phase": cpu, "seconds": time.perf_counter() - begin, "windows": len(made)}

    return do


WORKS = {"training": training, "exchange": exchange, "saving": saving, "features": features}


def wait_for_all(processes: Processes) -> None:
    """Returns when all processes have come here."""
    processes.stack(np.zeros(1), "wait")


def cpu_seconds(others: Collection[str] = ()) -> float:
    """CPU seconds so far of this process's threads, without the `others`."""
    nanoseconds = 0
    for thread in THREADS.iterdir():
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            if thread.name not in others:
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def _tensor(backend: str, array: np.ndarray) -> Any:
    if backend == "pytorch":
        import torch

        return torch.from_numpy(array)
    import tensorflow

    return tensorflow.constant(array)


def orders(folder: Path) -> Iterator[dict[str, Any]]:
    """The orders of the job, each as soon as it is there, up to an empty one."""
    number = 0
    while True:
        path = folder / f"order-{number}.json"
        while not path.exists():
            time.sleep(0.005)
        order = json.loads(path.read_text())
        if not order:
            return
        yield order
        number += 1


def main(work: str, options: dict[str, Any]) -> None:
    local_rank = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))
    if options["pin"]:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[local_rank % len(cores)]})
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    defaults = {flag.name: flag.default for flag in MULTI_PROCESS_FLAGS}
    prepare_environment(SimpleNamespace(**defaults, use_xla=False, explicit=()))  # type: ignore[arg-type]
    keep_freed_memory()
    several = "OMPI_COMM_WORLD_SIZE" in os.environ
    processes = Processes(create_collectives(options["backend"])) if several else ALONE

    def report(found: dict[str, Any]) -> None:
        everyone = processes.gather(found, "found")
        if processes.is_first:
            print(PREFIX + json.dumps(everyone), flush=True)

    do = WORKS[work](options, processes)
    report({"pid": os.getpid()})
    for order in orders(Path(options["folder"])):
        report(do(order))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
