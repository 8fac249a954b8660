"""What both scripts decide from their flags: whose defaults hold, the framework, the device, training's settings.

Every rule takes the parsed flags, completes `values` in place and adds a sentence to `notes` for whatever the user did
not ask for in so many words; contradictions raise UserError.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from twinquant.errors import UserError
from twinquant.flags import Flag, ParsedFlags
from twinquant.words import no_effect

# Flags that FasterTransformer's PyTorch script required and its TensorFlow script did not know.
TWIN_SPELLINGS = ("--bert_model", "--config_file")
TWIN_DEFAULTS: Mapping[str, Any] = {
    "calib_method": "max",
    "train_batch_size": 32,
    "learning_rate": 5e-5,
    "do_lower_case": False,
    "if_quant": True,
    "distillation_loss": "pytorch",
}
# Above every norm of gradients; small enough for float32, in which the backends hold it.
CLIPS_NOTHING = 1e30
# No calibration means to clip half of the values: a number below it was given as a fraction.
LOWEST_PERCENTILE = 50.0
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_PER_DEVICE_SPELLINGS = frozenset({"--per_gpu_train_batch_size", "--per_device_train_batch_size"})
_PACKAGES = {"tensorflow": "tensorflow", "pytorch": "torch"}


def choose_dialect(parsed: ParsedFlags, twin_defaults: Mapping[str, Any] = TWIN_DEFAULTS) -> str:
    """Say whose command line this is, "tensorflow" or "pytorch", and fill in the defaults of the latter.

    It is "pytorch" when a flag is given that the PyTorch original required and the TensorFlow original did not know.
    Without "if_quant" among `twin_defaults` quantization is not the PyTorch script's: nothing is said of its mode.

    The two have different defaults under the same names, so an old command line gets those of the script
    that it was written for, and one note lists them.
    """
    found = [spelling for spelling in TWIN_SPELLINGS if spelling in parsed.all_spellings]
    if not found:
        return "tensorflow"
    changed = []
    for name, value in twin_defaults.items():
        if name == "if_quant" and parsed.values["quant_disable"]:
            continue
        if not parsed.given(name) and parsed.values[name] != value:
            changed.append(f"{name} {value} instead of {parsed.values[name]}")
            parsed.values[name] = value
    if "if_quant" in twin_defaults and not parsed.given("quant_mode") and not parsed.values["quant_disable"]:
        changed.append(f"no quant_mode instead of {parsed.values['quant_mode']}")
    changed.append("the learning rate not multiplied by the number of processes")
    changed.append("the backend pytorch if it is installed")
    parsed.notes.append(
        f"note: {' and '.join(found)} {'belong' if len(found) > 1 else 'belongs'} to FasterTransformer's PyTorch "
        f"script, so its defaults hold where a flag is not given: {', '.join(changed)}."
    )
    if parsed.given("bert_model"):
        parsed.notes.append(
            "note: --bert_model chooses no model (it named a cache in the original); the model is the one of "
            "--init_checkpoint and --config_file."
        )
    if parsed.values["calib_method"] == "percentile" and not parsed.given("percentile"):
        parsed.notes.append(
            f"note: {parsed.spelling('calib_method')} percentile without --percentile, which the PyTorch script "
            f"required: {parsed.values['percentile']} is used."
        )
    return "pytorch"


def resolve_backend(
    requested: str | None, installed: Collection[str] | None = None, dialect: str = "tensorflow"
) -> tuple[str, str | None]:
    """The framework to use, and a note where the user did not choose it or could expect another.

    requested: --backend, or None. installed: names out of "tensorflow" and "pytorch"; None looks them up without
    importing them. dialect: whose flags were given, "tensorflow", "pytorch" or "hugging_face"; the framework of
    that script is preferred when none is requested.
    Raises UserError when the requested one, or any, is not installed.
    """
    if installed is None:
        installed = {name for name, package in _PACKAGES.items() if find_spec(package) is not None}
    if requested is not None:
        if requested not in installed:
            there = f" (installed: {', '.join(sorted(installed))})" if installed else ""
            raise UserError(
                f"--backend={requested} needs the package {_PACKAGES[requested]}, not installed{there}; "
                f"pip install '.[{requested}]' installs it."
            )
        return requested, None
    preferred, other = ("tensorflow", "pytorch") if dialect == "tensorflow" else ("pytorch", "tensorflow")
    if preferred in installed:
        return preferred, None
    if other in installed:
        return other, f"note: {_PACKAGES[preferred]} is not installed, so the backend is {other} (--backend chooses)."
    raise UserError(
        "neither tensorflow nor torch is installed, and one of them is needed to run a model; "
        f"pip install '.[{preferred}]' or '.[{other}]' installs one."
    )


def merge_accumulation(parsed: ParsedFlags, dialect: str) -> None:
    """--gradient_accumulation_steps n: the PyTorch original divides --train_batch_size by n, Hugging Face does not."""
    steps = parsed.values["num_accumulation_steps"]
    if parsed.spelling("num_accumulation_steps") != "--gradient_accumulation_steps" or steps == 1:
        return
    batch = parsed.values["train_batch_size"]
    hugging_face = dialect == "hugging_face" or parsed.given("model_type")
    if hugging_face or parsed.spelling("train_batch_size") in _PER_DEVICE_SPELLINGS:
        parsed.notes.append(
            f"note: --gradient_accumulation_steps {steps}, as in Hugging Face's scripts: {steps} steps of {batch} "
            f"examples make one update of {steps * batch} per process."
        )
        return
    micro_batch = batch // steps
    if micro_batch == 0:
        raise UserError(
            f"--gradient_accumulation_steps {steps} divides --train_batch_size, which is {batch}: it must be at most "
            f"{batch} (--num_accumulation_steps does not divide)."
        )
    parsed.values["train_batch_size"] = micro_batch
    parsed.notes.append(
        f"note: --gradient_accumulation_steps {steps} divides --train_batch_size {batch}, as in the PyTorch original: "
        f"{steps} steps of {micro_batch} examples make one update of {steps * micro_batch} per process "
        "(--num_accumulation_steps does not divide)."
    )


def choose_device(parsed: ParsedFlags) -> None:
    """--device, with --no_cuda as another spelling of cpu."""
    device = parsed.values["device"]
    if device.partition(":")[0] in ("mps", "xpu"):
        # An MPS device has no float64, in which fake-quantized predictions round once; neither was ever tested.
        raise UserError(f"--device={device} is not supported: expected auto, cpu, cuda or cuda:N.")
    if not _DEVICE.fullmatch(device):
        raise UserError(f"--device takes auto, cpu, cuda or cuda:N, found {device!r}.")
    if parsed.values["no_cuda"]:
        if parsed.given("device") and device not in ("auto", "cpu"):
            raise UserError(f"{parsed.spelling('no_cuda')} contradicts --device={device}; give one of them.")
        parsed.values["device"] = "cpu"


def check_launch(parsed: ParsedFlags) -> None:
    """--local_rank: torch.distributed.launch would start processes that do not know of each other here."""
    rank = parsed.values["local_rank"]
    if rank > 0:
        raise UserError(
            f"--local_rank={rank} means a start by torch.distributed.launch or torchrun, which is not supported: "
            "start with mpirun or horovodrun, and give --horovod."
        )
    if rank == 0:
        parsed.notes.append(
            f"note: --local_rank={rank} has no effect: mpirun and horovodrun tell each process its rank."
        )


def check_training(parsed: ParsedFlags) -> None:
    """Settings of training that replace or contradict each other."""
    values = parsed.values
    if values["max_steps"] == 0:
        raise UserError("--max_steps takes -1 (no limit) or a whole number of at least 1, found 0.")
    if values["max_grad_norm"] == 0:
        values["max_grad_norm"] = CLIPS_NOTHING
        parsed.notes.append(
            f"note: --max_grad_norm 0, as in Hugging Face's scripts: gradients are not clipped (max_grad_norm "
            f"{CLIPS_NOTHING:g})."
        )
    _settle_warmup(parsed)


def _settle_warmup(parsed: ParsedFlags) -> None:
    """`warmup_steps` as a whole number, or None where `warmup_proportion` holds."""
    values = parsed.values
    steps, proportion = values["warmup_steps"], values["warmup_proportion"]
    if steps is None:
        return
    both = parsed.given("warmup_steps") and parsed.given("warmup_proportion")
    if steps == 0 and both and parsed.spelling("warmup_proportion") == "--warmup_ratio":
        # Hugging Face's scripts take the number only where it is above 0, and write both into their files.
        values["warmup_steps"] = None
        if proportion > 0:
            parsed.notes.append(
                f"note: --warmup_steps 0 leaves --warmup_ratio {proportion:g} as it is, as in Hugging Face's scripts."
            )
        return
    if both:
        parsed.notes.append(
            f"warning: {parsed.spelling('warmup_proportion')} has no effect: --warmup_steps {steps:g} replaces it."
        )
    if 0 < steps < 1:
        values["warmup_steps"], values["warmup_proportion"] = None, steps
        parsed.notes.append(
            f"note: --warmup_steps {steps:g}, below 1, is a part of all updates, as in transformers 5: "
            f"warmup_proportion {steps:g}."
        )
    elif float(steps).is_integer():
        values["warmup_steps"] = int(steps)
    else:
        raise UserError(f"--warmup_steps takes a whole number, or a part of all updates below 1, found {steps:g}.")


def note_grouping(parsed: ParsedFlags) -> None:
    """--group_by_length where all batches have one length."""
    padding = next((name for name in ("pad_to_max_length", "use_xla") if parsed.values[name]), None)
    if parsed.values["group_by_length"] and parsed.values["do_train"] and padding is not None:
        parsed.notes.append(
            f"warning: --group_by_length makes no step shorter with {parsed.spelling(padding)}, which pads every batch "
            "to --max_seq_length."
        )


def note_model_type(parsed: ParsedFlags) -> None:
    """--model_type of Hugging Face's run_squad.py: run_squad.py keeps its own defaults."""
    values = parsed.values
    if parsed.given("model_type"):
        kept = [name for name in ("learning_rate", "weight_decay", "adam_epsilon") if not parsed.given(name)]
        if not parsed.given("warmup_steps"):
            kept.append("warmup_proportion")
        parsed.notes.append(
            "note: --model_type bert has no effect: the model is always BERT. Defaults are this script's, not those "
            "of Hugging Face's" + (": " + ", ".join(f"{name} {values[name]}" for name in kept) if kept else "") + "."
        )


def note_calibration_before_training(parsed: ParsedFlags) -> None:
    """--do_calib and --do_train in one command."""
    if parsed.values["do_train"] and parsed.values["do_calib"]:
        parsed.notes.append(
            "note: --do_calib and --do_train together: the model is calibrated first, then trained with these ranges "
            "(the TensorFlow original only calibrated)."
        )


def check_distillation(parsed: ParsedFlags) -> None:
    """--distillation needs a teacher and training."""
    if not parsed.values["distillation"]:
        return
    if parsed.values["teacher"] is None:
        raise UserError("--distillation needs --teacher, the checkpoint of the fine-tuned model to learn from.")
    if not parsed.values["do_train"]:
        raise UserError("--distillation needs --do_train: it changes the training loss and nothing else.")


def note_idle_phases(parsed: ParsedFlags, flags: Sequence[Flag]) -> None:
    """Say which settings of calibration, distillation and half precision were given where these are off."""
    calibration = {"calib_batch", "calib_method", "percentile", "calib_include_padding", "calib_report"}
    note_idle_flags(parsed, flags, "do_calib", calibration)
    report = parsed.values["calib_report"]
    if parsed.values["do_calib"] and report is not None and find_spec("matplotlib") is None:
        raise UserError(
            "--calib_report needs the package matplotlib, not installed; pip install '.[export]' installs it."
        )
    percentile_shown = parsed.values["calib_method"] == "percentile" or report is not None
    if parsed.values["do_calib"] and parsed.given("percentile") and not percentile_shown:
        parsed.notes.append(
            f"note: --percentile has no effect with {parsed.spelling('calib_method')}={parsed.values['calib_method']}."
        )
    if parsed.values["do_calib"] and percentile_shown and parsed.values["percentile"] < LOWEST_PERCENTILE:
        given = parsed.values["percentile"]
        meant = f"; {100 * given:g} is probably meant" if 0.5 <= given <= 1 else ""
        parsed.notes.append(
            f"warning: --percentile={given:g} is in percent, like 99.99: ranges would leave out all but the smallest "
            f"{given:g} % of the values{meant}."
        )
    teaching = {"teacher", "distillation_loss_scale", "distillation_loss", "distillation_temperature"}
    # Whoever names a teacher means to learn from it; the other settings may be left over from another command.
    misled = parsed.values["do_train"] and parsed.given("teacher")
    note_idle_flags(parsed, flags, "distillation", teaching, level="warning" if misled else "note")
    note_idle_flags(parsed, flags, "use_fp16", {"loss_scale"})
    exchange = {"horovod_compression", "fusion_threshold_mb", "cycle_time_ms"}
    stalls = {"stall_check_warning_time_seconds", "stall_check_shutdown_time_seconds"}
    note_idle_flags(parsed, flags, "horovod", exchange | stalls)


def note_idle_flags(
    parsed: ParsedFlags,
    flags: Sequence[Flag],
    condition: str,
    idle: Collection[str],
    active: bool | None = None,
    level: str = "note",
) -> None:
    """Say which of the `idle` flags were given although what they belong to is off.

    condition: a switch, or a flag with the value they belong to ("quant_scheme=dynamic"), and then `active` says
    whether it has that value. level: "note" or "warning".
    """
    names = [flag.name for flag in flags if flag.name in idle and parsed.given(flag.name)]
    if names and not (parsed.values[condition] if active is None else active):
        parsed.notes.append(f"{level}: {no_effect([parsed.spelling(name) for name in names])} without --{condition}.")
