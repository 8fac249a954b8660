"""The model's configuration as Google's bert_config.json and Hugging Face's config.json write it."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from twinquant.errors import UserError
from twinquant.json_text import parse_json

# Spellings of hidden_act and the function each one means. Google's own code computed the tanh form under the name
# "gelu"; Hugging Face computes the erf form, and that reading is kept here.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
    "silu": "silu",
    "swish": "silu",
}

LARGEST_SIZE = 2**31 - 1  # rows and columns are counted in 32 bits
MOST_LAYERS = 1000  # of a file that is no mistake; the tensors of every layer are named before any is looked for


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of a BERT encoder; dropout probabilities in [0, 1), everything else positive.

    `extra` keeps the keys that this class does not know (label names, tokenizer hints), so that a configuration that is
    read and written again loses nothing.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    extra: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def activation(self) -> str:
        """The function hidden_act means: gelu (erf form), gelu_tanh, relu, tanh or silu."""
        return ACTIVATIONS[self.hidden_act]

    @property
    def label_names(self) -> list[str] | None:
        """Class names in the order of the logits, from Hugging Face's id2label; None when the file has none."""
        id2label = self.extra.get("id2label")
        if not id2label:
            return None
        return [str(id2label[index]) for index in sorted(id2label, key=int)]

    def with_labels(self, names: list[str]) -> "BertConfig":
        """A copy whose id2label and label2id name the classes in the order of the logits."""
        labels = {
            "id2label": {str(index): name for index, name in enumerate(names)},
            "label2id": {name: index for index, name in enumerate(names)},
        }
        return dataclasses.replace(self, extra={**self.extra, **labels})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> "BertConfig":
        """Reads a JSON file; UserError names the file and the key that is missing or wrong."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the model configuration {path}: {error.strerror}") from error
        values = parse_json(content, path)
        if not isinstance(values, dict):
            raise UserError(f"{path} must hold a JSON object, found {type(values).__name__}")
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> "BertConfig":
        """Checks and takes over the keys of `values`; `source` is what error sentences call them.

        The five sizes that no default can guess must be given; the rest have BERT's published defaults.
        """
        model_type = values.get("model_type", "bert")
        if model_type != "bert":
            raise UserError(f"{source}: model_type is {model_type!r:.40}, only 'bert' is supported")
        for key, wanted in (("position_embedding_type", "absolute"), ("is_decoder", False)):
            found = values.get(key)
            if found is not None and found != wanted:
                raise UserError(f"{source}: {key} is {found!r:.40}, only {wanted!r} is supported")
        known = {}
        for field in dataclasses.fields(cls):
            if field.name == "extra":
                continue
            if field.name in values:
                known[field.name] = _checked(field.name, field.type, values[field.name], source)
            elif field.default is dataclasses.MISSING:
                raise UserError(f"{source}: the key {field.name} is missing")
        config = cls(**known, extra={key: value for key, value in values.items() if key not in known})
        if config.hidden_size % config.num_attention_heads:
            raise UserError(
                f"{source}: hidden_size {config.hidden_size} is not a multiple of num_attention_heads "
                f"{config.num_attention_heads}"
            )
        _check_labels(config.extra.get("id2label"), source)
        return config

    def to_dict(self) -> dict[str, Any]:
        """All keys, the unknown ones of `extra` included, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "extra"}
        return {**self.extra, **values}


def _checked(key: str, wanted: Any, value: Any, source: str) -> Any:
    """`value` as the type of the field `key`, or a UserError."""
    if wanted in (str, "str"):
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise UserError(f"{source}: {key} is {value!r:.40}, expected one of {', '.join(ACTIVATIONS)}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted in (int, "int"):
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise UserError(f"{source}: {key} is {value!r:.40}, expected a positive whole number")
        largest = MOST_LAYERS if key == "num_hidden_layers" else LARGEST_SIZE
        if value > largest:
            raise UserError(f"{source}: {key} is {value!r:.40}, expected at most {largest}")
        return value
    if not number or not abs(value) <= sys.float_info.max:
        raise UserError(f"{source}: {key} is {value!r:.40}, expected a number")
    if key.endswith("dropout_prob"):
        if not 0 <= value < 1:
            raise UserError(f"{source}: {key} is {value!r:.40}, expected a probability of at least 0 and less than 1")
    elif value <= 0:
        raise UserError(f"{source}: {key} is {value!r:.40}, expected a positive number")
    return float(value)


def _check_labels(id2label: Any, source: str) -> None:
    if id2label is None:
        return
    indexes = sorted(str(key) for key in id2label) if isinstance(id2label, dict) else None
    if indexes is None or indexes != sorted(str(index) for index in range(len(indexes))):
        raise UserError(
            f"{source}: id2label is {id2label!r:.200}, expected an object with the keys 0 to num_labels - 1"
        )
