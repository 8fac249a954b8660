"""Flags that run_squad.py and run_glue.py share.

Names and defaults are those of FasterTransformer's TensorFlow script; the spellings of its PyTorch script and of
Hugging Face's 2.x scripts are aliases where the meaning is the same.
"""

from quantization.modes import MODE_NAMES
from twinquant.flags import Flag
from twinquant.tensorboard_flags import TENSORBOARD_FLAGS

CALIBRATION_METHODS = ("max", "percentile", "mse", "entropy")

# One row of text per flag reads better here than one line per argument.
# fmt: off
MODEL_FLAGS = (
    Flag("bert_config_file", str, None, "model and checkpoints", "The model's configuration: bert_config.json of a "
         "Google checkpoint or config.json of a Hugging Face folder. Not needed when the folder of --init_checkpoint "
         "holds it. The spelling --config_file is the PyTorch script's and selects its defaults.",
         aliases=("config_file",), metavar="FILE"),
    Flag("vocab_file", str, None, "model and checkpoints", "The WordPiece vocabulary, one token per line. Not needed "
         "when the folder of --init_checkpoint holds vocab.txt.", metavar="FILE"),
    Flag("init_checkpoint", str, None, "model and checkpoints", "The checkpoint to start from: the prefix of a "
         "TensorFlow checkpoint, a Hugging Face folder or hub name, or a state dict (.bin, .pt) of FasterTransformer's "
         "PyTorch script.", aliases=("model_name_or_path",), metavar="PATH"),
    Flag("output_dir", str, None, "model and checkpoints", "Required: the folder for checkpoints, predictions, metrics "
         "and the record of the run; it is created if missing, and a run that finds its own checkpoints there goes on "
         "from the newest.", metavar="FOLDER"),
    Flag("overwrite_output_dir", bool, False, "model and checkpoints", "Start anew although --output_dir holds "
         "checkpoints of an earlier run."),
    Flag("do_lower_case", bool, True, "model and checkpoints", "Lower-case the text, as uncased models need; cased "
         "models need --nodo_lower_case."),
    Flag("save_checkpoints_steps", int, 1000, "model and checkpoints", "Save a checkpoint every so many updates.",
         aliases=("save_steps",), within="[1, inf)"),
    Flag("save_per_epoch", bool, False, "model and checkpoints", "Save a checkpoint at the end of every epoch too."),
    Flag("keep_checkpoints", int, 3, "model and checkpoints", "Keep this many of the newest checkpoints (the "
         "TensorFlow original kept 1).", aliases=("save_total_limit",), within="[1, inf)"),
)

CALIBRATION_FLAGS = (
    Flag("do_calib", bool, False, "calibration", "Find the ranges of all quantizers on batches of the training data "
         "and save the model with them."),
    Flag("calib_batch", int, 4, "calibration", "Number of calibration batches, each of --train_batch_size examples. "
         "The PyTorch original, which spells it --num-calib-batch, ran one batch more than it was told.",
         aliases=("num_calib_batch",), within="[1, inf)"),
    Flag("calib_method", str, "percentile", "calibration", "How an activation's range is found; weights always take "
         "their maximum.", aliases=("calibrator",), choices=CALIBRATION_METHODS),
    Flag("percentile", float, 99.99, "calibration", "The percentile, in percent, of --calib_method=percentile.",
         within="(0, 100]", metavar="PERCENT"),
    Flag("calib_include_padding", bool, False, "calibration", "Count padding positions in the ranges too, as the "
         "originals did."),
    Flag("calib_report", str, None, "calibration", "A folder for a page (index.html) with every quantizer's "
         "histogram, the ranges that each method would choose, and what they clip and cost.", metavar="FOLDER"),
)

TRAINING_FLAGS = (
    Flag("do_train", bool, False, "fine-tuning", "Fine-tune on the training data; with --if_quant this is "
         "quantization-aware training (QAT)."),
    Flag("train_batch_size", int, 8, "fine-tuning", "Examples per step, in training and calibration.",
         aliases=("per_gpu_train_batch_size", "per_device_train_batch_size"), within="[1, inf)"),
    Flag("num_accumulation_steps", int, 1, "fine-tuning", "Steps whose gradients are added up for one update. Spelled "
         "--gradient_accumulation_steps beside --train_batch_size it divides that batch, as the PyTorch original did; "
         "beside --per_gpu_train_batch_size or --model_type it does not, as in Hugging Face's scripts.",
         aliases=("gradient_accumulation_steps",), within="[1, inf)"),
    Flag("learning_rate", float, 5e-6, "fine-tuning", "Peak learning rate.", within="(0, inf)"),
    Flag("num_train_epochs", float, 3.0, "fine-tuning", "Number of passes over the training data; a fraction is "
         "allowed.", within="(0, inf)"),
    Flag("max_steps", int, -1, "fine-tuning", "Stop after this many updates; -1 is no limit.", within="[-1, inf)"),
    Flag("warmup_proportion", float, 0.1, "fine-tuning", "Fraction of the updates in which the learning rate rises.",
         aliases=("warmup_ratio",), within="[0, 1)"),
    Flag("warmup_steps", float, None, "fine-tuning", "Number of updates in which the learning rate rises, or below 1 "
         "their part of all, as in transformers 5; replaces --warmup_proportion when given.", within="[0, inf)"),
    Flag("weight_decay", float, 0.01, "fine-tuning", "Decoupled weight decay, not applied to biases and LayerNorm.",
         within="[0, inf)"),
    Flag("adam_epsilon", float, 1e-6, "fine-tuning", "Epsilon of the Adam optimizer.", within="(0, inf)"),
    Flag("max_grad_norm", float, 1.0, "fine-tuning", "Gradients are scaled down to this global norm; 0: not "
         "at all.", within="[0, inf)"),
    Flag("group_by_length", bool, False, "fine-tuning", "Train on batches of rows of like length: there is less "
         "padding to compute, the more so the more their lengths differ."),
    Flag("seed", int, 42, "fine-tuning", "Seed of the data order, dropout and new weights.", within="[0, 4294967295]"),
)

QUANTIZATION_FLAGS = (
    Flag("if_quant", bool, False, "quantization", "Fake-quantize the model in training and prediction (ignored while "
         "calibrating). With the PyTorch script's flags it is on unless --quant-disable is given."),
    Flag("quant_mode", str, "ft2", "quantization", "Which tensors are quantized, and how. ft1, ft2 and ft3 match "
         "FasterTransformer's int8_mode 1, 2 and 3, trt TensorRT, ort onnxruntime. It overrides the single settings "
         "below.", choices=MODE_NAMES),
    Flag("quant_exclude", list, (), "quantization", "Quantizers to leave in float: names or parts of names as in "
         "calibration.json (`layer_5`, `layer_*/output/dense/input_quantizer`), or a file of them, such as `python -m "
         "export sensitivity` writes.", metavar="FILE|PATTERN [...]"),
    Flag("quant_per_tensor", bool, False, "quantization", "Without --quant_mode: one weight range per tensor instead "
         "of one per output channel.", kept=False),
    Flag("fuse_qkv", bool, False, "quantization", "Without --quant_mode: query, key and value share their ranges.",
         kept=False),
    Flag("narrow_range", bool, False, "quantization", "Without --quant_mode: activations use [-127, 127] instead of "
         "[-128, 127].", kept=False),
    Flag("quant_disable_keyword", list, (), "quantization", "Without --quant_mode: leave out the quantizers whose name "
         "matches one of these regular expressions.", kept=False, metavar="REGEX [REGEX ...]"),
    Flag("wprec", int, 8, "quantization", "Without --quant_mode: bits of the weights.", kept=False, within="[2, 16]"),
    Flag("aprec", int, 8, "quantization", "Without --quant_mode: bits of the activations.", kept=False,
         within="[2, 16]"),
    Flag("quant_disable", bool, False, "quantization", "Turn all quantizers off: the PyTorch script's spelling of "
         "--if_quant=False.", kept=False),
)

DISTILLATION_FLAGS = (
    Flag("distillation", bool, False, "distillation", "Train with a teacher's logits beside the labels."),
    Flag("teacher", str, None, "distillation", "The teacher's checkpoint, in any form that --init_checkpoint takes; it "
         "is not quantized.", metavar="PATH"),
    Flag("distillation_loss_scale", float, 10000.0, "distillation", "Weight of the distillation loss beside the loss "
         "on the labels.", within="[0, inf)"),
    Flag("distillation_loss", str, "tf", "distillation", "Which original's loss: tf is KL(student || teacher) summed "
         "over the logits' positions, pytorch is KL(teacher || student) averaged over them, which is weaker by their "
         "number.", choices=("tf", "pytorch")),
    Flag("distillation_temperature", float, 3.0, "distillation", "Both logits are divided by this temperature (fixed "
         "to 3 in the originals).", within="(0, inf)"),
)

RUNTIME_FLAGS = (
    Flag("backend", str, None, "runtime", "The framework. When not given: tensorflow if it is installed, else pytorch "
         "(the other way round with the PyTorch script's flags).", choices=("tensorflow", "pytorch")),
    Flag("device", str, "auto", "runtime", "Where to compute: auto, cpu, cuda, cuda:1 and so on; auto takes the GPU "
         "that the framework finds.", metavar="DEVICE"),
    Flag("no_cuda", bool, False, "runtime", "The same as --device=cpu.", aliases=("use_cpu",), kept=False),
    Flag("use_fp16", bool, False, "runtime", "Matrix products in half precision: float16 with loss "
         "scaling on a GPU, bfloat16 on a CPU that has it (elsewhere a warning, and float32).",
         aliases=("fp16", "amp")),
    Flag("loss_scale", float, 0.0, "runtime", "Loss scale of training in float16; 0 adapts it to overflows.",
         within="[0, inf)"),
    Flag("use_xla", bool, False, "runtime", "Compile the model: with XLA in TensorFlow, with torch.compile in "
         "PyTorch. Batches are then padded to --max_seq_length, so that one compilation serves all."),
    Flag("cache_dir", str, None, "runtime", "Folder for the features made from the data files; when not given, the "
         "folder features in --output_dir.", metavar="FOLDER"),
    Flag("overwrite_cache", bool, False, "runtime", "Make the features anew although they are in the cache.",
         aliases=("skip_cache",)),
    Flag("log_freq", int, 50, "runtime", "Log the loss every so many updates.", aliases=("logging_steps",),
         within="[1, inf)"),
    Flag("json_summary", str, None, "runtime", "A file to which the results are written too, as JSON.",
         metavar="FILE"),
    *TENSORBOARD_FLAGS,
    Flag("disable_progress_bar", bool, False, "runtime", "Show no progress bars."),
    Flag("verbose_logging", bool, False, "runtime", "Log more: details of the answers' projection onto the text."),
)

MULTI_PROCESS_FLAGS = (
    Flag("horovod", bool, False, "multi-process", "Train one model together with the other processes that mpirun or "
         "horovodrun started. --train_batch_size is each process's, and the learning rate is multiplied by their "
         "number (not with the PyTorch script's flags). A single process trains as without it."),
    Flag("horovod_compression", str, "none", "multi-process", "How gradients travel between the processes: none, as "
         "float32, or fp16, half the bytes, as the original with --use_fp16. Meant for GPUs, where --use_fp16 scales "
         "the gradients so that small ones do not vanish. Horovod cannot add bfloat16.", choices=("none", "fp16")),
    Flag("fusion_threshold_mb", float, 64.0, "multi-process", "Gradients are joined into buffers of at most so many "
         "MiB, each added up in one operation.", within="(0, inf)"),
    Flag("cycle_time_ms", float, 1.0, "multi-process", "Milliseconds between two looks of Horovod for work.",
         within="(0, inf)"),
    Flag("stall_check_warning_time_seconds", float, 15.0, "multi-process", "Warn when a process has kept the others "
         "waiting for so long.", within="[1, inf)"),
    Flag("stall_check_shutdown_time_seconds", float, 40.0, "multi-process", "End all processes when one has kept the "
         "others waiting for so long. When not given, 300 with --use_xla.", within="[1, inf)"),
    Flag("local_rank", int, -1, "multi-process", "Accepted, and not needed: under mpirun or horovodrun each process "
         "knows its rank.", kept=False, within="[-1, inf)"),
)

# Both scripts have these two, each among the other flags of its own for that phase.
PAD_TO_MAX_LENGTH = Flag(
    "pad_to_max_length", bool, False, "data", "Pad every batch to --max_seq_length, as the originals did, instead of "
    "to its longest row.")
PREDICT_BATCH_SIZE = Flag(
    "predict_batch_size", int, 8, "prediction", "Windows or texts per step of prediction.",
    aliases=("eval_batch_size", "per_gpu_eval_batch_size", "per_device_eval_batch_size"), within="[1, inf)")

COMMON_FLAGS = (
    MODEL_FLAGS + CALIBRATION_FLAGS + TRAINING_FLAGS + QUANTIZATION_FLAGS + DISTILLATION_FLAGS + RUNTIME_FLAGS
    + MULTI_PROCESS_FLAGS
)
# fmt: on
