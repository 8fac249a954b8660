"""Fine-tuning throughput of the PyTorch backend beside transformers' Trainer: the same model and batches, in turns.

python -m benchmarks.training [--shape mini|base] [--batches 16x64 32x32] [--mixed_lengths] [--steps 8] [--rounds 5]
    [--output FILE]

One round trains both for so many steps from wherever they are; ratios are medians over rounds of the ratio within a
round. Rows are random tokens without padding, so that the Trainer's shuffling changes nothing. With --mixed_lengths
most rows are short, as sentences are, and a batch is padded to its longest row; both train on batches of rows of like
length (--group_by_length; 8 steps are too few to show it), and a third training, ours without that, is compared too.
The Trainer has its own defaults, but for what writes files or a progress bar. It needs accelerate: pip install
'.[peers]'.
"""

import argparse
import importlib.util
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from backends import create_backend
from backends.base import Batch
from benchmarks.steps import SHAPES
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION, hugging_face_name, is_transposed
from training.initialization import random_checkpoint
from training.order import DataOrder, padded_length
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.machine import describe_machine
from twinquant.main import run_main
from twinquant.memory import keep_freed_memory

RATE = 2e-5
LABELS = 2


def make_rows(config: BertConfig, rows: int, length: int, mixed: bool = False) -> Batch:
    """Random sentences with labels. `mixed`: of 3 tokens up to `length`, a fifth of it on average, padded with 0."""
    generator = np.random.default_rng(0)
    ids = generator.integers(0, config.vocab_size, (rows, length)).astype(np.int32)
    labels = generator.integers(0, LABELS, rows).astype(np.int32)
    lengths = np.minimum(length, 2 + generator.geometric(5 / length, rows)) if mixed else np.full(rows, length)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    return {"input_ids": ids * mask, "input_mask": mask, "segment_ids": np.zeros_like(ids), "labels": labels}


def our_training(
    config: BertConfig, tensors: dict[str, np.ndarray], rows: Batch, batch_size: int, grouped: bool = False
) -> Callable[[], int]:
    """A function that trains once over the rows and returns their number; `grouped`: as with --group_by_length."""
    backend = create_backend("pytorch", config, CLASSIFICATION, num_labels=LABELS)
    backend.load(tensors)
    lengths = rows["input_mask"].sum(axis=1)
    count, longest = rows["input_ids"].shape
    order = DataOrder(0, count, batch_size, lengths if grouped else None).epoch(0)

    def train() -> int:
        for start in range(0, count, batch_size):
            chosen = order[start : start + batch_size]
            length = padded_length(lengths[chosen], longest, backend.length_multiple)
            batch = {name: array[chosen, :length] if array.ndim > 1 else array[chosen] for name, array in rows.items()}
            backend.train_step([batch], RATE, start)
        return count

    return train


def their_training(
    config: BertConfig, tensors: dict[str, np.ndarray], rows: Batch, batch_size: int, folder: str, grouped: bool = False
) -> Callable[[], int]:
    """The same by transformers' Trainer. Raises UserError where accelerate, which it needs, is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise UserError("transformers' Trainer needs accelerate, which is not installed; pip install '.[peers]'")
    import torch
    import transformers
    from torch.nn.utils.rnn import pad_sequence

    known = {name: value for name, value in config.to_dict().items() if name != "hidden_act"}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=LABELS, **known))
    arrays = {name: array.T if is_transposed(name) else array for name, array in tensors.items()}
    state = {hugging_face_name(name): torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    missing = [name for name in model.load_state_dict(state, strict=False).missing_keys if "position_ids" not in name]
    if missing:
        raise RuntimeError(f"transformers' model expects tensors that ours lacks: {', '.join(missing)}")
    names = {"input_ids": "input_ids", "attention_mask": "input_mask", "token_type_ids": "segment_ids"}
    columns = {theirs: torch.from_numpy(rows[ours].astype(np.int64)) for theirs, ours in names.items()}
    labels = torch.from_numpy(rows["labels"].astype(np.int64))
    lengths = rows["input_mask"].sum(axis=1)
    dataset = [
        {name: column[index, :length] for name, column in columns.items()} | {"labels": labels[index]}
        for index, length in enumerate(lengths)
    ]

    def pad(items: list[dict]) -> dict:
        batch = {name: pad_sequence([item[name] for item in items], batch_first=True) for name in columns}
        return batch | {"labels": torch.stack([item["labels"] for item in items])}

    arguments = transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=RATE,
        train_sampling_strategy="group_by_length" if grouped else "random",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )

    def train() -> int:
        transformers.Trainer(model, arguments, data_collator=pad, train_dataset=dataset).train()
        return len(dataset)

    return train


def measure(shape: str, batch_size: int, length: int, steps: int, rounds: int, mixed: bool) -> dict:
    """Prints one line, of mixed lengths two, and returns them as values."""
    config = SHAPES[shape][0]
    tensors = random_checkpoint(config, CLASSIFICATION, 0, LABELS).tensors
    rows = make_rows(config, steps * batch_size, length, mixed)
    with tempfile.TemporaryDirectory() as folder:
        trainings = {
            "ours": our_training(config, tensors, rows, batch_size, mixed),
            "trainer": their_training(config, tensors, rows, batch_size, folder, mixed),
        }
        if mixed:
            trainings["drawn"] = our_training(config, tensors, rows, batch_size)
        speeds: dict[str, list[float]] = {name: [] for name in trainings}
        for number in range(rounds + 1):
            for name, train in trainings.items():
                started = time.perf_counter()
                count = train()
                if number:  # the first round warms up
                    speeds[name].append(count / (time.perf_counter() - started))
    found: dict[str, object] = {"shape": shape, "batch": f"{batch_size}x{length}", "mixed_lengths": mixed}
    found |= {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {
        name: statistics.median(one / other for one, other in zip(speeds["ours"], values, strict=True))
        for name, values in speeds.items()
    }
    found["ratio"] = ratios["trainer"]
    lengths = f"up to {length}, grouped" if mixed else str(length)
    print(
        f"  {shape}, batch {batch_size} x {lengths}: {found['ours']:.2f} examples/s here, {found['trainer']:.2f} by "
        f"transformers' Trainer: {ratios['trainer']:.2f} times as fast (at least 1.00)",
        flush=True,
    )
    if mixed:
        found["ratio_drawn"] = ratios["drawn"]
        print(f"    not grouped {found['drawn']:.2f} here: {ratios['drawn']:.2f} times as fast as that", flush=True)
    return found


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--batches", nargs="+", default=["16x64", "32x32"], metavar="BATCHxLENGTH")
    parser.add_argument("--mixed_lengths", action="store_true", help="rows of many lengths, grouped by length")
    parser.add_argument("--steps", type=int, default=8, help="training steps of a round (default: 8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="a JSON file for all numbers")
    arguments = parser.parse_args(argv)
    keep_freed_memory()  # as run_glue.py does, and to both: it is one process
    found = []
    for text in arguments.batches:
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
        if match is None:
            raise UserError(f"--batches: found '{text}', expected a batch and a length such as 16x64")
        sizes = int(match[1]), int(match[2]), arguments.steps, arguments.rounds
        found.append(measure(arguments.shape, *sizes, arguments.mixed_lengths))
    if arguments.output is not None:
        write_json_atomically(arguments.output, {"machine": describe_machine(), "rows": found})


if __name__ == "__main__":
    sys.exit(run_main(main, "benchmarks.training"))
