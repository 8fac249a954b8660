"""Which quantization the flags ask for: a scheme, in it a mode of the table or a mode of the user's own, or none."""

import re
from importlib.util import find_spec
from typing import Any

from twinquant.errors import UserError
from twinquant.export_flags import exports
from twinquant.flags import ParsedFlags
from twinquant.words import no_effect

# The PyTorch original's single settings, that a --quant_mode sets all at once.
SINGLE_SETTINGS = ("quant_per_tensor", "fuse_qkv", "narrow_range", "quant_disable_keyword", "wprec", "aprec")


def choose_scheme(parsed: ParsedFlags) -> None:
    """Settle `quant_scheme`, with --model_type quant_bert as another spelling of q8bert, and what it excludes."""
    values = parsed.values
    if values["model_type"] == "quant_bert":
        if parsed.given("quant_scheme") and values["quant_scheme"] != "q8bert":
            raise UserError(
                f"--model_type quant_bert contradicts --quant_scheme={values['quant_scheme']}: it is q8bert."
            )
        if not parsed.given("quant_scheme"):
            values["quant_scheme"] = "q8bert"
            parsed.notes.append("note: --model_type quant_bert is taken as --quant_scheme=q8bert.")
    scheme = values["quant_scheme"]
    if values["load_quantized_model"] and scheme != "q8bert":
        raise UserError(
            f"--load_quantized_model needs --quant_scheme=q8bert (or --model_type quant_bert), whose int8 file it "
            f"reads, found {scheme}."
        )
    if scheme == "q8bert":
        _settle_q8bert(parsed)
    elif scheme == "dynamic":
        _settle_dynamic(parsed)


def choose_quantization(parsed: ParsedFlags, dialect: str, predicts: bool) -> dict[str, Any] | None:
    """Settle `if_quant` and `quant_mode`; returns the arguments of `quantization.modes.custom_mode`, or None.

    An explicit --quant_mode wins over the single settings, as in the original, with a warning that names them. Single
    settings alone, or the PyTorch script's flags without --quant_mode, make a custom mode and leave `quant_mode` None.
    predicts: whether the run predicts, after or without training.
    """
    values = parsed.values
    _check_quant_disable(parsed)
    for keyword in values["quant_disable_keyword"]:
        try:
            re.compile(keyword)
        except re.error as error:
            raise UserError(
                f"{parsed.spelling('quant_disable_keyword')} takes regular expressions, found {keyword!r} ({error})."
            ) from None
    single = [parsed.spelling(name) for name in SINGLE_SETTINGS if parsed.given(name)]
    custom = None
    if parsed.given("quant_mode"):
        if single:
            parsed.notes.append(
                f"warning: {no_effect(single)} beside --quant_mode={values['quant_mode']}, which sets all of that; "
                "leave --quant_mode out to use them."
            )
    elif single or dialect == "pytorch":
        values["quant_mode"] = None
        custom = {
            "per_channel": not values["quant_per_tensor"],
            "fuse_qkv": values["fuse_qkv"],
            "disabled_keywords": tuple(values["quant_disable_keyword"]),
            "narrow_range": values["narrow_range"],
            "weight_bits": values["wprec"],
            "activation_bits": values["aprec"],
        }
        if single:
            parsed.notes.append(
                f"note: {', '.join(single)} without --quant_mode: the mode is the PyTorch script's, every quantizer on "
                f"but those left out by name ({_describe(custom)})."
            )
    _note_without_effect(parsed, predicts)
    return custom


def _settle_q8bert(parsed: ParsedFlags) -> None:
    values = parsed.values
    names = ("quant_mode", "quant_exclude", *SINGLE_SETTINGS)
    static = [parsed.spelling(name) for name in names if parsed.given(name)]
    if static:
        raise UserError(
            f"{', '.join(static)} {'contradicts' if len(static) == 1 else 'contradict'} --quant_scheme=q8bert, which "
            "says itself what is quantized; leave one of the two out."
        )
    if values["do_calib"]:
        raise UserError("--do_calib contradicts --quant_scheme=q8bert, which finds its ranges while training.")
    if values["quant_disable"] or (parsed.given("if_quant") and not values["if_quant"]):
        off = parsed.spelling("quant_disable") if values["quant_disable"] else "--if_quant=False"
        raise UserError(f"{off} contradicts --quant_scheme=q8bert, which quantizes; leave one of the two out.")
    if values["load_quantized_model"] and values["do_train"]:
        raise UserError(
            "--load_quantized_model contradicts --do_train: a model of int8 weights cannot be trained; train from the "
            "float32 checkpoint beside it."
        )
    # The scheme is a column of the table of modes, so whoever runs the model asks for it by name as for the others.
    values["if_quant"], values["quant_mode"] = True, "q8bert"


def _settle_dynamic(parsed: ParsedFlags) -> None:
    values = parsed.values
    if values["backend"] == "tensorflow":
        raise UserError(
            "--quant_scheme=dynamic contradicts --backend=tensorflow: dynamic quantization is PyTorch's; for "
            "TensorFlow, use --quant_mode=ft1 with --do_calib --if_quant instead."
        )
    if parsed.given("if_quant") and values["if_quant"]:
        raise UserError(
            "--if_quant contradicts --quant_scheme=dynamic, which quantizes the trained float model; leave one of the "
            "two out."
        )
    if parsed.given("quant_exclude"):
        raise UserError("--quant_exclude contradicts --quant_scheme=dynamic, which quantizes every nn.Linear.")
    if values["do_calib"]:
        raise UserError("--do_calib contradicts --quant_scheme=dynamic, which finds its ranges as it predicts.")
    if values["use_fp16"]:
        raise UserError(
            f"{parsed.spelling('use_fp16')} contradicts --quant_scheme=dynamic, which is compared with the model in "
            "float32; train with it in a call of its own."
        )
    if values["eval_all_checkpoints"]:
        raise UserError(
            f"{parsed.spelling('eval_all_checkpoints')} contradicts --quant_scheme=dynamic, which quantizes one model; "
            "give each checkpoint as --init_checkpoint of a call of its own."
        )
    if not (values["do_eval"] or values["do_predict"]):
        parsed.notes.append(
            "note: --quant_scheme=dynamic has no effect without --do_eval or --do_predict: training is in floating "
            "point."
        )
    if values["dynamic_engine"] == "torchao" and values["quantized_engine"] != "auto":
        raise UserError(
            f"--quantized_engine={values['quantized_engine']} contradicts --dynamic_engine=torchao, which has no "
            "engines to choose from; leave one of the two out."
        )
    _check_dynamic_packages(parsed)
    if values["backend"] is None:
        values["backend"] = "pytorch"
        parsed.notes.append("note: --quant_scheme=dynamic is PyTorch's, so the backend is pytorch.")


def _check_dynamic_packages(parsed: ParsedFlags) -> None:
    """They are used after the training, which is a late moment to learn that they are not there."""
    needed = {"torch": ("--quant_scheme=dynamic", "pytorch")}
    if parsed.values["dynamic_engine"] == "torchao":
        needed["torchao"] = (f"{parsed.spelling('dynamic_engine')}=torchao", "torchao")
    for package, (flag, extra) in needed.items():
        if find_spec(package) is None:
            raise UserError(f"{flag} needs the package {package}, not installed; pip install '.[{extra}]' installs it.")


def _check_quant_disable(parsed: ParsedFlags) -> None:
    # if_quant is off already: by default, or because choose_dialect leaves it so beside --quant-disable.
    values = parsed.values
    if not values["quant_disable"]:
        return
    spelling = parsed.spelling("quant_disable")
    if parsed.given("if_quant") and values["if_quant"]:
        raise UserError(f"{spelling} contradicts --if_quant=True; give one of them.")
    if parsed.given("quant_mode"):
        parsed.notes.append(
            f"note: {spelling} turns quantization off although --quant_mode={values['quant_mode']} is given (the "
            "PyTorch original ignored it there)."
        )


def _note_without_effect(parsed: ParsedFlags, predicts: bool) -> None:
    values = parsed.values
    runs_model = values["do_train"] or predicts
    if parsed.given("if_quant") and values["if_quant"] and not (runs_model or exports(values)):
        parsed.notes.append("note: --if_quant has no effect while calibrating; it is for training and prediction.")
    if values["if_quant"] or not runs_model or parsed.given("if_quant") or values["quant_disable"]:
        return
    settings = [
        parsed.spelling(name) for name in ("quant_mode", "quant_exclude", *SINGLE_SETTINGS) if parsed.given(name)
    ]
    if values["do_calib"]:
        work = "training" if values["do_train"] else "prediction"
        parsed.notes.append(f"warning: {work} after calibration runs without quantization: --if_quant is off.")
    elif settings:
        parsed.notes.append(f"warning: {no_effect(settings)} without --if_quant.")


def _describe(custom: dict[str, Any]) -> str:
    shown = custom | {"disabled_keywords": " ".join(custom["disabled_keywords"]) or "none"}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
