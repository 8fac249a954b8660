"""The one table of tensor names: canonical (Google's), Hugging Face's, shapes; and the names of quantizers.

Canonical names are those of Google's checkpoints (google-research/bert), kernels [in, out]. Hugging Face names are
those of `transformers`' BertForQuestionAnswering and BertForSequenceClassification, weights [out, in]. Quantizer scopes
are those of FasterTransformer's TensorFlow example, quantizer modules those of its PyTorch example.
"""

import re
from collections.abc import Container, Mapping
from typing import NamedTuple

from checkpoints.config import BertConfig

QUESTION_ANSWERING = "question_answering"
CLASSIFICATION = "classification"


class _Row(NamedTuple):
    canonical: str
    hugging_face: str
    shape: tuple[str, ...]  # of the canonical tensor; words stand for the configuration's sizes


_LAYER = "bert/encoder/layer_{n}/"
_HF_LAYER = "bert.encoder.layer.{n}."
_LAYER_NUMBER = r"(?<=/layer_)(\d+)(?=/)"  # in a canonical name

_EMBEDDINGS = (
    _Row("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight", ("vocab", "hidden")),
    _Row("bert/embeddings/position_embeddings", "bert.embeddings.position_embeddings.weight", ("position", "hidden")),
    _Row("bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings.weight", ("type", "hidden")),
    _Row("bert/embeddings/LayerNorm/gamma", "bert.embeddings.LayerNorm.weight", ("hidden",)),
    _Row("bert/embeddings/LayerNorm/beta", "bert.embeddings.LayerNorm.bias", ("hidden",)),
)


def _dense(scope: str, module: str, inputs: str, outputs: str) -> tuple[_Row, _Row]:
    return (
        _Row(f"{scope}/kernel", f"{module}.weight", (inputs, outputs)),
        _Row(f"{scope}/bias", f"{module}.bias", (outputs,)),
    )


def _layer_norm(scope: str, module: str) -> tuple[_Row, _Row]:
    return (
        _Row(f"{scope}/gamma", f"{module}.weight", ("hidden",)),
        _Row(f"{scope}/beta", f"{module}.bias", ("hidden",)),
    )


_ENCODER_LAYER = (
    *_dense(f"{_LAYER}attention/self/query", f"{_HF_LAYER}attention.self.query", "hidden", "hidden"),
    *_dense(f"{_LAYER}attention/self/key", f"{_HF_LAYER}attention.self.key", "hidden", "hidden"),
    *_dense(f"{_LAYER}attention/self/value", f"{_HF_LAYER}attention.self.value", "hidden", "hidden"),
    *_dense(f"{_LAYER}attention/output/dense", f"{_HF_LAYER}attention.output.dense", "hidden", "hidden"),
    *_layer_norm(f"{_LAYER}attention/output/LayerNorm", f"{_HF_LAYER}attention.output.LayerNorm"),
    *_dense(f"{_LAYER}intermediate/dense", f"{_HF_LAYER}intermediate.dense", "hidden", "intermediate"),
    *_dense(f"{_LAYER}output/dense", f"{_HF_LAYER}output.dense", "intermediate", "hidden"),
    *_layer_norm(f"{_LAYER}output/LayerNorm", f"{_HF_LAYER}output.LayerNorm"),
)

_POOLER = _dense("bert/pooler/dense", "bert.pooler.dense", "hidden", "hidden")

_HEADS = {
    QUESTION_ANSWERING: (
        _Row("cls/squad/output_weights", "qa_outputs.weight", ("2", "hidden")),
        _Row("cls/squad/output_bias", "qa_outputs.bias", ("2",)),
    ),
    CLASSIFICATION: (
        _Row("output_weights", "classifier.weight", ("labels", "hidden")),
        _Row("output_bias", "classifier.bias", ("labels",)),
    ),
}

_ALL_ROWS = (*_EMBEDDINGS, *_ENCODER_LAYER, *_POOLER, *_HEADS[QUESTION_ANSWERING], *_HEADS[CLASSIFICATION])
_BY_HUGGING_FACE_NAME = {row.hugging_face: row for row in _ALL_ROWS}
_BY_CANONICAL_NAME = {row.canonical: row for row in _ALL_ROWS}

_CONFIG_FIELDS = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "position": "max_position_embeddings",
    "type": "type_vocab_size",
}

# (quantizer's name in a TensorFlow scope, in a PyTorch module) where they differ; others are spelled alike.
_DENSE_QUANTIZERS = (
    ("kernel_quantizer", "_weight_quantizer"),
    ("input_quantizer", "_input_quantizer"),
    ("aftergemm_quantizer", "_aftergemm_quantizer"),
)
# Quantizers outside the encoder's layers. Those of q8bert, which FasterTransformer has not, are named alike.
_OTHER_QUANTIZERS = {
    "bert/final_input_quantizer": "bert.encoder.final_input_quantizer",
    "bert/pooler/dense/input_quantizer": "bert.pooler.dense._input_quantizer",
    "output_input_quantizer": "classifier._input_quantizer",
    "cls/squad/output_input_quantizer": "qa_outputs._input_quantizer",
}
_OTHER_MODULES = {module: scope for scope, module in _OTHER_QUANTIZERS.items()}


def canonical_name(hf_name: str) -> tuple[str, bool] | None:
    """The canonical name of a Hugging Face tensor, and whether the tensor must be transposed.

    Accepts the older spelling LayerNorm.gamma/beta, names without `bert.` as BertModel saves them, and the prefixes
    `module.` (DataParallel) and `_orig_mod.` (torch.compile). None for a tensor that is not part of the model here,
    such as a pre-training head or position_ids.
    """
    template, number = _split_layer(_without_wrapping(hf_name), r"(?<=\.layer\.)(\d+)(?=\.)")
    template = re.sub(r"(?<=LayerNorm\.)gamma$", "weight", template)
    template = re.sub(r"(?<=LayerNorm\.)beta$", "bias", template)
    row = _BY_HUGGING_FACE_NAME.get(template)
    if row is None:
        return None
    return row.canonical.replace("{n}", number), is_transposed(row.canonical)


def hugging_face_name(canonical: str) -> str | None:
    """The Hugging Face name of a canonical tensor (see is_transposed); None if the name is not in the table."""
    template, number = _split_layer(canonical, _LAYER_NUMBER)
    row = _BY_CANONICAL_NAME.get(template)
    return None if row is None else row.hugging_face.replace("{n}", number)


def is_transposed(canonical: str) -> bool:
    """Whether Hugging Face stores this tensor transposed: kernels are [in, out] here and [out, in] there.

    The heads' weights are [out, in] in both.
    """
    return canonical.endswith("/kernel")


def is_canonical(name: str) -> bool:
    """Whether `name` is a tensor of the model (encoder, pooler or one of the heads)."""
    return hugging_face_name(name) is not None


def expected_tensors(
    config: BertConfig, head: str | None = None, num_labels: int | None = None, pooler: bool = False
) -> dict[str, tuple[int, ...]]:
    """Canonical names and shapes of every tensor a model has.

    Args:
        config: gives the sizes.
        head: "question_answering", "classification" (then `num_labels` is needed), or None for the encoder alone.
        num_labels: number of classes, 1 for a regression.
        pooler: whether the pooler belongs to the model; with a classification head it always does.
    """
    sizes = {word: getattr(config, field) for word, field in _CONFIG_FIELDS.items()} | {"labels": num_labels, "2": 2}
    if head is not None and head not in _HEADS:
        raise ValueError(f"head is {head!r}, expected one of {', '.join(_HEADS)} or None")
    if head == CLASSIFICATION and num_labels is None:
        raise ValueError("a classification head needs num_labels")
    rows = list(_EMBEDDINGS)
    for layer in range(config.num_hidden_layers):
        rows += [row._replace(canonical=row.canonical.replace("{n}", str(layer))) for row in _ENCODER_LAYER]
    pooler = pooler or head == CLASSIFICATION
    rows += [*(_POOLER if pooler else ()), *(_HEADS[head] if head else ())]
    return {row.canonical: tuple(int(sizes[word] or 0) for word in row.shape) for row in rows}


def config_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The values of the configuration that tensors of these canonical names and shapes tell.

    A value is left out where no tensor tells it, or where tensors tell different ones, as those of a damaged model may.
    """
    found: dict[str, set[int]] = {field: set() for field in _CONFIG_FIELDS.values()}
    layers: set[int] = set()
    for name, shape in shapes.items():
        template, number = _split_layer(name, _LAYER_NUMBER)
        row = _BY_CANONICAL_NAME.get(template)
        if row is None:
            continue
        layers |= {int(number)} if number else set()
        if len(row.shape) == len(shape):
            for word, size in zip(row.shape, shape, strict=True):
                found.get(_CONFIG_FIELDS.get(word, ""), set()).add(size)
    sizes = {field: values.pop() for field, values in found.items() if len(values) == 1}
    return sizes | ({"num_hidden_layers": max(layers) + 1} if layers else {})


def head_of(names: Container[str]) -> str | None:
    """Which head a collection of canonical names holds: "question_answering", "classification" or None."""
    for head, rows in _HEADS.items():
        if rows[0].canonical in names:
            return head
    return None


def quantizer_scope(module: str) -> str | None:
    """The canonical scope of a FasterTransformer PyTorch quantizer module; None if the name is not one.

    Example: bert.encoder.layer.0.attention.self.query._weight_quantizer is
    bert/encoder/layer_0/attention/self/query/kernel_quantizer.
    """
    module = _without_wrapping(module)
    if module in _OTHER_MODULES:
        return _OTHER_MODULES[module]
    if not re.fullmatch(r"bert\.encoder\.layer\.\d+\.(\w+\.)+\w*_quantizer", module):
        return None
    parent, _, last = module.rpartition(".")
    last = {pytorch: scope for scope, pytorch in _DENSE_QUANTIZERS}.get(last, last)
    return re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", f"{parent}.{last}").replace(".", "/")


def quantizer_module(scope: str) -> str | None:
    """The FasterTransformer PyTorch module of a canonical quantizer scope; None if the scope is not one."""
    if scope in _OTHER_QUANTIZERS:
        return _OTHER_QUANTIZERS[scope]
    if not re.fullmatch(r"bert/encoder/layer_\d+/(\w+/)+\w*_quantizer", scope):
        return None
    parent, _, last = scope.rpartition("/")
    last = dict(_DENSE_QUANTIZERS).get(last, last)
    return re.sub(r"/layer_(\d+)/", r"/layer/\1/", f"{parent}/{last}").replace("/", ".")


def is_quantizer(scope: str) -> bool:
    """Whether `scope` is that of a quantizer, FasterTransformer's or another (q8bert: embeddings, pooler, head)."""
    return re.fullmatch(r"(\w+/)*\w*_quantizer", scope) is not None


def is_weight_quantizer(scope: str) -> bool:
    """Whether the range of `scope` belongs to a weight (it may be per channel) and not to an activation."""
    return scope.endswith("/kernel_quantizer")


def _without_wrapping(name: str) -> str:
    name = re.sub(r"^((module|_orig_mod)\.)+", "", name)
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _split_layer(name: str, number: str) -> tuple[str, str]:
    """`name` with its layer number replaced by "{n}", and the number ("" when the name has none)."""
    found = re.search(number, name)
    return (name[: found.start()] + "{n}" + name[found.end() :], found.group()) if found else (name, "")
