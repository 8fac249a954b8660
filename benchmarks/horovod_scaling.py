"""Training on two processes of one machine against one: steps, the exchange of gradients, saving, features.

    python -m benchmarks.horovod_scaling [--backends pytorch tensorflow] [--shapes 4x256 6x384] [--rounds 5]
                                         [--output results.json]

Needs Horovod, mpirun and two cores. The jobs that are compared take turns: while one does a round, the processes of the
others are stopped. Each rank computes with one thread on a core of its own. Every number is a median of the rounds
after a first one that is not counted. Prints the tables of docs/scaling.md in Markdown.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from backends import BACKEND_NAMES
from benchmarks.features import with_first_answers
from benchmarks.horovod_worker import PREFIX
from twinquant.files import write_json_atomically

ROOT = Path(__file__).resolve().parents[1]
MPIRUN = (
    "mpirun -np {count} -H localhost:{count} --allow-run-as-root --oversubscribe -bind-to none -map-by slot -x PATH "
    "-mca pml ob1 -mca btl ^openib"
)
PARTS = ("scaling", "exchange", "saving", "features")
BUCKETS_MB = (1, 16, 64, 256)
PERIOD = 1000  # steps between two checkpoints, the default of --save_checkpoints_steps


class Job:
    """Processes that do rounds of one kind of work (benchmarks/horovod_worker.py), stopped in between."""

    def __init__(self, work: str, count: int, folder: Path, **options: Any) -> None:
        self.folder = folder / f"{work}-{count}"
        self.folder.mkdir()
        self._log, self._pids, self._number = self.folder / "log.txt", [], 0
        options |= {"folder": str(self.folder), "pin": options.get("pin", True)}
        start = MPIRUN.format(count=count).split() if count > 1 else []
        words = [*start, sys.executable, "-m", "benchmarks.horovod_worker", work, json.dumps(options)]
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        self._pids = [found["pid"] for found in self._found()]
        self._signal(signal.SIGSTOP)

    def round(self, **order: Any) -> list[dict[str, Any]]:
        """Carries an order out; what each rank found."""
        self._give(order)
        found = self._found()
        self._signal(signal.SIGSTOP)
        return found

    def close(self) -> None:
        """Ends the processes, in good order where they still can."""
        try:
            self._give({})
            self._process.wait(60)
        except (OSError, subprocess.TimeoutExpired):
            self._signal(signal.SIGKILL)
            self._process.kill()

    def _give(self, order: dict[str, Any]) -> None:
        write_json_atomically(self.folder / f"order-{self._number}.json", order)
        self._number += 1
        self._signal(signal.SIGCONT)

    def _found(self) -> list[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(PREFIX):
                found: list[dict[str, Any]] = json.loads(line.removeprefix(PREFIX))
                return found
        raise RuntimeError(f"the job {self.folder.name} ended:\n{self._log.read_text()[-3000:]}")

    def _signal(self, number: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def slowest(found: Iterable[dict[str, Any]], name: str) -> float:
    """The value of the rank that took longest: all go on only when it is done."""
    return max(values[name] for values in found)


def spread(values: list[float], digits: int = 2) -> str:
    """Median, and in brackets the smallest and the largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(title: str, head: str, rows: list[list[str]]) -> str:
    """A Markdown table; `head` names the columns, divided by bars."""
    names = [name.strip() for name in head.split("|")]
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join([f"### {title}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def scaling(backend: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Examples per second of one rank, of two, and of two that do not exchange gradients."""
    options = {"backend": backend, "batch_size": arguments.batch_size, "length": arguments.length}
    results = []
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(contextlib.closing(Job("training", n, folder, **options))) for n in (1, 2))
        for shape in arguments.shapes:
            ways = {"one": (one, 1, True), "two": (two, 2, True), "apart": (two, 2, False)}
            speeds: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(arguments.rounds + 1):
                for name, (job, count, together) in ways.items():
                    steps = arguments.steps if number else 1
                    seconds = slowest(job.round(shape=shape, steps=steps, exchange=together), "step")
                    if number:
                        speeds[name].append(count * arguments.batch_size / seconds)
            results.append({"part": "scaling", "backend": backend, "shape": shape, **speeds})
    return results


def scaling_table(results: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    rows = []
    for result in results:
        one = result["one"]
        ratios, apart = ([b / a for a, b in zip(one, result[name], strict=True)] for name in ("two", "apart"))
        speeds = [f"{statistics.median(result[name]):.1f}" for name in ("one", "two")]
        rows.append([result["backend"], result["shape"], *speeds, spread(ratios), spread(apart)])
    head = "backend | layers x width | one rank, examples/s | two ranks, examples/s | ratio | ratio without exchange"
    return table(f"Two ranks on two cores, batch {arguments.batch_size} x {arguments.length} each", head, rows)


def exchange(backend: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Seconds in which two ranks add up a model's gradients."""
    results = [
        {"part": "exchange", "backend": backend, "shape": shape, "compression": compression, "bucket_mb": megabytes}
        for shape in arguments.exchange_shapes for compression in ("none", "fp16") for megabytes in BUCKETS_MB
    ]  # fmt: skip
    with contextlib.closing(Job("exchange", 2, folder, backend=backend)) as job:
        for number in range(arguments.rounds + 1):
            for result in results:
                order = {name: result[name] for name in ("shape", "compression", "bucket_mb")}
                found = job.round(**order)
                if number:
                    result.setdefault("seconds", []).append(slowest(found, "seconds"))
                    result |= {name: found[0][name] for name in ("bytes", "operations")}
    return results


def exchange_table(results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        seconds, size = statistics.median(result["seconds"]), result["bytes"]
        settings = [result["compression"], str(result["bucket_mb"]), str(result["operations"])]
        speed = [spread([1000 * value for value in result["seconds"]], 0), f"{size / seconds / 1e9:.2f}"]
        rows.append([result["backend"], result["shape"], f"{size / 1e6:.0f}", *settings, *speed])
    head = "backend | layers x width | MB of float32 | compression | bucket, MiB | operations | ms | GB/s of float32"
    return table("Exchange of gradients alone, two ranks", head, rows)


def saving(backend: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Seconds for which training stands still at a checkpoint."""
    options = {"backend": backend, "batch_size": arguments.batch_size, "length": arguments.length}
    options |= {"shape": arguments.save_shape}
    results = [{"part": "saving", "backend": backend, "ranks": ranks, "save": [], "write": []} for ranks in (1, 2)]
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(contextlib.closing(Job("saving", n, folder, **options))) for n in (1, 2)]
        for job, result in zip(jobs, results, strict=True):
            result["step"] = slowest(job.round(steps=arguments.save_steps), "step")
        for number in range(arguments.save_rounds + 1):
            for job, result in zip(jobs, results, strict=True):
                found = job.round(steps=0)
                if number:
                    result["save"].append(slowest(found, "save"))
                    result["write"].append(found[0]["write"])
    return results


def saving_table(results: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    rows = []
    for result in results:
        save, step = statistics.median(result["save"]), result["step"]
        share = save / (save + PERIOD * step)
        words = [f"{step:.2f}", spread(result["save"], 1), f"{statistics.median(result['write']):.1f}"]
        rows.append([result["backend"], str(result["ranks"]), *words, f"{share:.2%}"])
    head = f"backend | ranks | step, s | save, s | of it writing, s | share of the time, every {PERIOD} steps"
    title = f"Saving a {arguments.save_shape} model, batch {arguments.batch_size} x {arguments.length} per rank"
    return table(title, head, rows)


def features(backend: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """CPU seconds of the start's feature phase, over all ranks."""
    files = {name: os.path.abspath(getattr(arguments, name) or "") for name in ("train_file", "vocab_file")}
    if not arguments.train_file:
        files = repeated_sample(folder, arguments.copies)
    results: list[dict[str, Any]] = [{"part": "features", "ranks": ranks} for ranks in (1, 2, 4)]
    with contextlib.ExitStack() as stack:
        options = {"backend": backend, "pin": False, **files}
        jobs = [
            stack.enter_context(contextlib.closing(Job("features", result["ranks"], folder, **options)))
            for result in results
        ]
        for number in range(arguments.rounds + 1):
            for job, result in zip(jobs, results, strict=True):
                found = job.round(cache=str(job.folder / f"features-{number}"))
                if number:
                    result["windows"] = found[0]["windows"]
                    turns = [values["turn"] for values in found]
                    result.setdefault("make", []).append(turns[0])
                    result.setdefault("read", []).append(sum(turns[1:]))
                    result.setdefault("phase", []).append(sum(values["phase"] for values in found))
                    result.setdefault("seconds", []).append(slowest(found, "seconds"))
    return results


def repeated_sample(folder: Path, copies: int) -> dict[str, str]:
    """samples/squad_train.json `copies` times under new ids and titles, and a vocabulary made of its words."""
    content = with_first_answers(json.loads((ROOT / "samples/squad_train.json").read_text(encoding="utf-8")))
    articles, words = [], set()
    for copy in range(copies):
        again = json.loads(json.dumps(content["data"]))
        for paragraph in (paragraph for article in again for paragraph in article["paragraphs"]):
            # Told apart by the last word, lest a paragraph that was seen before costs nothing.
            paragraph["context"] += f" {copy}"
            words |= set(paragraph["context"].lower().split())
            for question in paragraph["qas"]:
                question["id"] += f"-{copy}"
        articles += again
    characters = sorted({character for word in words for character in word})
    pieces = [*characters, *(f"##{character}" for character in characters), *sorted(words - set(characters))]
    data, vocabulary = folder / "train.json", folder / "vocab.txt"
    data.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces]) + "\n", encoding="utf-8")
    return {"train_file": str(data), "vocab_file": str(vocabulary)}


def features_table(results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        words = [spread(result[name]) for name in ("make", "read", "phase", "seconds")]
        rows.append([str(result["ranks"]), str(result["windows"]), *words])
    head = "ranks | windows | CPU s: rank 0 makes | the others read | all, with waiting for turns | seconds"
    return table("Features at the start, all ranks together", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=BACKEND_NAMES, default=["pytorch", "tensorflow"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", default=["4x256", "6x384"], help="layers x width, of weak scaling")
    parser.add_argument("--exchange_shapes", nargs="+", default=["4x256", "12x768"])
    parser.add_argument("--save_shape", default="12x768")
    parser.add_argument("--batch_size", type=int, default=8, help="of each rank")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of a round of weak scaling")
    parser.add_argument("--save_rounds", type=int, default=3)
    parser.add_argument("--save_steps", type=int, default=2, help="by which a step of the saved model is timed")
    parser.add_argument("--train_file", help="SQuAD JSON file (default: the sample, repeated)")
    parser.add_argument("--vocab_file", help="vocab.txt (needed with --train_file)")
    parser.add_argument("--copies", type=int, default=40, help="how often the sample is repeated")
    parser.add_argument("--output", help="a JSON file for all numbers")
    arguments = parser.parse_args()
    if arguments.train_file and not arguments.vocab_file:
        parser.error("--train_file needs --vocab_file")
    # So that no stopped process is left behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    begin = time.monotonic()
    results: dict[str, list[dict[str, Any]]] = {part: [] for part in arguments.parts}
    tables: dict[str, Callable[[list[dict[str, Any]]], str]] = {
        "scaling": lambda found: scaling_table(found, arguments),
        "exchange": exchange_table,
        "saving": lambda found: saving_table(found, arguments),
        "features": features_table,
    }
    works = {"scaling": scaling, "exchange": exchange, "saving": saving, "features": features}
    for part in arguments.parts:
        # Features know no backend, so one transport for them is enough.
        for backend in arguments.backends[: 1 if part == "features" else None]:
            with tempfile.TemporaryDirectory() as folder:
                results[part] += works[part](backend, arguments, Path(folder))
            print(f"{time.monotonic() - begin:4.0f} s: {part}, {backend}", file=sys.stderr, flush=True)
            # After every part: a measurement that is broken off keeps what it has.
            if arguments.output:
                write_json_atomically(arguments.output, {"arguments": vars(arguments), "results": results})
        print(tables[part](results[part]), flush=True)


if __name__ == "__main__":
    main()
