"""Flags of NVIDIA's and of the first Hugging Face scripts that have no effect here or are refused, with what to do."""

from twinquant.flags import Flag

_SPARSE = "2:4 sparsity is not supported; leave the flag out to train the dense model."
_OLD = "accepted for old command lines"


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
         note="has no effect: mixed precision has one level here, switched on by --use_fp16.", quiet=("O1",)),
    Flag("server_ip", str, None, _OLD, "Has no effect: no remote debugger is attached.", kept=False,
         note="has no effect: no remote debugger is attached."),
    Flag("server_port", str, None, _OLD, "Has no effect: no remote debugger is attached.", kept=False,
         note="has no effect: no remote debugger is attached."),
)
# fmt: on
