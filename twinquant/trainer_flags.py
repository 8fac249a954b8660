"""Flags of Hugging Face's run_glue.py and run_classification.py, and the Trainer's, that have no effect or are refused.

They are those of transformers 2 to 5 that no other table holds. Where somebody writes a default down, as
TrainingArguments.to_json_string does with all of them, nothing is said: it asks for nothing.
"""

from typing import Any

from twinquant.flags import Flag

_OLD = "accepted for old command lines"


def _unused(name: str, kind: type, default: Any, why: str, *quiet: Any, aliases: tuple[str, ...] = ()) -> Flag:
    """quiet: values that ask for nothing, besides the default: defaults of other versions, and "" where it is one."""
    return Flag(name, kind, default, _OLD, f"Has no effect: {why}.", kept=False, note=f"has no effect: {why}.",
                quiet=(default, *quiet), aliases=aliases)  # fmt: skip


def _refused(name: str, kind: type, default: Any, why: str, *quiet: Any) -> Flag:
    refusal = "Refused" if default in (None, False, (), "") else f"Any other value than {default} is refused"
    return Flag(name, kind, default, _OLD, f"{refusal}: {why}.", kept=False, refused=f"{why}.",
                quiet=(default, *quiet))  # fmt: skip


_LOCAL = ("the data must be local files: give --task_name with --data_dir for a GLUE task, or --train_file, "
          "--validation_file and --test_file for data of your own")  # fmt: skip
_SPLIT = "a local file is one split: --train_file, --validation_file and --test_file name them"
_METRIC = ("the best checkpoint is the one with the best main score of the task: mcc, acc, the mean of acc and f1, or "
           "the mean of the correlations")  # fmt: skip
_SCORES = "the scores are those of the task, of all its predictions"
_ORDER = "training follows an order drawn from --seed; with --max_train_samples the first examples are taken"
_LENGTHS = "lengths are counted in tokens here, whatever a column says"
_BATCHES = "batches are made by one process, as they are needed"
_REPORT = "results and losses go to the log and to files in --output_dir, with --tensorboard to event files too"
_INTERVAL = f"{_REPORT}, every --log_freq updates"
_UPLOAD = "nothing is uploaded; the checkpoints in --output_dir can be, by other means"
_HUB = "models are files on this machine, or fetched by their public hub name"
_FIRST = "of several processes, rank 0 alone writes files and messages"
_MEMORY = "activations are kept; if memory is short, raise --num_accumulation_steps and lower --train_batch_size"
_COMPILE = "--torch_compile compiles with torch.compile's own settings"
_SHARDING = ("every process holds the whole model: leave the flag out, and for several processes start with mpirun and "
             "give --horovod")  # fmt: skip
_HOROVOD = "several processes add up their gradients with Horovod (--horovod), not with torch.distributed"
_SCHEDULE = "the learning rate rises linearly, then falls linearly to 0"
_ADAMW = "the optimizer is AdamW, of all weights"
_PRECISION = "half precision is --use_fp16 (--fp16, --bf16), of which there is one kind"
_DEVICE = "--device chooses where to compute"
_KERNELS = "the kernels are the framework's own"

# What Accelerate's and FSDP's configurations say by default, as transformers 4 writes them.
_ACCELERATOR_DEFAULTS = ('{"split_batches": false, "dispatch_batches": null, "even_batches": true, '
                         '"use_seedable_sampler": true, "non_blocking": false, "gradient_accumulation_kwargs": null}'
                         )  # fmt: skip
_FSDP_DEFAULTS = (
    '{"min_num_params": 0, "xla": false, "xla_fsdp_grad_ckpt": false}',
    '{"min_num_params": 0, "xla": false, "xla_fsdp_v2": false, "xla_fsdp_grad_ckpt": false}',
)

# fmt: off
TRAINER_FLAGS = (
    # Data, model and tokenizer
    _refused("dataset_name", str, None, _LOCAL),
    _refused("dataset_config_name", str, None, _LOCAL),
    _refused("train_split_name", str, None, _SPLIT),
    _refused("validation_split_name", str, None, _SPLIT),
    _refused("test_split_name", str, None, _SPLIT),
    _refused("remove_splits", str, None, _SPLIT),
    _unused("remove_columns", str, None, "only the columns of --text_column and --label_column are read"),
    _unused("text_column_delimiter", str, None, "texts are not joined: two text columns are a pair of texts", " "),
    _unused("label_names", list, (), "labels are read from --label_column, and reach the model as one tensor"),
    _unused("remove_unused_columns", bool, True, "only the model's inputs are ever made"),
    _unused("use_fast_tokenizer", bool, True, "there is one tokenizer, and it is a fast one"),
    _refused("model_revision", str, "main", "a hub name stands for its main revision; download another one and name "
             "its folder"),
    _unused("token", str, None, _HUB),
    _unused("use_auth_token", bool, False, _HUB),
    _unused("trust_remote_code", bool, False, "no code is fetched, and only BERT is run"),
    _unused("use_cache", bool, False, "BERT reads a text at once and keeps nothing for the next token"),
    _refused("past_index", int, -1, "BERT has no past states to hand on"),
    Flag("predict_file", str, None, _OLD, "Refused: it is run_squad.py's.", metavar="FILE", kept=False,
         refused="it is run_squad.py's; the files are --validation_file (for --do_eval) and --test_file (for "
         "--do_predict), or those in --data_dir."),
    # Order and batches
    _unused("shuffle_train_dataset", bool, False, _ORDER),
    _unused("shuffle_seed", int, 42, _ORDER),
    _unused("data_seed", int, None, _ORDER),
    _unused("length_column_name", str, "length", _LENGTHS),
    Flag("train_sampling_strategy", str, "random", _OLD, "The value group_by_length is the flag of that name, "
         "batch_rebalance has no effect, sequential is refused.",
         choices=("random", "sequential", "group_by_length", "batch_rebalance"), kept=False),
    _unused("preprocessing_num_workers", int, None, _BATCHES),
    _unused("dataloader_num_workers", int, 0, _BATCHES),
    _unused("dataloader_pin_memory", bool, True, _BATCHES),
    _unused("dataloader_persistent_workers", bool, False, _BATCHES),
    _unused("dataloader_prefetch_factor", int, None, _BATCHES),
    _unused("dataloader_multiprocessing_context", str, None, _BATCHES),
    _unused("dataloader_in_order", bool, True, _BATCHES),
    _unused("dataloader_drop_last", bool, False, "no batch is smaller than the others: one may hold the end of an "
            "epoch and the beginning of the next"),
    _unused("auto_find_batch_size", bool, False, "a batch too large for the memory ends the run; lower "
            "--train_batch_size"),
    # Optimizer, schedule and loss
    Flag("optim", str, "adamw_torch", _OLD, "The optimizer is AdamW; names of others are refused.", metavar="NAME",
         kept=False),
    _refused("optim_args", str, None, _ADAMW),
    _refused("optim_target_modules", list, (), _ADAMW),
    _refused("adafactor", bool, False, _ADAMW),
    _refused("adam_beta1", float, 0.9, "AdamW's first moment decays by 0.9"),
    _refused("adam_beta2", float, 0.999, "AdamW's second moment decays by 0.999"),
    _refused("lr_scheduler_type", str, "linear", _SCHEDULE),
    _refused("lr_scheduler_kwargs", str, None, _SCHEDULE),
    _refused("label_smoothing_factor", float, 0.0, "the loss is the plain cross-entropy"),
    _refused("neftune_noise_alpha", float, None, "no noise is added to the embeddings", 0.0),
    _unused("average_tokens_across_devices", bool, True, "a loss is the mean over texts, of all processes"),
    # Scores, and the best model
    _unused("metric_name", str, None, "accuracy, F1 and a report per class are computed, for a regression the "
            "correlations"),
    _unused("metric_for_best_model", str, None, _METRIC),
    _unused("greater_is_better", bool, None, _METRIC),
    _unused("prediction_loss_only", bool, False, _SCORES),
    _unused("include_for_metrics", list, (), _SCORES),
    _unused("include_inputs_for_metrics", bool, False, _SCORES),
    _unused("batch_eval_metrics", bool, False, _SCORES),
    _unused("eval_do_concat_batches", bool, True, _SCORES),
    _unused("eval_use_gather_object", bool, False, _SCORES),
    _unused("use_legacy_prediction_loop", bool, False, _SCORES),
    _unused("eval_accumulation_steps", int, None, "predictions go to the computer's memory after every batch"),
    _refused("eval_delay", float, 0.0, "evaluation begins with the first --eval_steps or epoch; leave the flag out"),
    _unused("eval_on_start", bool, False, "the model to start from is scored by a run of its own, --do_eval without "
            "--do_train"),
    # Precision, memory and speed
    _unused("fp16_full_eval", bool, False, "prediction follows --use_fp16 too"),
    _unused("bf16_full_eval", bool, False, "prediction follows --use_fp16 too"),
    _unused("fp16_backend", str, "auto", _PRECISION),
    _unused("half_precision_backend", str, "auto", _PRECISION),
    _unused("tf32", bool, None, "products of float32 have the precision of the framework's default"),
    _unused("gradient_checkpointing", bool, False, _MEMORY, aliases=("activation_checkpointing",)),
    _unused("gradient_checkpointing_kwargs", str, None, _MEMORY, aliases=("activation_checkpointing_kwargs",)),
    _unused("torch_empty_cache_steps", int, None, "memory that PyTorch has freed stays with it"),
    _unused("torch_compile_backend", str, None, _COMPILE),
    _unused("torch_compile_mode", str, None, _COMPILE),
    _unused("torchdynamo", str, None, _COMPILE),
    _unused("use_liger_kernel", bool, False, _KERNELS),
    _unused("liger_kernel_config", str, None, _KERNELS),
    _unused("use_ipex", bool, False, _KERNELS),
    _unused("jit_mode_eval", bool, False, _KERNELS),
    _unused("use_mps_device", bool, False, _DEVICE),
    _refused("tpu_num_cores", int, None, _DEVICE),
    _unused("full_determinism", bool, False, "a run on a CPU is repeatable to the bit as it is"),
    # Checkpoints and resuming
    _unused("save_safetensors", bool, True, "PyTorch's checkpoints are always safetensors"),
    _unused("save_only_model", bool, False, "the optimizer's state is saved too, so that a run can go on"),
    _unused("save_on_each_node", bool, False, _FIRST),
    _unused("enable_jit_checkpoint", bool, False, "a training that gets SIGTERM saves a checkpoint as it is"),
    _unused("resume_from_checkpoint", str, None, "a run that finds its own checkpoints in --output_dir goes on from "
            "the newest; --overwrite_output_dir starts anew"),
    _unused("ignore_data_skip", bool, False, "a run that goes on knows its next row and skips nothing"),
    _unused("restore_callback_states_from_checkpoint", bool, False, "there are no callbacks"),
    # Log and reports
    _unused("run_name", str, None, _REPORT),
    _unused("project", str, "huggingface", _REPORT),
    _unused("trackio_space_id", str, None, _REPORT, "trackio"),
    _unused("trackio_bucket_id", str, None, _REPORT),
    _unused("trackio_static_space_id", str, None, _REPORT),
    _unused("logging_strategy", str, "steps", _INTERVAL),
    _unused("logging_first_step", bool, False, _INTERVAL),
    _unused("logging_nan_inf_filter", bool, True, "losses are logged as they are"),
    _unused("include_num_input_tokens_seen", str, "no", _REPORT, "false"),
    _unused("include_tokens_per_second", bool, False, _REPORT),
    _unused("skip_memory_metrics", bool, True, "run.json holds the largest memory of a run"),
    _unused("log_level", str, "passive", "--verbose_logging logs more"),
    _unused("log_level_replica", str, "warning", _FIRST, "passive"),
    _unused("log_on_each_node", bool, True, _FIRST),
    _unused("debug", list, (), "a loss that is not finite stops the run and is told without it", ""),
    _unused("tpu_metrics_debug", bool, False, _DEVICE),
    # The hub
    _refused("push_to_hub", bool, False, _UPLOAD),
    _unused("hub_model_id", str, None, _UPLOAD),
    _unused("push_to_hub_model_id", str, None, _UPLOAD),
    _unused("push_to_hub_organization", str, None, _UPLOAD),
    # What to_dict writes in the place of a token.
    _unused("hub_token", str, None, _UPLOAD, "<HUB_TOKEN>"),
    _unused("push_to_hub_token", str, None, _UPLOAD, "<PUSH_TO_HUB_TOKEN>"),
    _unused("hub_strategy", str, "every_save", _UPLOAD),
    _unused("hub_private_repo", bool, None, _UPLOAD, False),
    _unused("hub_always_push", bool, False, _UPLOAD),
    _unused("hub_revision", str, None, _UPLOAD),
    # Several processes
    _unused("ddp_find_unused_parameters", bool, None, _HOROVOD),
    _unused("ddp_bucket_cap_mb", int, None, f"{_HOROVOD}; --fusion_threshold_mb sizes its buffers"),
    _unused("ddp_broadcast_buffers", bool, None, _HOROVOD),
    _unused("ddp_static_graph", bool, None, _HOROVOD),
    _unused("ddp_backend", str, None, _HOROVOD),
    _unused("ddp_timeout", int, 1800, f"{_HOROVOD}; --stall_check_shutdown_time_seconds limits its waiting"),
    _unused("accelerator_config", str, None, "Accelerate is not used", _ACCELERATOR_DEFAULTS),
    _unused("dispatch_batches", bool, None, "Accelerate is not used"),
    _refused("split_batches", bool, None, "--train_batch_size is each process's, not to be split", False),
    _refused("parallelism_config", str, None, _SHARDING),
    _refused("fsdp", list, (), _SHARDING, "", ("false",), ("False",)),
    _unused("fsdp_config", str, None, "without --fsdp, which is refused, nothing is sharded", *_FSDP_DEFAULTS),
    _refused("fsdp_min_num_params", int, 0, _SHARDING),
    _refused("fsdp_transformer_layer_cls_to_wrap", str, None, _SHARDING),
    _refused("deepspeed", str, None, _SHARDING),
    _refused("sharded_ddp", list, (), _SHARDING, ""),
    _refused("mp_parameters", str, "", _SHARDING),
    _unused("ray_scope", str, "last", "no hyperparameters are searched for"),
)
# fmt: on
