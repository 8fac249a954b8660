"""Speed and size of dynamic int8 prediction, beside transformers' BERT with plain quantize_dynamic on every engine.

python -m benchmarks.dynamic [--shape mini|base] [--threads 1] [--rounds 15] [--torchao] [--rows]

All models hold the same random weights and take turns within one process; a ratio is between medians of the rounds,
and above 1 where ours is faster than the best engine. With one thread the seconds are the processor's, so that other
work on the machine does not count; with more they are those of the clock. Sizes are those of files on the disk.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backends import create_backend
from backends.pytorch.dynamic import DynamicModel, DynamicSettings
from backends.pytorch.dynamic_file import WEIGHTS_FILE
from backends.pytorch.dynamic_report import size_report, speed
from backends.pytorch.dynamic_torch import available_engines
from benchmarks.steps import SHAPES, random_batch
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION
from checkpoints.safetensors_file import write_safetensors
from checkpoints.state_dict import to_state_dict
from training.initialization import random_checkpoint
from twinquant.memory import keep_freed_memory

SIZES = ((1, 128), (8, 128), (1, 384))
INPUTS = ("input_ids", "input_mask", "segment_ids")


class Peer:
    """transformers' BertForSequenceClassification with scaled_dot_product_attention; int8 where an engine is named."""

    def __init__(self, config: BertConfig, tensors: dict[str, np.ndarray], engine: str | None) -> None:
        import transformers

        settings = transformers.BertConfig(**config.to_dict(), num_labels=2, attn_implementation="sdpa")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = transformers.BertForSequenceClassification(settings).eval()
            state = {name: torch.from_numpy(array) for name, array in to_state_dict(tensors).items()}
            missing, unexpected = model.load_state_dict(state, strict=False)
            assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
            if engine is not None:
                torch.backends.quantized.engine = engine
                model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        self.model: Any = model

    def predict(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Logits, float32 [B, 2]."""
        ids, mask, segments = (torch.from_numpy(batch[name]).long() for name in INPUTS)
        with torch.inference_mode():
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=segments).logits.numpy()


def measure(shape: str, rounds: int, with_torchao: bool, with_rows: bool) -> None:
    """Prints sizes, and one table of seconds and ratios for each size of batch."""
    config = SHAPES[shape][0]
    tensors = random_checkpoint(config, CLASSIFICATION, seed=0, num_labels=2).tensors
    backend = create_backend("pytorch", config, head=CLASSIFICATION, num_labels=2)
    backend.load(tensors)
    ours = {"ours, auto": DynamicSettings()}
    if with_rows:
        ours["ours, --per_row"] = DynamicSettings(per_row=True)
    if with_torchao:
        ours["ours, torchao"] = DynamicSettings(library="torchao", per_channel=True)
    models: dict[str, Any] = {name: DynamicModel.from_backend(backend, choice) for name, choice in ours.items()}
    first = models["ours, auto"]
    print(f"{shape}: {first.describe()}; {torch.get_num_threads()} threads, {rounds} rounds")
    print_sizes(first, tensors)
    models["ours, float32"] = backend
    models["transformers, float32"] = Peer(config, tensors, None)
    engines = [engine for engine in available_engines() if engine != "qnnpack"]
    models |= {f"quantize_dynamic, {engine}": Peer(config, tensors, engine) for engine in engines}
    for batch_size, length in SIZES:
        batch = {name: array for name, array in random_batch(config, batch_size, length).items() if name in INPUTS}
        report(models, batch, rounds)


def print_sizes(model: DynamicModel, tensors: dict[str, np.ndarray]) -> None:
    """Sizes of both files."""
    with tempfile.TemporaryDirectory() as folder:
        float_file = Path(folder, "model.safetensors")
        write_safetensors(float_file, to_state_dict(tensors))
        model.save(folder)
        print(f"  {size_report(float_file, Path(folder, WEIGHTS_FILE))}")


def report(models: dict[str, Any], batch: dict[str, np.ndarray], rounds: int) -> None:
    """Seconds of every model, and the best peer's divided by each."""
    print(f"  batch {batch['input_ids'].shape[0]} x {batch['input_ids'].shape[1]}")
    threads = torch.get_num_threads()
    clock = time.thread_time if threads == 1 else time.perf_counter
    seconds = speed({name: model.predict for name, model in models.items()}, batch, threads, rounds, clock)
    best = min(value for name, value in seconds.items() if name.startswith("quantize_dynamic"))
    for name, value in seconds.items():
        print(f"    {name:28} {value * 1000:9.1f} ms   best quantize_dynamic / this = {best / value:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--torchao", action="store_true", help="also torchao, which is slow without VNNI")
    parser.add_argument("--rows", action="store_true", help="also one activation scale per row")
    arguments = parser.parse_args()
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    for shape in [arguments.shape] if arguments.shape else SHAPES:
        measure(shape, arguments.rounds, arguments.torchao, arguments.rows)


if __name__ == "__main__":
    main()
