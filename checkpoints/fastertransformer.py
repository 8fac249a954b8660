"""The state-dict file of FasterTransformer's PyTorch example: weights and `_amax` ranges in one file of torch.save.

Source of the layout: FasterTransformer, examples/pytorch/bert/bert-quantization-sparsity, which saves a bare state dict
as pytorch_model.bin with bert_config.json beside it; its readers also take {"model": state dict}.
"""

import os
from pathlib import Path

from checkpoints.config import BertConfig
from checkpoints.state_dict import amax_to_state_dict, from_state_dict, to_state_dict
from checkpoints.torch_file import read_torch_file, to_numpy, write_torch_file
from checkpoints.value import Checkpoint
from twinquant.files import write_json_atomically

CONFIG_FILE = "bert_config.json"


def read_fastertransformer(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a state-dict file with Hugging Face names (LayerNorm gamma/beta or weight/bias) and `_amax` buffers.

    The configuration is taken from bert_config.json or config.json beside the file, if there is one.
    """
    path = Path(path)
    state = read_torch_file(path)
    tensors, ranges, unused = from_state_dict(state, lambda key: to_numpy(state[key]), str(path))
    configs = [file for file in (path.parent / CONFIG_FILE, path.parent / "config.json") if file.exists()]
    vocab_file = path.parent / "vocab.txt"
    return Checkpoint(
        tensors=tensors,
        ranges=ranges,
        config=BertConfig.from_json_file(configs[0]) if configs else None,
        source=str(path),
        vocab_file=vocab_file if vocab_file.exists() else None,
        unused=unused,
    )


def write_fastertransformer(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes the file as FasterTransformer's example saves it, and bert_config.json beside it when it is known.

    Ranges become `_amax` buffers of shape [] or, per channel, [out, 1]; LayerNorm is named gamma/beta.
    """
    path = Path(path)
    state = to_state_dict(checkpoint.tensors, old_layer_norm_names=True) | amax_to_state_dict(checkpoint.ranges)
    if checkpoint.config is not None:
        write_json_atomically(path.parent / CONFIG_FILE, checkpoint.config.to_dict())
    write_torch_file(path, state)
