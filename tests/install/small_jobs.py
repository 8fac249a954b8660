"""The tiny model and data of the jobs that prove an installation."""

from pathlib import Path

from install.shapes import write_job

# Optional packages; a process that hides them all has what `pip install .` brings.
HIDDEN = {
    "tensorflow", "keras", "torch", "torchao", "onnx", "onnxruntime", "openvino", "nncf", "transformers", "matplotlib",
    "horovod", "huggingface_hub", "tensorboard", "hypothesis", "pytest",
}  # fmt: skip

__all__ = ["HIDDEN", "Path", "write_job"]
