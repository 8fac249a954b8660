"""Which quantization the flags ask for: a mode of the table, a mode of the user's own, or none."""

import re
from typing import Any

from twinquant.errors import UserError
from twinquant.flags import ParsedFlags

# The PyTorch original's single settings, that a --quant_mode sets all at once.
SINGLE_SETTINGS = ("quant_per_tensor", "fuse_qkv", "narrow_range", "quant_disable_keyword", "wprec", "aprec")


def choose_quantization(parsed: ParsedFlags, dialect: str) -> dict[str, Any] | None:
    """Settle `if_quant` and `quant_mode`; returns the arguments of `quantization.modes.custom_mode`, or None.

    An explicit --quant_mode wins over the single settings, as in the original, with a warning that names them. Single
    settings alone, or the PyTorch script's flags without --quant_mode, make a custom mode and leave `quant_mode` None.
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
                f"warning: {', '.join(single)} {'has' if len(single) == 1 else 'have'} no effect beside "
                f"--quant_mode={values['quant_mode']}, which sets all of that; leave --quant_mode out to use them."
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
    _note_without_effect(parsed)
    return custom


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


def _note_without_effect(parsed: ParsedFlags) -> None:
    values = parsed.values
    runs_model = values["do_train"] or values["do_predict"]
    if parsed.given("if_quant") and values["if_quant"] and not runs_model:
        parsed.notes.append("note: --if_quant has no effect while calibrating; it is for --do_train and --do_predict.")
    if values["if_quant"] or not runs_model or parsed.given("if_quant") or values["quant_disable"]:
        return
    settings = [parsed.spelling(name) for name in ("quant_mode", *SINGLE_SETTINGS) if parsed.given(name)]
    if values["do_calib"]:
        work = "training" if values["do_train"] else "prediction"
        parsed.notes.append(f"warning: {work} after calibration runs without quantization: --if_quant is off.")
    elif settings:
        parsed.notes.append(
            f"warning: {', '.join(settings)} {'has' if len(settings) == 1 else 'have'} no effect without --if_quant."
        )


def _describe(custom: dict[str, Any]) -> str:
    shown = custom | {"disabled_keywords": " ".join(custom["disabled_keywords"]) or "none"}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
