"""How a model is exported: flags of both scripts, whose rows `python -m export` shares, and what they decide.

Importing this needs neither onnx nor onnxruntime.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from export.cpu import CPUS
from export.settings import PRECISIONS, TARGETS
from twinquant.errors import UserError
from twinquant.flag_rules import note_idle_flags
from twinquant.flags import Flag, ParsedFlags

# fmt: off
PRECISION = Flag("precision", str, "fp32", "export", "The numbers of the products: fp32; int8 with the checkpoint's "
                 "calibrated or trained ranges; int8-dynamic, which finds the ranges of activations at run time.",
                 choices=PRECISIONS)
TARGET = Flag("target", str, "onnxruntime", "export", "The runtime: onnxruntime takes the form that is fastest on x86 "
              "CPUs; openvino and tensorrt take signed pairs of QuantizeLinear and DequantizeLinear.", choices=TARGETS)
PORTABLE = Flag("portable", bool, False, "export", "Standard ONNX operators only (the other targets have no others).")
QUANT_EXCLUDE = Flag("quant_exclude", list, (), "export", "int8: quantizers to leave in float, names or parts of "
                     "names, or a file of them (see `python -m export sensitivity`). When not given: those that "
                     "calibration.json tells.", metavar="FILE|PATTERN [...]")
INT8_EMBEDDINGS = Flag("int8_embeddings", bool, False, "export", "Store the embedding tables as int8 with one scale "
                       "per row.")
REDUCE_RANGE = Flag("reduce_range", bool, None, "export", "Weights of 7 bits, for CPUs whose int8 products "
                    "saturate (onnxruntime only). When not given: on where --cpu has no VNNI.")
CPU = Flag("cpu", str, "this", "export", "The CPU that the model is for.", choices=CPUS)
CHECK_EXAMPLES = Flag("check_examples", int, 32, "export", "Number of examples of --check_data.", within="[1, inf)")


def _of_a_script(flag: Flag, alias: bool = True, **changes: Any) -> Flag:
    aliases = (flag.name,) if alias else ()
    return replace(flag, name=f"export_{flag.name}", aliases=aliases, kept=False, **changes)


_TRITON = "With --export_trtis: "
TRITON_FLAGS = (
    Flag("trtis_model_name", str, "bert", "export", f"{_TRITON}the model's name in the repository.", metavar="NAME",
         kept=False),
    Flag("trtis_model_version", int, 1, "export", f"{_TRITON}the model's version.", within="[1, inf)", kept=False),
    Flag("trtis_model_overwrite", bool, False, "export", f"{_TRITON}replace a model of that name and version, and the "
         "configuration that its versions share.", kept=False),
    Flag("trtis_max_batch_size", int, 8, "export", f"{_TRITON}the most rows of a request, and of requests that are "
         "joined.", within="[1, inf)", kept=False),
    Flag("trtis_dyn_batching_delay", float, 0.0, "export", f"{_TRITON}milliseconds that a request waits for others to "
         "be joined with; 0 or -1: none.", within="[-1, inf)", kept=False),
    Flag("trtis_engine_count", int, 1, "export", f"{_TRITON}instances of the model.", within="[1, inf)", kept=False),
)
EXPORT_FLAGS = (
    Flag("export_onnx", str, None, "export", "After the last phase, write the model that the run ended with as ONNX: a "
         "path ending in .onnx, or a folder for model.onnx. It is checked against its checkpoint, and left only if it "
         "passes. Without another phase: the model of --init_checkpoint.", metavar="PATH", kept=False),
    _of_a_script(PRECISION, alias=False, default=None, help=f"{PRECISION.help} When not given: int8 with --if_quant "
                 "and after a calibration alone, else fp32 (of dynamic quantization: int8-dynamic)."),
    _of_a_script(TARGET, alias=False),
    _of_a_script(PORTABLE),
    _of_a_script(INT8_EMBEDDINGS),
    _of_a_script(REDUCE_RANGE),
    _of_a_script(CPU),
    _of_a_script(CHECK_EXAMPLES, alias=False, help="Number of examples of the data to predict that the model is "
                 "checked on; without such data, on random tokens."),
    Flag("export_trtis", bool, False, "export", "Write the model, exported as with --export_onnx, into a model "
         "repository of the Triton (once TensorRT) Inference Server, trtis_models in --output_dir.", kept=False),
    *TRITON_FLAGS,
    Flag("trtis_server_url", str, "localhost:8001", "export", "Has no effect, nor had it in the original.", kept=False,
         note="has no effect, nor had it in the original: the repository is written, no server is called."),
)
# fmt: on
_FORM = ("precision", "target", "portable", "int8_embeddings", "reduce_range", "cpu", "check_examples")
_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def exports(values: Mapping[str, Any]) -> bool:
    """Whether the flags of a script ask for an export."""
    return values["export_onnx"] is not None or values["export_trtis"]


def choose_export(parsed: ParsedFlags, predicts: bool, custom_mode: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a script exports, as values that JSON holds; None: nothing.

    Keys: "onnx", the path or None; "triton", the keyword arguments of `export.triton.TritonSettings` or None; and
    those of `python -m export onnx` of the same names: precision, target, portable, int8_embeddings, reduce_range, cpu,
    check_examples, quant_mode (None: what calibration.json says).

    To be called when the quantization is settled. Raises UserError for what cannot be exported, or without onnx or
    onnxruntime: before a training and not after it.

    Args:
        predicts: whether the run predicts.
        custom_mode: the mode of single settings, where they were given in the place of --quant_mode.
    """
    values = parsed.values
    _note_idle(parsed)
    if not exports(values):
        return None
    flag = parsed.spelling("export_onnx" if values["export_onnx"] is not None else "export_trtis")
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError(f"{flag} needs the package {package}, not installed; pip install '.[export]' installs it.")
    form = {name: values[f"export_{name}"] for name in _FORM}
    form["precision"] = form["precision"] or _default_precision(values, predicts)
    form["quant_mode"] = _choose_mode(parsed, predicts) if form["precision"] == "int8" else None
    _check_scheme(parsed, flag, form["precision"], custom_mode)
    check_form(form, parsed.notes, "export_")
    if values.get("num_runs", 1) > 1:
        raise UserError(f"{flag} exports one model, but --num_runs={values['num_runs']} trains as many; choose one.")
    only_export = not (values["do_train"] or values["do_calib"] or predicts)
    if only_export and parsed.given("quant_mode") and form["precision"] != "int8":
        parsed.notes.append(
            f"warning: --quant_mode has no effect: the model is exported in {form['precision']} (--if_quant or "
            "--export_precision=int8 quantizes it)."
        )
    return {"onnx": values["export_onnx"], "triton": _choose_triton(parsed), **form}


def check_form(form: dict[str, Any], notes: list[str], prefix: str = "") -> None:
    """Refuses what no model can be; `prefix` is what the flags' names begin with beside those of `python -m export`."""
    precision, target = form["precision"], form["target"]
    if precision == "int8-dynamic" and target != "onnxruntime":
        raise UserError(
            f"--{prefix}precision=int8-dynamic is for onnxruntime: {target} has no fast form of it; use int8"
        )
    if form["reduce_range"] and (precision == "fp32" or target != "onnxruntime"):
        raise UserError(
            f"--{prefix}reduce_range is for int8 models of --{prefix}target=onnxruntime, whose kernels may saturate"
        )
    if target == "tensorrt" and form["quant_mode"] == "ort":
        raise UserError(
            "--quant_mode=ort rounds probabilities to unsigned integers, which TensorRT lacks; use ft1 or trt"
        )
    if target == "tensorrt" and form["int8_embeddings"]:
        raise UserError(f"--{prefix}int8_embeddings is not for TensorRT, which looks up no int8 tables")
    if form["portable"] and target != "onnxruntime":
        notes.append(f"note: --{prefix}portable has no effect: --{prefix}target={target} has standard operators only.")
        form["portable"] = False


def check_triton_name(name: str, flag: str) -> None:
    """A model's name is a folder's: UserError for one with other signs than letters, digits, `_`, `-` and `.`."""
    if not _MODEL_NAME.fullmatch(name):
        raise UserError(f"{flag} takes letters, digits, '_', '-' and '.', found {name!r}.")


def _default_precision(values: Mapping[str, Any], predicts: bool) -> str:
    if values.get("quant_scheme") == "dynamic":
        return "int8-dynamic"
    only_calibrates = values["do_calib"] and not (values["do_train"] or predicts)
    return "int8" if values["if_quant"] or only_calibrates else "fp32"


def _choose_mode(parsed: ParsedFlags, predicts: bool) -> str | None:
    """The run's mode; of a model that is only exported and was calibrated before, what calibration.json says."""
    values = parsed.values
    runs = values["do_train"] or values["do_calib"] or predicts
    return values["quant_mode"] if runs or parsed.given("quant_mode") else None


def _check_scheme(parsed: ParsedFlags, flag: str, precision: str, custom_mode: Mapping[str, Any] | None) -> None:
    values = parsed.values
    if values.get("load_quantized_model"):
        raise UserError(
            f"{flag} contradicts --load_quantized_model, whose int8 file holds rounded weights; leave it out to export "
            "the float32 checkpoint beside that file."
        )
    if precision != "int8":
        return
    if values.get("quant_scheme") == "q8bert":
        raise UserError(
            f"{flag} has no int8 form of --quant_scheme=q8bert, which quantizes embeddings and heads too; "
            "--export_precision=fp32 or int8-dynamic exports the trained float32 weights."
        )
    if values["do_train"] and not values["if_quant"]:
        raise UserError(
            f"{flag} writes no int8 model of a training in float, whose weights are others than those that were "
            "calibrated: give --if_quant, or calibrate and export the trained model in a call of its own."
        )
    if custom_mode is not None:
        raise UserError(
            f"{flag} writes int8 models of the modes of --quant_mode; without it, single settings make a mode of its "
            "own: give --quant_mode, or --export_precision=fp32 or int8-dynamic."
        )


def _choose_triton(parsed: ParsedFlags) -> dict[str, Any] | None:
    values = parsed.values
    if not values["export_trtis"]:
        return None
    check_triton_name(values["trtis_model_name"], "--trtis_model_name")
    return {flag.name.removeprefix("trtis_"): values[flag.name] for flag in TRITON_FLAGS}


def _note_idle(parsed: ParsedFlags) -> None:
    triton = {flag.name for flag in TRITON_FLAGS}
    form = {f"export_{name}" for name in _FORM}
    note_idle_flags(parsed, EXPORT_FLAGS, "export_trtis", triton)
    note_idle_flags(parsed, EXPORT_FLAGS, "export_onnx", form, active=exports(parsed.values))
