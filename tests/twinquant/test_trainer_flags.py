"""Hugging Face's TrainingArguments: every field is a flag, a file of all defaults says nothing, the rest is told."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from glue_files import GlueFiles, make_glue_files, notes_with

from twinquant.errors import UserError
from twinquant.glue_flags import ALL_FLAGS, GlueSettings, parse_glue_flags
from twinquant.trainer_flags import TRAINER_FLAGS

# Of run_glue.py in transformers 4 and 5, besides the Trainer's.
DATA_ARGUMENTS = (
    "task_name", "dataset_name", "dataset_config_name", "max_seq_length", "overwrite_cache", "pad_to_max_length",
    "max_train_samples", "max_eval_samples", "max_predict_samples", "train_file", "validation_file", "test_file",
    "model_name_or_path", "config_name", "tokenizer_name", "cache_dir", "use_fast_tokenizer", "model_revision", "token",
    "use_auth_token", "trust_remote_code", "ignore_mismatched_sizes",
)  # fmt: skip
# What TrainingArguments.to_dict() of transformers 4.57 writes besides the fields of version 5.
OF_VERSION_4: dict[str, Any] = {
    "overwrite_output_dir": False, "per_gpu_train_batch_size": None, "per_gpu_eval_batch_size": None,
    "warmup_ratio": 0.0, "warmup_steps": 0, "save_safetensors": True, "no_cuda": False, "use_mps_device": False,
    "jit_mode_eval": False, "fp16_opt_level": "O1", "half_precision_backend": "auto", "tpu_num_cores": None,
    "tpu_metrics_debug": False, "past_index": -1, "fsdp": [], "fsdp_min_num_params": 0,
    "fsdp_config": {"min_num_params": 0, "xla": False, "xla_fsdp_v2": False, "xla_fsdp_grad_ckpt": False},
    "fsdp_transformer_layer_cls_to_wrap": None, "adafactor": False, "group_by_length": False,
    "accelerator_config": {"split_batches": False, "dispatch_batches": None, "even_batches": True,
                           "use_seedable_sampler": True, "non_blocking": False, "gradient_accumulation_kwargs": None},
    "trackio_space_id": "trackio", "use_legacy_prediction_loop": False, "gradient_checkpointing": False,
    "include_inputs_for_metrics": False, "fp16_backend": "auto", "push_to_hub_model_id": None,
    "push_to_hub_organization": None, "push_to_hub_token": "<PUSH_TO_HUB_TOKEN>", "mp_parameters": "",
    "torchdynamo": None, "ray_scope": "last", "include_tokens_per_second": False,
    "include_num_input_tokens_seen": False, "optim": "adamw_torch", "lr_scheduler_kwargs": {}, "debug": "",
    "disable_tqdm": False,
}  # fmt: skip


def trainer_defaults() -> dict[str, Any]:
    """The defaults of the installed TrainingArguments, as its to_dict() writes them.

    Taken from its fields: an instance needs accelerate, and looks for devices.
    """
    arguments = pytest.importorskip("transformers").TrainingArguments
    values: dict[str, Any] = {}
    for field in dataclasses.fields(arguments):
        known = field.default is not dataclasses.MISSING
        value = field.default if known else field.default_factory()
        values[field.name] = getattr(value, "value", value)
    return values | {"hub_token": "<HUB_TOKEN>", "report_to": [], "debug": []}


@pytest.fixture
def glue(tmp_path: Path) -> GlueFiles:
    return make_glue_files(tmp_path)


def parse_file(glue: GlueFiles, values: dict[str, Any], *flags: str) -> GlueSettings:
    """run_glue.py with a .json of these arguments, a model and files of the user's own."""
    folder = glue.folder
    own = {
        "model_name_or_path": f"{folder}/plain",
        "train_file": f"{folder}/train.csv",
        "validation_file": f"{folder}/validation.csv",
        "output_dir": f"{folder}/out",
        "do_train": True,
    }
    path = folder / "arguments.json"
    path.write_text(json.dumps(values | own))
    return parse_glue_flags([str(path), *flags])


def test_every_field_of_training_arguments_is_a_flag():
    known = {name for flag in ALL_FLAGS for name in (flag.name, *flag.aliases)}
    assert sorted({*trainer_defaults(), *OF_VERSION_4, *DATA_ARGUMENTS} - known) == []


@pytest.mark.parametrize("version", [{}, OF_VERSION_4], ids=["installed", "4.57"])
def test_a_file_of_all_defaults_says_no_more_than_a_file_of_none(glue, version):
    settings = parse_file(glue, trainer_defaults() | version)
    assert [note for note in settings.notes if "belongs to Hugging Face's" not in note] == [
        note for note in parse_file(glue, {}).notes if "belongs to Hugging Face's" not in note
    ]
    assert settings.train_batch_size == 8 and settings.learning_rate == 5e-5 and settings.warmup_steps in (0, None)


def test_the_settings_line_leaves_out_what_asks_for_nothing(glue):
    line = parse_file(glue, trainer_defaults()).describe_given()
    assert "ddp_timeout" not in line and "hub_token" not in line and "learning_rate=5e-05" in line


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--deepspeed", "ds.json"], "--deepspeed is refused: every process holds the whole model"),
        (["--fsdp", "full_shard auto_wrap"], "--fsdp is refused: every process holds the whole model"),
        (["--neftune_noise_alpha", "5"], "--neftune_noise_alpha is refused: no noise is added"),
        (["--optim_args", "a=1"], "--optim_args is refused: the optimizer is AdamW"),
        (["--lr_scheduler_kwargs", '{"a": 1}'], "--lr_scheduler_kwargs is refused: the learning rate rises linearly"),
        (["--eval_delay", "2"], "--eval_delay is refused: evaluation begins with the first --eval_steps or epoch"),
        (["--train_sampling_strategy=sequential"], "--train_sampling_strategy=sequential is refused"),
        (["--save_steps", "0.1"], "--save_steps takes a whole number of at least -1, found '0.1': a part of all"),
        (["--logging_steps=0.05"], "--logging_steps takes a whole number of at least 1, found '0.05': a part of all"),
        (["--warmup_steps=2.5"], "--warmup_steps takes a whole number, or a part of all updates below 1, found 2.5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_change_the_result_is_refused(glue, argv, sentence):
    with pytest.raises(UserError) as error:
        glue.parse("--do_train", *argv)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--eval_accumulation_steps", "4"], "--eval_accumulation_steps has no effect: predictions go to"),
        (["--ddp_timeout=60"], "--ddp_timeout has no effect"),
        (["--no_dataloader_in_order"], "--no_dataloader_in_order has no effect"),
        (["--project", "mine"], "--project has no effect: results and losses go to the log"),
        (["--activation_checkpointing", "True"], "--activation_checkpointing has no effect: activations are kept"),
        (["--label_names", "a", "b"], "--label_names has no effect"),
        (["--train_sampling_strategy=batch_rebalance"], "--train_sampling_strategy=batch_rebalance has no effect"),
        (["--length_column_name", "size"], "--length_column_name has no effect: lengths are counted in tokens"),
        (["--optim=adamw_bnb_8bit"], "--optim=adamw_bnb_8bit has no effect: the optimizer is AdamW"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_rest_is_accepted_with_a_sentence(glue, argv, sentence):
    assert len(notes_with(glue.parse("--do_train", *argv), sentence)) == 1


@pytest.mark.parametrize("argv", [["--group_by_length"], ["--train_sampling_strategy=group_by_length"]], ids=" ".join)
def test_both_spellings_group_rows_by_length(glue, argv):
    assert not glue.parse("--do_train").group_by_length
    settings = glue.parse("--do_train", *argv)
    assert settings.group_by_length and not notes_with(settings, "--train_sampling_strategy")


@pytest.mark.parametrize(
    "argv",
    [
        ["--group_by_length=False", "--train_sampling_strategy=group_by_length"],
        ["--group_by_length", "--train_sampling_strategy=random"],
    ],
    ids=" ".join,
)
def test_spellings_that_contradict_each_other(glue, argv):
    with pytest.raises(UserError, match="--train_sampling_strategy=.* contradicts --group_by_length"):
        glue.parse("--do_train", *argv)


@pytest.mark.parametrize("padding", ["--pad_to_max_length", "--use_xla"])
def test_grouped_rows_that_are_all_padded_are_told(glue, padding):
    sentence = f"warning: --group_by_length makes no step shorter with {padding}, which pads every batch"
    assert len([note for note in glue.parse("--do_train", "--group_by_length", padding).notes if sentence in note]) == 1
    assert not [note for note in glue.parse("--do_train", padding).notes if "group_by_length" in note]


@pytest.mark.parametrize("flag", TRAINER_FLAGS, ids=lambda flag: flag.name)
def test_a_row_has_a_sentence(flag):
    assert flag.note or flag.refused or flag.name in ("optim", "train_sampling_strategy")


def test_a_part_of_the_updates_as_warmup(glue):
    settings = glue.parse("--do_train", "--warmup_steps", "0.06")
    assert settings.warmup_steps is None and settings.warmup_proportion == 0.06
    assert notes_with(settings, "--warmup_steps 0.06, below 1, is a part of all updates")


def test_no_warmup_steps_leave_the_ratio(glue):
    settings = glue.parse("--do_train", "--warmup_steps", "0", "--warmup_ratio", "0.1")
    assert settings.warmup_steps is None and settings.warmup_proportion == 0.1
    settings = glue.parse("--do_train", "--warmup_steps", "7", "--warmup_ratio", "0.1")
    assert settings.warmup_steps == 7 and isinstance(settings.warmup_steps, int)


def test_no_clipping(glue):
    settings = glue.parse("--do_train", "--max_grad_norm", "0")
    assert settings.max_grad_norm == 1e30 and notes_with(settings, "gradients are not clipped")


def test_flags_behind_the_file(glue):
    settings = parse_file(glue, {"max_steps": 20, "seed": 3}, "--max_steps", "3")
    assert settings.max_steps == 3 and settings.seed == 3
    assert notes_with(settings, "--max_steps=3 instead of 20")
