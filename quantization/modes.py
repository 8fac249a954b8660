"""What is quantized: one table, rows = the tensors of a BERT model, columns = the modes. Every consumer reads it.

Modes ft1, ft2, ft3 and trt place quantizers as FasterTransformer's BERT example does (its TensorFlow and PyTorch
scripts agree); ``ort`` is ft1 with one change: the softmax output is quantized unsigned at the fixed scale 1/255, which
is what onnxruntime's uint8 kernels take and cannot clip the large probabilities of short sequences. ``q8bert`` is NLP
Architect's quantized BERT (Zafrir et al., 2019, arXiv 1910.06188), which finds its ranges in training.
"""

import re
from dataclasses import dataclass, replace

from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING, quantizer_module
from quantization.numerics import QuantizerSettings
from twinquant.errors import UserError

MODE_NAMES = ("ft1", "ft2", "ft3", "trt", "ort")
"""The modes whose ranges come from calibration: the choices of --quant_mode."""
Q8BERT = "q8bert"
"""The mode that finds its ranges in training: --quant_scheme q8bert."""
_COLUMNS = (*MODE_NAMES, Q8BERT)

# A row: scope relative to `bert/encoder/layer_<i>/` | the tensor | in which modes it is quantized ("Y").
# Order of the columns as in _COLUMNS; "layernorm_input" exists only in FasterTransformer's PyTorch twin, off in every
# mode, on only through the twin's individual flags.
_LAYER_TABLE = """
attention/self/query/kernel_quantizer           | query weight                                   | Y Y Y Y Y Y
attention/self/key/kernel_quantizer             | key weight                                     | Y Y Y Y Y Y
attention/self/value/kernel_quantizer           | value weight                                   | Y Y Y Y Y Y
attention/output/dense/kernel_quantizer         | attention output weight                        | Y Y Y Y Y Y
intermediate/dense/kernel_quantizer             | intermediate weight                            | Y Y Y Y Y Y
output/dense/kernel_quantizer                   | output weight                                  | Y Y Y Y Y Y
attention/self/query/input_quantizer            | layer input, as input of the query GEMM        | Y Y Y Y Y Y
attention/self/key/input_quantizer              | layer input, as input of the key GEMM          | Y Y Y Y Y Y
attention/self/value/input_quantizer            | layer input, as input of the value GEMM        | Y Y Y Y Y Y
attention/self/query/aftergemm_quantizer        | query GEMM output before bias                  | - Y Y - - -
attention/self/key/aftergemm_quantizer          | key GEMM output before bias                    | - Y Y - - -
attention/self/value/aftergemm_quantizer        | value GEMM output before bias                  | - Y Y - - -
attention/self/matmul_q_input_quantizer         | Q after bias, input of QK^T                    | Y Y Y Y Y Y
attention/self/matmul_k_input_quantizer         | K after bias, input of QK^T                    | Y Y Y Y Y Y
attention/self/softmax_input_quantizer          | raw QK^T scores, before 1/sqrt(d) and the mask | - - Y - - -
attention/self/matmul_a_input_quantizer         | softmax output after dropout, input of PV      | Y Y Y Y Y -
attention/self/matmul_v_input_quantizer         | V after bias, input of PV                      | Y Y Y Y Y -
attention/output/dense/input_quantizer          | context (PV output), input of the output GEMM  | Y Y Y Y Y Y
attention/output/dense/aftergemm_quantizer      | attention output GEMM output before bias       | - Y Y - - -
attention/output/add_residual_input_quantizer   | residual operand of the first add              | - Y Y Y - -
attention/output/add_local_input_quantizer      | local operand of the first add                 | - - - Y - -
attention/output/layernorm_input_quantizer      | sum before the first LayerNorm                 | - - - - - -
intermediate/dense/input_quantizer              | first LayerNorm's output, input of the GEMM    | Y Y Y Y Y Y
intermediate/dense/aftergemm_quantizer          | intermediate GEMM output before bias and GELU  | - Y Y - - -
output/dense/input_quantizer                    | GELU output, input of the output GEMM          | Y Y Y Y Y Y
output/dense/aftergemm_quantizer                | output GEMM output before bias                 | - Y Y - - -
output/add_residual_input_quantizer             | residual operand of the second add             | - Y Y Y - -
output/add_local_input_quantizer                | local operand of the second add                | - - - Y - -
output/layernorm_input_quantizer                | sum before the second LayerNorm                | - - - - - -
"""
# Relative to `bert/`.
_MODEL_TABLE = """
final_input_quantizer                           | last layer's output                            | - - - Y - -
"""
# Full scopes: tensors outside the encoder, of every model and of models with one head. Calibration leaves them out.
# Token type embeddings (two rows) are never quantized.
_EMBEDDINGS_TABLE = """
bert/embeddings/word_embeddings_quantizer       | word embeddings, the whole table               | - - - - - Y
bert/embeddings/position_embeddings_quantizer   | position embeddings, the whole table           | - - - - - Y
"""
_HEAD_TABLES = {
    CLASSIFICATION: """
bert/pooler/dense/kernel_quantizer              | pooler weight                                  | - - - - - Y
bert/pooler/dense/input_quantizer               | first token's output, input of the pooler GEMM | - - - - - Y
output_weights_quantizer                        | classifier weight                              | - - - - - Y
output_input_quantizer                          | pooler output after dropout                    | - - - - - Y
""",
    QUESTION_ANSWERING: """
cls/squad/output_weights_quantizer              | span head weight                               | - - - - - Y
cls/squad/output_input_quantizer                | last layer's output, input of the span head    | - - - - - Y
""",
}

# Groups of quantizers that share their maximum range where a mode fuses QKV (FasterTransformer runs one GEMM for all
# three and one fused attention kernel, so they need one scale).
QKV_GROUPS = tuple(
    tuple(f"attention/self/{name}" for name in group)
    for group in (
        ("query/kernel_quantizer", "key/kernel_quantizer", "value/kernel_quantizer"),
        ("query/aftergemm_quantizer", "key/aftergemm_quantizer", "value/aftergemm_quantizer"),
        ("matmul_q_input_quantizer", "matmul_k_input_quantizer", "matmul_v_input_quantizer"),
    )
)


@dataclass(frozen=True)
class TensorRow:
    """One row of the table: a quantizer's scope relative to its layer (or to ``bert/``, or full) and where it is on.

    ``head``: which head a model must have to have the tensor; None: any.
    """

    scope: str
    tensor: str
    modes: frozenset[str]
    head: str | None = None

    @property
    def is_weight(self) -> bool:
        return self.scope.endswith(("kernel_quantizer", "embeddings_quantizer", "weights_quantizer"))


def _parse(table: str, head: str | None = None) -> tuple[TensorRow, ...]:
    rows = []
    for line in table.strip().splitlines():
        scope, tensor, marks = (part.strip() for part in line.split("|"))
        modes = frozenset(mode for mode, mark in zip(_COLUMNS, marks.split(), strict=True) if mark == "Y")
        rows.append(TensorRow(scope, tensor, modes, head))
    return tuple(rows)


LAYER_ROWS = _parse(_LAYER_TABLE)
MODEL_ROWS = _parse(_MODEL_TABLE)
HEAD_ROWS = tuple(row for head, table in _HEAD_TABLES.items() for row in _parse(table, head))
OUTER_ROWS = _parse(_EMBEDDINGS_TABLE) + HEAD_ROWS


@dataclass(frozen=True)
class Mode:
    """A column of the table, or a mode put together from the twin's individual flags.

    ``enabled`` holds relative scopes; ``weight`` and ``activation`` are the settings of all quantizers of that kind;
    ``overrides`` those of single quantizers (by relative scope).

    ``ema_decay``: None where ranges come from calibration. Otherwise training finds them: a weight's is the largest
    magnitude of the current weight, and an activation's starts as max|x| of the first batch that is quantized and goes
    on as ``ema -= (1 - ema_decay) * (ema - max|x|)`` with every further one.
    ``start_step``: number of training steps before the first that is quantized (with ``ema_decay`` only);
    ``own_starts`` are those of single quantizers (by relative scope). The later of the two counts, see `start_of`.
    ``excluded``: quantizers by full scope that stay off although the mode enables them, see `quantization.exclusion`.
    """

    name: str
    enabled: frozenset[str]
    per_channel: bool
    fuse_qkv: bool
    weight: QuantizerSettings = QuantizerSettings(narrow_range=True)
    activation: QuantizerSettings = QuantizerSettings()
    overrides: tuple[tuple[str, QuantizerSettings], ...] = ()
    ema_decay: float | None = None
    start_step: int = 0
    own_starts: tuple[tuple[str, int], ...] = ()
    excluded: frozenset[str] = frozenset()

    def enables(self, scope: str, row: TensorRow) -> bool:
        """Whether the quantizer of that full scope, an instance of the row, is on."""
        return row.scope in self.enabled and scope not in self.excluded

    @property
    def learns_ranges(self) -> bool:
        """Whether ranges are found in training, not by calibration."""
        return self.ema_decay is not None

    def start_of(self, row: TensorRow) -> int:
        """How many training steps pass before the row's quantizer works: the later of its own start and the mode's."""
        return max(self.start_step, dict(self.own_starts).get(row.scope, 0))

    def settings(self, row: TensorRow) -> QuantizerSettings:
        """Settings of one row's quantizer; weights carry ``axis=1`` (kernels are [in, out]) when per channel."""
        for scope, settings in self.overrides:
            if scope == row.scope:
                return settings
        if row.is_weight:
            return replace(self.weight, axis=1) if self.per_channel else self.weight
        return self.activation


def _column(name: str, per_channel: bool, fuse_qkv: bool, **settings) -> Mode:
    enabled = frozenset(row.scope for row in LAYER_ROWS + MODEL_ROWS + OUTER_ROWS if name in row.modes)
    return Mode(name, enabled, per_channel, fuse_qkv, **settings)


_UNIT_INTERVAL = QuantizerSettings(signed=False, fixed_scale=1.0 / 255.0)
MODES = {
    "ft1": _column("ft1", per_channel=True, fuse_qkv=False),
    "ft2": _column("ft2", per_channel=False, fuse_qkv=True),
    "ft3": _column("ft3", per_channel=False, fuse_qkv=True),
    "trt": _column("trt", per_channel=False, fuse_qkv=True),
    "ort": _column(
        "ort",
        per_channel=True,
        fuse_qkv=False,
        overrides=(("attention/self/matmul_a_input_quantizer", _UNIT_INTERVAL),),
    ),
}


def get_mode(name: str) -> Mode:
    """The mode of that name; UserError for an unknown one. For q8bert see `q8bert_mode`."""
    if name not in MODES:
        raise UserError(f"--quant_mode: found '{name}', expected one of {', '.join(MODE_NAMES)}")
    return MODES[name]


# NLP Architect's configuration lets a new head settle for 200 steps before it is quantized.
HEAD_START_STEP = 200
_HEAD_STARTS = tuple((row.scope, HEAD_START_STEP) for row in HEAD_ROWS if "output_" in row.scope)
_STRAIGHT_THROUGH = QuantizerSettings(narrow_range=True, straight_through=True)


def q8bert_mode(start_step: int = 0, ema_decay: float = 0.9999) -> Mode:
    """NLP Architect's scheme: symmetric, per tensor, from -127 to 127; ranges are found in training (see Mode).

    Weights and inputs of all dense layers, the pooler's and the head's included, word and position embeddings, and Q
    and K after their bias are quantized; V, attention probabilities, LayerNorm and residual sums are not.

    Args:
        start_step: --start_step, the number of training steps that run in float before the first quantized one. The
            head starts after 200 steps at the earliest. Before its start a quantizer only looks on: its range is that
            of the last step, so that a model saved early can be evaluated quantized too.
        ema_decay: --ema_decay, in [0, 1).
    """
    if start_step < 0:
        raise UserError(f"--start_step: found {start_step}, expected a number of steps of at least 0")
    if not 0 <= ema_decay < 1:
        raise UserError(f"--ema_decay: found {ema_decay}, expected a number of at least 0 and less than 1")
    return _column(
        Q8BERT,
        per_channel=False,
        fuse_qkv=False,
        weight=_STRAIGHT_THROUGH,
        activation=_STRAIGHT_THROUGH,
        ema_decay=ema_decay,
        start_step=start_step,
        own_starts=_HEAD_STARTS,
    )


def custom_mode(
    per_channel: bool = True,
    fuse_qkv: bool = False,
    disabled_keywords: tuple[str, ...] = (),
    narrow_range: bool = False,
    weight_bits: int = 8,
    activation_bits: int = 8,
) -> Mode:
    """A mode from FasterTransformer's PyTorch flags: everything on but the quantizers whose name a keyword matches.

    Keywords are regular expressions searched in the dotted PyTorch module name (as the twin did) and in the scope.
    """
    enabled = set()
    for prefix, rows in (("bert/encoder/layer_0/", LAYER_ROWS), ("bert/", MODEL_ROWS)):
        for row in rows:
            scope = prefix + row.scope
            names = (scope, quantizer_module(scope))
            if not any(_search(keyword, name) for keyword in disabled_keywords for name in names):
                enabled.add(row.scope)
    return Mode(
        "custom",
        frozenset(enabled),
        per_channel,
        fuse_qkv,
        weight=QuantizerSettings(num_bits=weight_bits, narrow_range=True),
        activation=QuantizerSettings(num_bits=activation_bits, narrow_range=narrow_range),
    )


def _search(keyword: str, name: str | None) -> bool:
    try:
        return name is not None and re.search(keyword, name) is not None
    except re.error as error:
        raise UserError(f"--quant-disable-keyword: '{keyword}' is not a regular expression ({error})") from error


def feeds_product(scope: str) -> bool:
    """Whether a quantizer's tensor is an operand of a matrix product: a weight, a GEMM's input, or Q, K, V, softmax."""
    name = scope.rsplit("/", 1)[-1]
    operands = ("kernel_quantizer", "input_quantizer", "output_weights_quantizer", "output_input_quantizer")
    return name in operands or name.startswith("matmul_")


def is_calibrated(scope: str) -> bool:
    """Whether calibration finds the range of that quantizer: those of the encoder, in every mode."""
    return scope.startswith("bert/encoder/") or scope.removeprefix("bert/") in {row.scope for row in MODEL_ROWS}


def all_quantizers(num_hidden_layers: int, head: str | None = None) -> dict[str, TensorRow]:
    """Every quantizer of a model by its full scope, layer by layer, in the table's order.

    head: that of the model; None leaves out the quantizers outside the encoder, which only q8bert has.
    """
    quantizers = {
        f"bert/encoder/layer_{layer}/{row.scope}": row for layer in range(num_hidden_layers) for row in LAYER_ROWS
    }
    quantizers |= {f"bert/{row.scope}": row for row in MODEL_ROWS}
    return quantizers | {row.scope: row for row in OUTER_ROWS if head is not None and row.head in (None, head)}


def enabled_quantizers(num_hidden_layers: int, mode: Mode, head: str | None = None) -> dict[str, QuantizerSettings]:
    """The quantizers that a mode turns on, by full scope, with their settings; head as in `all_quantizers`."""
    return {
        scope: mode.settings(row)
        for scope, row in all_quantizers(num_hidden_layers, head).items()
        if mode.enables(scope, row)
    }
