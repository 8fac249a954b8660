"""Flags of other scripts that have no effect here or are refused: each says what to do instead."""

from twinquant.flags import Flag

_SPARSE = "2:4 sparsity is not supported; leave the flag out to train the dense model."
_OLD = "accepted for old command lines"


def _unused(name: str, kind: type, default: object, why: str) -> Flag:
    return Flag(name, kind, default, _OLD, f"Has no effect: {why}.", kept=False, note=f"has no effect: {why}.")


def _refused(name: str, kind: type, default: object, why: str) -> Flag:
    refusal = "Refused" if default in (None, False) else "Any other value is refused"
    return Flag(name, kind, default, _OLD, f"{refusal}: {why}.", kept=False, refused=f"{why}.")


# fmt: off
USE_TRT = Flag("use_trt", bool, False, _OLD, "Refused: the original's prediction through TensorFlow's TensorRT, which "
               "failed there.", kept=False, refused="prediction through TensorFlow's TensorRT is not supported (in the "
               "original it failed); --export_onnx with --export_target=tensorrt writes a model for TensorRT.")

OLD_FLAGS = (
    Flag("iterations_per_loop", int, 1000, _OLD, "Has no effect, nor had it in the TensorFlow original.", kept=False,
         note="has no effect, nor had it in the original."),
    Flag("calibrator_file", str, "calibrators.pkl", _OLD, "Has no effect: the ranges are written to the calibrated "
         "checkpoint and to calibration.json; nothing is pickled.", metavar="FILE", kept=False,
         note="has no effect: the ranges are written to the calibrated checkpoint and to calibration.json in "
         "--output_dir; no pickle is written or read."),
    Flag("bert_model", str, None, _OLD, "Required by FasterTransformer's PyTorch script, where it only named a cache. "
         "Selects that script's defaults; the model is the one of --init_checkpoint.", metavar="NAME", kept=False),
    Flag("sparse", bool, False, _OLD, "Refused: 2:4 sparsity is not supported.", kept=False, refused=_SPARSE),
    Flag("recompute_sparse_masks", bool, False, _OLD, "Refused: 2:4 sparsity is not supported.", kept=False,
         refused=_SPARSE),
    Flag("use_env", bool, False, _OLD, "Has no effect: it belongs to torch.distributed.launch.", kept=False,
         note="has no effect: it belongs to torch.distributed.launch, and one process trains here."),
    Flag("skip_checkpoint", bool, False, _OLD, "Has no effect: a trained model is always saved.", kept=False,
         note="has no effect: a trained model is always saved, or the run would be lost with it; "
         "--save_checkpoints_steps and --keep_checkpoints limit how often and how many."),
    Flag("model_type", str, None, _OLD, "Hugging Face's name of the architecture; only bert is supported.",
         choices=("bert",), kept=False),
    Flag("config_name", str, None, _OLD, "Hugging Face's configuration, when it is not in the model's folder: a file "
         "or folder, taken as --bert_config_file.", metavar="PATH", kept=False),
    Flag("tokenizer_name", str, None, _OLD, "Hugging Face's tokenizer, when it is not in the model's folder: a folder "
         "or vocabulary file, taken as --vocab_file.", metavar="PATH", kept=False),
    Flag("fp16_opt_level", str, "O1", _OLD, "Has no effect: mixed precision has one level here.", kept=False,
         note="has no effect: mixed precision has one level here, switched on by --use_fp16."),
    Flag("server_ip", str, None, _OLD, "Has no effect: no remote debugger is attached.", kept=False,
         note="has no effect: no remote debugger is attached."),
    Flag("server_port", str, None, _OLD, "Has no effect: no remote debugger is attached.", kept=False,
         note="has no effect: no remote debugger is attached."),
)

_LOCAL = ("the data must be local files: give --task_name with --data_dir for a GLUE task, or --train_file, "
          "--validation_file and --test_file for data of your own")
_SPLIT = "a local file is one split: --train_file, --validation_file and --test_file name them"
_METRIC = ("the best checkpoint is the one with the best main score of the task: mcc, acc, the mean of acc and f1, or "
           "the mean of the correlations")
_ORDER = "training follows an order drawn from --seed; with --max_train_samples the first examples are taken"
_REPORT = "results and losses go to the log and to files in --output_dir"
_UPLOAD = "nothing is uploaded; the checkpoints in --output_dir can be, by other means"
_HUB = "models are files on this machine, or fetched by their public hub name"

# Of Hugging Face's run_glue.py and run_classification.py, with the Trainer's arguments that people set.
TRAINER_FLAGS = (
    _refused("dataset_name", str, None, _LOCAL),
    _refused("dataset_config_name", str, None, _LOCAL),
    _refused("train_split_name", str, None, _SPLIT),
    _refused("validation_split_name", str, None, _SPLIT),
    _refused("test_split_name", str, None, _SPLIT),
    _refused("remove_splits", str, None, _SPLIT),
    _unused("remove_columns", str, None, "only the columns of --text_column and --label_column are read"),
    _unused("text_column_delimiter", str, None, "texts are not joined: two text columns are a pair of texts"),
    _unused("metric_name", str, None, "accuracy, F1 and a report per class are computed, for a regression the "
            "correlations"),
    _unused("metric_for_best_model", str, None, _METRIC),
    _unused("greater_is_better", bool, None, _METRIC),
    _unused("shuffle_train_dataset", bool, False, _ORDER),
    _unused("shuffle_seed", int, 42, _ORDER),
    _unused("data_seed", int, None, _ORDER),
    _unused("group_by_length", bool, False, f"{_ORDER}, and a batch is padded only to its longest text"),
    _unused("use_fast_tokenizer", bool, True, "there is one tokenizer, and it is a fast one"),
    _unused("preprocessing_num_workers", int, None, "features are made by one process"),
    _unused("dataloader_num_workers", int, 0, "batches are made by one process"),
    _unused("dataloader_pin_memory", bool, True, "batches are made as they are needed"),
    _unused("dataloader_drop_last", bool, False, "no batch is smaller than the others: one may hold the end of an "
            "epoch and the beginning of the next"),
    _unused("remove_unused_columns", bool, True, "only the model's inputs are ever made"),
    _refused("model_revision", str, "main", "a hub name stands for its main revision; download another one and name "
             "its folder"),
    _unused("token", str, None, _HUB),
    _unused("use_auth_token", bool, False, _HUB),
    _unused("trust_remote_code", bool, False, "no code is fetched, and only BERT is run"),
    _unused("ignore_mismatched_sizes", bool, False, "a checkpoint whose head has other classes is refused; a "
            "checkpoint without a head gets a new one before training"),
    _refused("lr_scheduler_type", str, "linear", "the learning rate rises linearly, then falls linearly to 0"),
    Flag("optim", str, "adamw_torch", _OLD, "The optimizer is AdamW; names of others are refused.", metavar="NAME",
         kept=False),
    _refused("adam_beta1", float, 0.9, "AdamW's first moment decays by 0.9"),
    _refused("adam_beta2", float, 0.999, "AdamW's second moment decays by 0.999"),
    _refused("label_smoothing_factor", float, 0.0, "the loss is the plain cross-entropy"),
    _unused("gradient_checkpointing", bool, False, "activations are kept; if memory is short, raise "
            "--num_accumulation_steps and lower --train_batch_size"),
    _unused("fp16_full_eval", bool, False, "prediction follows --use_fp16 too"),
    _unused("bf16_full_eval", bool, False, "prediction follows --use_fp16 too"),
    _unused("full_determinism", bool, False, "a run on a CPU is repeatable to the bit as it is"),
    _unused("save_safetensors", bool, True, "PyTorch's checkpoints are always safetensors"),
    _unused("save_only_model", bool, False, "the optimizer's state is saved too, so that a run can go on"),
    _unused("resume_from_checkpoint", str, None, "a run that finds its own checkpoints in --output_dir goes on from "
            "the newest; --overwrite_output_dir starts anew"),
    _unused("run_name", str, None, _REPORT),
    _unused("logging_strategy", str, "steps", f"{_REPORT}, every --log_freq updates"),
    _unused("logging_first_step", bool, False, f"{_REPORT}, every --log_freq updates"),
    _unused("log_level", str, "passive", "--verbose_logging logs more"),
    _refused("push_to_hub", bool, False, _UPLOAD),
    _unused("hub_model_id", str, None, _UPLOAD),
    _unused("hub_token", str, None, _UPLOAD),
    _unused("ddp_find_unused_parameters", bool, None, "one process trains here"),
    Flag("predict_file", str, None, _OLD, "Refused: it is run_squad.py's.", metavar="FILE", kept=False,
         refused="it is run_squad.py's; the files are --validation_file (for --do_eval) and --test_file (for "
         "--do_predict), or those in --data_dir."),
)
# fmt: on
