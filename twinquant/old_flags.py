"""Flags of the older scripts that have no effect here or are refused: each says what to do instead."""

from twinquant.flags import Flag

_EXPORT = "export to other runtimes is not part of this version; train, calibrate and predict without it"
_TRITON = "has no effect: nothing is exported to the Triton (TensorRT) Inference Server."
_SPARSE = "2:4 sparsity is not supported; leave the flag out to train the dense model."
_OLD = "accepted for old command lines"


def _triton(name: str, kind: type, default: object) -> Flag:
    text = "Setting of the original's --export_trtis; has no effect."
    return Flag(name, kind, default, "export", text, kept=False, note=_TRITON)


# fmt: off
EXPORT_FLAGS = (
    Flag("export_trtis", bool, False, "export", "Refused: the original's export for the Triton (TensorRT) Inference "
         "Server is not part of this version.", kept=False, refused=f"{_EXPORT}."),
    Flag("use_trt", bool, False, "export", "Refused: the original's prediction through TensorFlow's TensorRT is not "
         "part of this version.", kept=False, refused=f"{_EXPORT} (in the original this flag failed)."),
    _triton("trtis_model_name", str, "bert"),
    _triton("trtis_model_version", int, 1),
    _triton("trtis_server_url", str, "localhost:8001"),
    _triton("trtis_model_overwrite", bool, False),
    _triton("trtis_max_batch_size", int, 8),
    _triton("trtis_dyn_batching_delay", float, 0.0),
    _triton("trtis_engine_count", int, 1),
)

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
    Flag("evaluate_during_training", bool, False, _OLD, "Refused: evaluation happens once, after training.", kept=False,
         refused="evaluation happens once, after training, with --do_predict; to evaluate a saved checkpoint, name it "
         "with --init_checkpoint."),
    Flag("eval_all_checkpoints", bool, False, _OLD, "Refused: one run evaluates one checkpoint.", kept=False,
         refused="one run evaluates one checkpoint; run once per checkpoint with --init_checkpoint and --do_predict."),
    Flag("server_ip", str, None, _OLD, "Has no effect: no remote debugger is attached.", kept=False,
         note="has no effect: no remote debugger is attached."),
    Flag("server_port", str, None, _OLD, "Has no effect: no remote debugger is attached.", kept=False,
         note="has no effect: no remote debugger is attached."),
)
# fmt: on
