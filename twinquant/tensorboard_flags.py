"""--tensorboard, and the flags of Hugging Face's scripts that mean it: --report_to and --logging_dir."""

from importlib.util import find_spec

from twinquant.errors import UserError
from twinquant.flags import Flag, ParsedFlags

# fmt: off
TENSORBOARD_FLAGS = (
    Flag("tensorboard", bool, False, "runtime", "Write event files for TensorBoard while training, every --log_freq "
         "updates: loss, learning rate, examples per second, scores, and in quantization-aware training the share of "
         "values that each quantizer clips (after a calibration too, at step 0)."),
    Flag("logging_dir", str, None, "runtime", "The folder for these files; when not given, tensorboard in "
         "--output_dir. Given alone, it asks for them too, as in Hugging Face's scripts.", metavar="FOLDER"),
    Flag("report_to", list, (), "runtime", "The same in words: tensorboard or all, or none.",
         metavar="NAME [NAME ...]", kept=False),
)
# fmt: on


def choose_tensorboard(parsed: ParsedFlags) -> None:
    """Settles `tensorboard`. Raises UserError where it is asked for by name and not installed, or contradicted.

    Old command lines that mean it only by the way (--logging_dir, --report_to all) go on without it, with a warning.
    """
    values = parsed.values
    names = {name.lower() for word in values["report_to"] for name in word.split(",") if name}
    installed = find_spec("tensorboard") is not None
    others = sorted(names - {"tensorboard", "all", "none"})
    if others:
        parsed.notes.append(
            f"note: --report_to {' '.join(others)} has no effect: results and losses go to the log and to files in "
            "--output_dir, and with --tensorboard to event files."
        )
    if values["tensorboard"] and "none" in names:
        raise UserError("--report_to none contradicts --tensorboard; give one of them.")
    by_name, by_the_way = "", ""
    if values["tensorboard"] or "tensorboard" in names:
        by_name = "--tensorboard" if values["tensorboard"] else "--report_to tensorboard"
    elif values["logging_dir"] or "all" in names:
        by_the_way = "--report_to all" if "all" in names else parsed.spelling("logging_dir")
    if "none" in names or (parsed.given("tensorboard") and not values["tensorboard"]):
        by_name = by_the_way = ""
    if by_name and not installed:
        raise UserError(
            f"{by_name} needs the package tensorboard, not installed; pip install '.[tensorboard]' installs it."
        )
    if by_the_way and not by_name and not installed:
        parsed.notes.append(
            f"warning: {by_the_way} has no effect: the package tensorboard is not installed (pip install "
            "'.[tensorboard]')."
        )
    values["tensorboard"] = installed and bool(by_name or by_the_way)
    if values["logging_dir"] and not values["tensorboard"] and installed:
        parsed.notes.append(f"note: {parsed.spelling('logging_dir')} has no effect: no event files are written.")
    if values["tensorboard"] and not (values["do_train"] or values["do_calib"]):
        asked = by_name or by_the_way
        parsed.notes.append(f"note: {asked} has no effect without --do_train or --do_calib: there are no curves.")
        values["tensorboard"] = False
