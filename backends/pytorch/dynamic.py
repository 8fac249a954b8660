"""Dynamic int8 prediction in PyTorch: int8 weights, activations quantized as they come, no calibration.

    model = DynamicModel.from_backend(backend, DynamicSettings(per_channel=True))
    model.predict(batch)  # as Backend.predict
    model.save("int8")
    model = DynamicModel.load("int8")  # the same logits, to the bit

What quantize_dynamic does to every nn.Linear is done to every dense layer (the head's last product, a few rows, stays
float32). Two libraries do the products: dynamic_torch.py and dynamic_torchao.py.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.base import MASK_VALUE, OUTPUT_NAMES, Batch
from backends.pytorch import dynamic_torch, dynamic_torchao
from backends.pytorch.backend import PyTorchBackend
from backends.pytorch.dynamic_bert import DynamicBert, DynamicLayer, DynamicPooler
from backends.pytorch.dynamic_file import DynamicFile, read_dynamic_file, write_dynamic_file
from backends.pytorch.dynamic_rows import RowwiseLinear
from backends.pytorch.dynamic_torch import Int8Weight, PackedLinear
from backends.pytorch.dynamic_torchao import TorchaoLinear
from backends.pytorch.model import Settings, build_model
from backends.pytorch.quantizers import Quantization
from checkpoints.config import BertConfig
from checkpoints.dynamic_folder import SETTINGS_FILE
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")

LIBRARIES = ("torch", "torchao")
Linear = PackedLinear | RowwiseLinear | TorchaoLinear


@dataclass(frozen=True)
class DynamicSettings:
    """How a model is quantized dynamically.

    Attributes:
        engine: the kernels of PyTorch: "x86", "onednn", "fbgemm", "qnnpack", or "auto": the faster of fbgemm and
            onednn for the model's width and the processor (`dynamic_torch.choose_engine`). Only of library "torch".
        library: "torch" (the operators of quantize_dynamic) or "torchao", its successor.
        per_channel: one weight scale per output, else one per kernel.
        per_row: one activation scale per row (token), so that a sentence's logits are the same, to the bit, whatever
            else is in its batch. Without it "torch" takes one scale per batch. "torchao" always has one per row; there
            the flag keeps padding out too, on which attention's last bits depend.
    """

    engine: str = "auto"
    library: str = "torch"
    per_channel: bool = False
    per_row: bool = False

    def __post_init__(self) -> None:
        engines = ("auto", *dynamic_torch.ENGINES)
        if self.engine not in engines:
            raise UserError(f"--quantized_engine: found '{self.engine}', expected one of {', '.join(engines)}")
        if self.library not in LIBRARIES:
            raise UserError(f"--dynamic_engine: found '{self.library}', expected one of {', '.join(LIBRARIES)}")
        if self.library == "torchao" and self.engine != "auto":
            raise UserError(
                f"--quantized_engine={self.engine} contradicts --dynamic_engine=torchao, which has no engines to "
                "choose from; leave one of the two out."
            )


class DynamicModel:
    """A BERT with one head, on the CPU, for prediction only."""

    def __init__(self, content: DynamicFile, settings: DynamicSettings, engine: str) -> None:
        """From the integers; `from_backend` and `load` are for callers.

        Args:
            engine: the one to pack for, never "auto"; "" with torchao.
        """
        self.config, self.head, self.num_labels = content.config, content.head, content.num_labels
        self.settings, self.engine = settings, engine
        self.floats = content.floats
        self.linears: dict[tuple[str, ...], Linear] = {}  # by the scopes of the dense layers that each one holds
        self.bert, self.head_model = self._build(content)

    @classmethod
    def from_backend(cls, backend: PyTorchBackend, settings: DynamicSettings) -> "DynamicModel":
        """Quantizes the float32 weights of a backend; its own fake quantization, if it is on, plays no part."""
        return cls.from_tensors(backend.config, backend.head, backend.num_labels, backend.tensors(), settings)

    @classmethod
    def from_tensors(
        cls,
        config: BertConfig,
        head: str,
        num_labels: int | None,
        tensors: Mapping[str, np.ndarray],
        settings: DynamicSettings,
    ) -> "DynamicModel":
        """Quantizes a checkpoint's tensors, whichever framework they come from.

        Args:
            tensors: all that `expected_tensors(config, head, num_labels)` names, float32, kernels [in, out].

        Raises:
            UserError: the engine or the library is not there, or a tensor is not finite.
        """
        library, engine = _prepare(settings, config)
        weights, floats = {}, {}
        for name, array in tensors.items():
            if not np.isfinite(array).all():
                raise UserError(f"the tensor {name} holds NaN or infinity, which cannot be quantized")
            if name.endswith("/kernel"):
                kernel = torch.from_numpy(np.ascontiguousarray(array.T, np.float32))  # [out, in]
                weights[name.removesuffix("/kernel")] = library.quantize_weight(kernel, settings.per_channel)
            else:
                floats[name] = torch.from_numpy(np.array(array, np.float32))
        return cls(DynamicFile(config, head, num_labels, weights, floats), settings, engine)

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """As `Backend.predict`. With `per_row`, logits of padding positions are MASK_VALUE."""
        inputs = [torch.from_numpy(np.array(batch[name])) for name in ("input_ids", "input_mask", "segment_ids")]
        with torch.inference_mode():
            if self.settings.per_row:
                logits = self._predict_sentences(inputs)
            else:
                logits = self.head_model(self.bert(*inputs), None, None)
        return {name: x.numpy() for name, x in zip(OUTPUT_NAMES[self.head], logits, strict=True)}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes model_int8.safetensors and dynamic.json into a folder (made if need be); no pickle.

        Raises UserError where the folder cannot be written.
        """
        write_dynamic_file(folder, self.content(), self.settings, self.engine)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], engine: str | None = None) -> "DynamicModel":
        """Reads what `save` wrote; nothing else is needed.

        Args:
            engine: instead of the one that the model was saved with, for a processor that does not have it.

        Raises:
            UserError: the files are missing, truncated or foreign, or the engine or library is not there.
        """
        content, values, saved_engine = read_dynamic_file(folder)
        try:
            settings = DynamicSettings(**values)
        except (TypeError, UserError) as error:
            raise UserError(f"{folder}/{SETTINGS_FILE}: the settings {values} are not understood: {error}") from error
        if engine is None and settings.library == "torch" and saved_engine not in dynamic_torch.available_engines():
            raise UserError(
                f"{folder} was quantized for the engine {saved_engine!r}, which this PyTorch does not offer on this "
                "processor; name another with --quantized_engine"
            )
        settings = replace(settings, engine=engine or saved_engine or "auto")
        _, chosen = _prepare(settings, content.config)
        return cls(content, settings, chosen)

    def content(self) -> DynamicFile:
        """The integers, scales and float32 tensors as they are saved."""
        weights = {
            scope: weight
            for scopes, linear in self.linears.items()
            for scope, weight in zip(scopes, linear.weights(), strict=True)
        }
        return DynamicFile(self.config, self.head, self.num_labels, weights, self.floats)

    def describe(self) -> str:
        """One line on what computes."""
        kernels = f"torch {torch.__version__}, engine {self.engine}" if self.engine else "torchao"
        weights = "channel" if self.settings.per_channel else "tensor"
        rows = self.settings.per_row or self.settings.library == "torchao"
        return f"dynamic int8: {kernels}; weights per {weights}, activations per {'row' if rows else 'batch'}"

    def _build(self, content: DynamicFile) -> tuple[DynamicBert, nn.Module]:
        """The encoder, and model.py's model with the encoder's output in the place of its encoder."""

        def make_linear(scopes: Sequence[str]) -> Linear:
            weights = [content.weights[scope] for scope in scopes]
            bias = torch.cat([self.floats[f"{scope}/bias"] for scope in scopes])
            linear = self._linear(weights, bias)
            self.linears[tuple(scopes)] = linear
            return linear

        with torch.device("meta"):  # no memory for float32 kernels that are not there
            settings = Settings(Quantization(torch.device("cpu")), torch.float32, dropout=False)
            model: Any = build_model(self.config, self.head, self.num_labels, settings)
        layers = [
            DynamicLayer(f"bert/encoder/layer_{i}", make_linear, (layer.attention_output.norm, layer.output.norm))
            for i, layer in enumerate(model.bert.layers)
        ]
        bert = DynamicBert(self.config, model.bert.embeddings, layers)
        if self.head == CLASSIFICATION:
            model.pooler = DynamicPooler(make_linear)
        model.bert = Given()
        for module in (*bert.modules(), *model.modules()):
            for name in module._parameters:
                tensor = self.floats[f"{module.scope}/{name}".lstrip("/")]
                module._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        return bert, model

    def _linear(self, weights: list[Int8Weight], bias: torch.Tensor) -> Linear:
        if self.settings.library == "torchao":
            return TorchaoLinear(weights, bias)
        if self.settings.per_row:
            return RowwiseLinear(PackedLinear(weights, None, self.engine), bias)
        return PackedLinear(weights, bias, self.engine)

    def _predict_sentences(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The head sentence by sentence: the order of a float32 product's additions depends on its size."""
        sentences = [self.head_model(x[None], None, None) for x in self.bert.sentences(*inputs)]
        if self.head != QUESTION_ANSWERING:
            return [torch.cat(parts) for parts in zip(*sentences, strict=True)]
        outputs = []
        for parts in zip(*sentences, strict=True):
            padded = torch.full(inputs[0].shape, MASK_VALUE)
            for row, logits in zip(padded, parts, strict=True):
                row[: logits.shape[1]] = logits[0]
            outputs.append(padded)
        return outputs


class Given(nn.Module):
    """In the place of an encoder: its output is what the model is called with."""

    def forward(self, hidden: torch.Tensor, *_) -> torch.Tensor:
        return hidden


def _prepare(settings: DynamicSettings, config: BertConfig) -> tuple[Any, str]:
    """The library's module and the engine to pack for ("" with torchao)."""
    if settings.library == "torchao":
        dynamic_torchao.require_torchao()
        return dynamic_torchao, ""
    return dynamic_torch, dynamic_torch.choose_engine(settings.engine, config.hidden_size)
