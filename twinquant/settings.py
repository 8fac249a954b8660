"""The settings of a run, as the flags gave them: printed at its start and saved beside its results."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinquant.command_line import HIDDEN, SECRET_FLAGS
from twinquant.flags import Flag, ParsedFlags


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What run_squad.py and run_glue.py share; each field is explained by the flag of the same name (`--help`)."""

    bert_config_file: str | None  # None: the checkpoint (a hub name) brings its own
    vocab_file: str | None
    init_checkpoint: str | None
    output_dir: str
    overwrite_output_dir: bool
    do_lower_case: bool
    save_checkpoints_steps: int
    save_per_epoch: bool
    keep_checkpoints: int

    train_file: str | None
    predict_file: str | None
    max_seq_length: int
    pad_to_max_length: bool
    group_by_length: bool  # batches of rows of like length, for training

    do_calib: bool
    calib_batch: int
    calib_method: str
    percentile: float
    calib_include_padding: bool
    calib_report: str | None = None  # a folder

    do_train: bool
    train_batch_size: int  # per step and process
    num_accumulation_steps: int
    learning_rate: float  # before the multiplication by the number of processes
    scale_learning_rate: bool  # multiply by the number of processes
    num_train_epochs: float
    max_steps: int  # -1: no limit
    warmup_proportion: float
    warmup_steps: int | None  # replaces warmup_proportion
    weight_decay: float
    adam_epsilon: float
    max_grad_norm: float
    seed: int

    if_quant: bool
    quant_mode: str | None  # None: custom_mode holds; "q8bert" in run_glue.py's scheme of that name
    custom_mode: dict[str, Any] | None  # keyword arguments of quantization.modes.custom_mode
    quant_exclude: tuple[str, ...] = ()  # see quantization.exclusion.exclude

    do_predict: bool
    predict_batch_size: int

    export: dict[str, Any] | None = None  # see twinquant.export_flags.choose_export; None: nothing is exported

    evaluate_steps: int | None = None  # steps between two evaluations during training; None: none
    evaluate_per_epoch: bool = False

    distillation: bool
    teacher: str | None
    distillation_loss_scale: float
    distillation_loss: str
    distillation_temperature: float

    backend: str | None  # None: see twinquant.flag_rules.resolve_backend
    device: str
    use_fp16: bool
    loss_scale: float  # 0: dynamic
    use_xla: bool
    cache_dir: str | None
    overwrite_cache: bool
    log_freq: int
    tensorboard: bool = False
    logging_dir: str | None = None  # for event files; None: a folder in output_dir
    json_summary: str | None
    disable_progress_bar: bool
    verbose_logging: bool

    horovod: bool
    horovod_compression: str
    fusion_threshold_mb: float
    cycle_time_ms: float
    stall_check_warning_time_seconds: float
    stall_check_shutdown_time_seconds: float

    dialect: str  # whose defaults were used: "tensorflow" (ours), "pytorch" (FasterTransformer's), "hugging_face"
    explicit: frozenset[str]  # canonical names of the flags that the user gave
    given_besides: dict[str, Any] = dataclasses.field(default_factory=dict)  # see given_besides below
    notes: tuple[str, ...]  # warnings and notes about the flags, for rank 0 to print once

    @property
    def predicts(self) -> bool:
        """Whether the run ends with a prediction."""
        return self.do_predict

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON holds unchanged (tuples and sets become lists), for run records."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["explicit"] = sorted(self.explicit)
        as_json: dict[str, Any] = json.loads(json.dumps(values))
        return as_json

    def describe_given(self) -> str:
        """One line for the start of a run: the settings that the user gave; all are in settings.json."""
        names = [field.name for field in dataclasses.fields(self) if field.name in self.explicit]
        values = {name: getattr(self, name) for name in names} | self.given_besides
        words = [f"{name}={_show(value)}" for name, value in values.items() if value is not None]
        return "settings: " + " ".join(words)


def given_besides(parsed: ParsedFlags, flags: Sequence[Flag]) -> dict[str, Any]:
    """The flags that the user gave and that are no field of the settings, such as --eval_strategy and --export_onnx.

    Without those that ask for nothing; the values of access tokens are hidden.
    """
    given = {flag: parsed.values[flag.name] for flag in flags if not flag.kept and parsed.given(flag.name)}
    return {
        flag.name: HIDDEN if flag.name in SECRET_FLAGS else list(value) if isinstance(value, tuple) else value
        for flag, value in given.items()
        if value not in flag.quiet and value != flag.default
    }


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def kept_values(parsed: ParsedFlags, flags: Sequence[Flag]) -> dict[str, Any]:
    """The values that become fields of the settings."""
    return {flag.name: parsed.values[flag.name] for flag in flags if flag.kept}
