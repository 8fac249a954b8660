"""PyTorch's ways to int8 on a CPU, each on transformers' BERT with the weights that ours has.

torch.ao's quantize_dynamic on every engine, the same traced and frozen by TorchScript, torchao's int8 with activations
quantized at run time under torch.compile, and PT2E: static quantization by X86InductorQuantizer under torch.compile.
The compiled ones are compiled anew for every batch's shape, with inductor's freezing, which is their fastest way.
"""

import contextlib
import copy
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Batch
from benchmarks.turns import TORCH, Runner
from checkpoints.config import BertConfig
from checkpoints.state_dict import to_state_dict

FLOAT_GROUP = "torch fp32"
_INSTALL = {"torch": "pip install '.[pytorch]'", "transformers": "pip install '.[hub]'", "torchao": "'.[torchao]'"}
_NAMES = ("input_ids", "attention_mask", "token_type_ids")


def left_out() -> list[str]:
    """What cannot be measured because it is not installed, a sentence each."""
    missing = [name for name in _INSTALL if importlib.util.find_spec(name) is None]
    if "torch" in missing or "transformers" in missing:
        return [f"all peers of PyTorch: {missing[0]} is not installed ({_INSTALL[missing[0]]})"]
    return [f"torchao and PT2E: torchao is not installed (pip install {_INSTALL['torchao']})"] if missing else []


def float_model(config: BertConfig, tensors: Mapping[str, np.ndarray], attention: str = "sdpa") -> Any:
    """transformers' BertForQuestionAnswering with these weights; its forward gives start and end logits as a tuple."""
    import torch

    with _quiet():
        import transformers

        settings = transformers.BertConfig(**config.to_dict(), attn_implementation=attention)
        model = transformers.BertForQuestionAnswering(settings).eval()
        state = {name: torch.from_numpy(array) for name, array in to_state_dict(tensors).items()}
        missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        raise RuntimeError(f"transformers' BERT does not take our weights: {missing}, {unexpected}")

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            outputs = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return outputs.start_logits, outputs.end_logits

    return Logits().eval()


def trace_to_onnx(config: BertConfig, tensors: Mapping[str, np.ndarray], path: Path) -> Path:
    """The model as PyTorch's tracing exporter writes it, which optimum uses and onnxruntime's optimizer recognizes."""
    import torch

    ids = torch.zeros(1, 16, dtype=torch.long)
    axes = {0: "batch", 1: "sequence"}
    outputs = ["start_logits", "end_logits"]
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            float_model(config, tensors, "eager"),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=list(_NAMES),
            output_names=outputs,
            dynamic_axes={name: axes for name in (*_NAMES, *outputs)},
        )
    return path


def open_models(
    config: BertConfig, tensors: Mapping[str, np.ndarray], threads: int, compiled: bool
) -> Callable[[Batch], list[Runner]]:
    """Gives runners for a batch; `compiled`: also those of torch.compile, whose compilation takes minutes."""
    import torch

    torch.set_num_threads(threads)
    model = float_model(config, tensors)
    eager = {}
    engines = [name for name in torch.backends.quantized.supported_engines if name not in ("none", "qnnpack")]
    for engine in engines:
        torch.backends.quantized.engine = engine
        with _quiet():
            eager[engine] = torch.ao.quantization.quantize_dynamic(
                copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8
            )

    def runners(batch: Batch) -> list[Runner]:
        inputs = _inputs(batch)
        found = [Runner("torch fp32", FLOAT_GROUP, _runner(model, inputs))]
        for engine, quantized in eager.items():
            found.append(Runner(f"torch quantize_dynamic, {engine}", TORCH, _runner(quantized, inputs, engine)))
            with _quiet(), torch.no_grad():
                torch.backends.quantized.engine = engine
                frozen = torch.jit.freeze(torch.jit.trace(quantized, inputs, check_trace=False))
            found.append(Runner(f"TorchScript of that, {engine}", TORCH, _runner(frozen, inputs, engine)))
        if compiled and importlib.util.find_spec("torchao") is not None:
            with _quiet():
                torch._dynamo.reset()  # what was compiled for the batch before is not needed any more
                torchao, pt2e = _torchao(model), _pt2e(model, inputs)
                for name, module in (("torchao int8 dynamic, compiled", torchao), ("PT2E X86Inductor", pt2e)):
                    run = _runner(torch.compile(module, dynamic=False), inputs)
                    run()  # compiles
                    found.append(Runner(name, TORCH, run))
        return found

    return runners


def _runner(module: Any, inputs: tuple, engine: str | None = None) -> Callable[[], object]:
    import torch

    def run() -> object:
        if engine is not None:
            torch.backends.quantized.engine = engine
        with torch.no_grad():
            return module(*inputs)

    return run


def _inputs(batch: Batch) -> tuple:
    import torch

    return tuple(torch.from_numpy(batch[name]).long() for name in ("input_ids", "input_mask", "segment_ids"))


def _torchao(model: Any) -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantized = copy.deepcopy(model)
    quantize_(quantized, Int8DynamicActivationInt8WeightConfig())
    return quantized


def _pt2e(model: Any, inputs: tuple) -> Any:
    import torch
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    with torch.no_grad():
        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(torch.export.export(model, inputs).module(), quantizer)
        prepared(*inputs)  # calibrates
        converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    return converted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Deprecations and hints of PyTorch, torchao and transformers are not this benchmark's subject."""
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch._inductor.config

            torch._inductor.config.freezing = True
            yield
    finally:
        logging.disable(before)
