"""The one in-memory form of a checkpoint; the readers beside this file make it, the writers take it."""

import dataclasses
from pathlib import Path

import numpy as np

from checkpoints.config import BertConfig


@dataclasses.dataclass
class Checkpoint:
    """A model's tensors, ranges and configuration, whatever file form they came from.

    Attributes:
        tensors: float32 arrays by canonical name (names.py); kernels are [in, out].
        ranges: amax by canonical quantizer scope: float32 arrays of shape () or, for a weight quantized per channel,
            (out,).
        config: the model's configuration, None when the checkpoint has none beside it.
        source: the path it was read from, or its hub name, for messages.
        fetched_into: the folder where the files of a hub name lie; "": the source is a path.
        vocab_file: the vocab.txt beside it, if there is one.
        metadata: what else the files say, as text: "do_lower_case" ("true" or "false"), "architecture" (of a Hugging
            Face folder), "global_step" (of a TensorFlow bundle).
        card: the text of the README.md that is written beside it; "": none.
        unused: names of the tensors in the file that are no part of the model (optimizer slots, pre-training heads).
    """

    tensors: dict[str, np.ndarray]
    ranges: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    config: BertConfig | None = None
    source: str = ""
    vocab_file: Path | None = None
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    card: str = ""
    unused: list[str] = dataclasses.field(default_factory=list)
    fetched_into: str = ""

    @property
    def label_names(self) -> list[str] | None:
        """Class names in the order of the logits, if the configuration has them."""
        return self.config.label_names if self.config else None
