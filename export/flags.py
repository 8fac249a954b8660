"""The flags of `python -m export`: one table per command; rows that the scripts share: twinquant/export_flags.py."""

from dataclasses import dataclass, fields, replace
from typing import Any

from backends import BACKEND_NAMES
from export.source import TASK_HEADS
from export.verdict import BOUNDS_ON_DATA, Bounds, bounds_in_use
from quantization.modes import MODE_NAMES
from twinquant.errors import UserError
from twinquant.export_flags import (
    CHECK_EXAMPLES,
    CPU,
    INT8_EMBEDDINGS,
    PORTABLE,
    PRECISION,
    QUANT_EXCLUDE,
    REDUCE_RANGE,
    TARGET,
    TRITON_FLAGS,
    check_form,
    check_triton_name,
)
from twinquant.flag_rules import note_idle_flags
from twinquant.flags import Flag, ParsedFlags, parse_flags
from twinquant.glue_flags import CLASS_FILE, LABEL_COLUMN, TEXT_COLUMN
from twinquant.words import no_effect

ONNX_HEAD = r"""
python -m export onnx: write a checkpoint as an ONNX model, check it, and leave it only if it passes.

  python -m export onnx --checkpoint=out/ptq/model.ckpt-calibrated --output=onnx/int8 --precision=int8

writes onnx/int8/model.onnx with config.json and the tokenizer's files, so that optimum and
transformers load the folder. The checkpoint may be a TensorFlow checkpoint's prefix, a Hugging Face
folder, or a FasterTransformer state dict; equal weights give equal bytes. Neither tensorflow nor
torch is needed to write a model; either is needed to compare it with its checkpoint.
"""
CHECK_HEAD = r"""
python -m export check: run an exported model under onnxruntime and its checkpoint under a backend, on
the same data, and say what differs. Exit code 1 where a bound is broken.

  python -m export check --model=onnx/int8/model.onnx --checkpoint=out/ptq/model.ckpt-calibrated \
      --data=dev-v1.1.json --max_examples=500

  python -m export check --model=onnx/mrpc --checkpoint=out/mrpc/model.ckpt-343 --data=glue/MRPC --task_name=MRPC

  python -m export check --model=onnx/mine --checkpoint=out/mine/model.ckpt-90 --data=dev.csv --label_column=topic

Without --data random tokens are compared.
"""
TRITON_HEAD = r"""
python -m export triton: put an exported model into a model repository of the Triton Inference Server.

  python -m export triton --model=onnx/int8 --output=repository --model_name=squad

writes repository/squad/1/model.onnx, with the files beside it, and repository/squad/config.pbtxt for
Triton's ONNX Runtime backend.
"""


def _sentence(text: str) -> str:
    """The text without its "With --export_trtis: ", which is what this command does."""
    rest = text.partition(": ")[2]
    return rest[0].upper() + rest[1:]


# fmt: off
MODEL_FLAGS = (
    Flag("bert_config_file", str, None, "model and checkpoints", "The model's configuration, where none lies beside "
         "the checkpoint.", metavar="FILE"),
    Flag("task", str, "auto", "model and checkpoints", "Which head is meant, where the checkpoint has two.",
         choices=("auto", *TASK_HEADS)),
)

# What `make_task` of data.py needs.
DATA_FLAGS = (
    Flag("task_name", str, None, "data", "Of classification: the GLUE task of the data; not of a file of your own.",
         metavar="NAME"),
    TEXT_COLUMN,
    LABEL_COLUMN,
    replace(CLASS_FILE, help="The names of the classes, one a line, in the order of the labels 0, 1, ...; when not "
            "given, those of the checkpoint."),
    Flag("vocab_file", str, None, "data", "The vocabulary, where none lies beside the checkpoint.", metavar="FILE"),
    Flag("do_lower_case", bool, None, "data", "Lower-case the text. When not given: as the checkpoint's files say, "
         "else on."),
    Flag("max_seq_length", int, None, "data", "Length of a window of SQuAD (384 when not given) or of a row of GLUE "
         "(128); at most the model's.", within="[6, inf)"),
    Flag("doc_stride", int, 128, "data", "SQuAD: tokens between the starts of two windows.", within="[1, inf)"),
    Flag("max_query_length", int, 64, "data", "SQuAD: longer questions are cut to this many tokens.",
         within="[1, inf)"),
    Flag("max_answer_length", int, 30, "data", "SQuAD: longest answer, in word pieces.", within="[1, inf)"),
    Flag("n_best_size", int, 20, "data", "SQuAD: number of candidate answers per question.", within="[1, inf)"),
    Flag("version_2_with_negative", bool, False, "data", "The data is SQuAD 2.0."),
    Flag("null_score_diff_threshold", float, 0.0, "data", "SQuAD 2.0: as of run_squad.py."),
    Flag("predict_batch_size", int, 8, "data", "Rows per step.", within="[1, inf)"),
)

CHECKPOINT_FLAGS = (
    Flag("checkpoint", str, None, "model and checkpoints", "Required: the checkpoint, in any form that the scripts' "
         "--init_checkpoint takes.", metavar="PATH"),
    *MODEL_FLAGS,
)

BACKEND = Flag("backend", str, None, "runtime", "The framework of the checkpoint's side. When not given: pytorch if it "
               "is installed, else tensorflow.", choices=BACKEND_NAMES)
_CHECKING = (
    BACKEND,
    Flag("threads", int, 0, "runtime", "Threads of onnxruntime; 0: one per core.", within="[0, inf)"),
    *DATA_FLAGS,
    Flag("max_logit_difference", float, None, "prediction", "fp32: the most that a logit may differ. When not given: "
         f"{Bounds.max_logit_difference:g}.", within="[0, inf)"),
    Flag("max_layer_difference", float, None, "prediction", "int8: the most that a layer, given the same input, may "
         "differ on the mean, as a share of what quantization changes in it. When not given: "
         f"{Bounds.max_layer_difference:g}.", within="[0, inf)"),
    Flag("min_equal_answers", float, None, "prediction", "int8 on data: the least percentage of equal answers. When "
         f"not given: {Bounds.min_equal_answers:g} of int8, where a single answer may always differ; 0 of "
         "int8-dynamic, which is compared with the float model.", within="[0, 100]"),
    Flag("max_score_difference", float, None, "prediction", "int8 on data: the most that the main score (F1, accuracy) "
         f"may differ, in points of 100. When not given: {Bounds.max_score_difference:g} of int8, or what a single "
         "different answer makes; 1 of int8-dynamic.", within="[0, inf)"),
    Flag("max_relative_difference", float, None, "prediction", "int8 on random tokens: the mean difference of logits "
         "as a share of what quantization changes (of int8-dynamic: of the logits' spread). When not given: "
         f"{Bounds.max_relative_difference:g}, and 0.5 of int8-dynamic.", within="[0, inf)"),
)

ONNX_FLAGS = (
    *CHECKPOINT_FLAGS,
    Flag("output", str, None, "export", "Required: the model's file, ending in .onnx, or a folder for model.onnx.",
         metavar="PATH"),
    PRECISION,
    TARGET,
    PORTABLE,
    Flag("quant_mode", str, None, "export", "int8: which tensors are quantized. When not given: the mode that "
         "calibration.json beside the checkpoint tells.", choices=MODE_NAMES),
    QUANT_EXCLUDE,
    INT8_EMBEDDINGS,
    REDUCE_RANGE,
    CPU,
    Flag("check", bool, True, "export", "Check the model before it gets its name (see `python -m export check`)."),
    Flag("check_data", str, None, "export", "Check on this SQuAD file, GLUE folder (with --task_name) or file of your "
         "own texts, and not on random tokens.", aliases=("data",), metavar="PATH"),
    replace(CHECK_EXAMPLES, aliases=("max_examples",)),
    *_CHECKING,
)

CHECK_FLAGS = (
    Flag("model", str, None, "model and checkpoints", "Required: the exported model, a .onnx file or a folder with "
         "model.onnx.", metavar="PATH"),
    *CHECKPOINT_FLAGS,
    Flag("data", str, None, "data", "What to compare on: a SQuAD file, with --task_name a GLUE folder, or a "
         "file of your own texts.", aliases=("check_data",), metavar="PATH"),
    Flag("max_examples", int, None, "data", "Take only the first examples.", aliases=("check_examples",),
         within="[1, inf)"),
    Flag("json_summary", str, None, "prediction", "A file to which the report is written too, as JSON.",
         metavar="FILE"),
    *_CHECKING,
)

TRITON_COMMAND_FLAGS = (
    Flag("model", str, None, "model and checkpoints", "Required: the exported model, a .onnx file or a folder with "
         "model.onnx.", metavar="PATH"),
    Flag("output", str, None, "export", "Required: the model repository, a folder.", metavar="FOLDER"),
    *(replace(flag, name=flag.name.removeprefix("trtis_"), help=_sentence(flag.help)) for flag in TRITON_FLAGS),
)
# fmt: on


@dataclass(frozen=True)
class Arguments:
    """A parsed command line: `values` by flag, `notes` for the user."""

    values: dict[str, Any]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def bounds(self, precision: str) -> Bounds:
        """The bounds that the flags set, with the defaults of that precision."""
        dynamic = precision == "int8-dynamic"
        defaults = {
            "max_logit_difference": Bounds.max_logit_difference,
            "min_equal_answers": 0.0 if dynamic else Bounds.min_equal_answers,
            "max_score_difference": 1.0 if dynamic else Bounds.max_score_difference,
            "max_layer_difference": Bounds.max_layer_difference,
            "max_relative_difference": 0.5 if dynamic else Bounds.max_relative_difference,
        }
        given = {name: self[name] for name in defaults if self[name] is not None}
        return Bounds(**(defaults | given), one_may_differ=not dynamic and not BOUNDS_ON_DATA & set(given))

    def idle_bounds(self, precision: str, on_data: bool) -> list[str]:
        """A warning of the bounds that were given and that nothing of such a model is held to."""
        used = bounds_in_use(precision, on_data)
        given = [field.name for field in fields(Bounds) if self.values.get(field.name) is not None]
        idle = [f"--{name}" for name in given if name not in used]
        data = "data" if on_data else "random tokens"
        return [f"warning: {no_effect(idle)} on a model of precision {precision}, compared on {data}."] if idle else []


def parse_onnx_flags(argv: list[str]) -> Arguments:
    """The command line of `python -m export onnx`; UserError for what cannot be meant."""
    parsed = parse_flags(ONNX_FLAGS, argv, "python -m export onnx", ONNX_HEAD)
    require(parsed, "checkpoint", "the checkpoint to export")
    require(parsed, "output", "the model's file (.onnx) or folder")
    values = parsed.values
    for name in ("quant_mode", "quant_exclude"):
        if parsed.given(name) and values["precision"] != "int8":
            raise UserError(f"--{name} belongs to --precision=int8, found --precision={values['precision']}")
    check_form(values, parsed.notes)
    # The card tells these two, checked or not.
    of_data = {flag.name for flag in DATA_FLAGS} - {"max_seq_length", "do_lower_case"} | {"check_examples"}
    of_check = {flag.name for flag in _CHECKING} - {"max_seq_length", "do_lower_case"} | {"check_data"}
    if values["check"]:
        note_idle_flags(parsed, ONNX_FLAGS, "check_data", of_data, values["check_data"] is not None, "warning")
    else:
        note_idle_flags(parsed, ONNX_FLAGS, "check", of_data | of_check, level="warning")
    arguments = Arguments(values, ())
    bounds = arguments.idle_bounds(values["precision"], values["check_data"] is not None) if values["check"] else []
    return Arguments(values, (*parsed.notes, *bounds))


def parse_check_flags(argv: list[str]) -> Arguments:
    """The command line of `python -m export check`."""
    parsed = parse_flags(CHECK_FLAGS, argv, "python -m export check", CHECK_HEAD)
    require(parsed, "model", "the exported model")
    require(parsed, "checkpoint", "the checkpoint it was made from")
    of_data = {flag.name for flag in DATA_FLAGS} | {"max_examples"}
    note_idle_flags(parsed, CHECK_FLAGS, "data", of_data, parsed.values["data"] is not None, "warning")
    return Arguments(parsed.values, tuple(parsed.notes))


def parse_triton_flags(argv: list[str]) -> Arguments:
    """The command line of `python -m export triton`."""
    parsed = parse_flags(TRITON_COMMAND_FLAGS, argv, "python -m export triton", TRITON_HEAD)
    require(parsed, "model", "the exported model")
    require(parsed, "output", "the model repository")
    check_triton_name(parsed.values["model_name"], "--model_name")
    return Arguments(parsed.values, tuple(parsed.notes))


def onnx_arguments(**values: Any) -> Arguments:
    """The arguments of `python -m export onnx` without a command line: those given, the others at their defaults."""
    return Arguments({flag.name: flag.default for flag in ONNX_FLAGS} | values, ())


def require(parsed: ParsedFlags, name: str, what: str) -> None:
    """Raises UserError where a flag that a command cannot do without was not given; `what` it stands for."""
    if parsed.values[name] is None:
        raise UserError(f"--{name} is required: {what}")
