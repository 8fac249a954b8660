"""Commands that need a package which is not installed, and the sentences that they end with.

docs/bad_input.md has them too.
"""

# Optional packages; a process that hides them all has what `pip install .` brings.
HIDDEN = {
    "tensorflow", "keras", "torch", "torchao", "onnx", "onnxruntime", "openvino", "nncf", "transformers", "matplotlib",
    "horovod", "huggingface_hub", "tensorboard", "hypothesis", "pytest",
}  # fmt: skip

SQUAD = ["run_squad.py", "--init_checkpoint={job}/model.ckpt-1", "--predict_file={job}/squad.json", "--output_dir=out"]
GLUE = ["run_glue.py", "--init_checkpoint={job}/glue", "--train_file={job}/train.csv", "--output_dir=out",
        "--validation_file={job}/train.csv", "--max_seq_length=16", "--do_eval"]  # fmt: skip
# What is there beside the base packages, the command, and the sentence it ends with.
MISSING = {
    "no torch": (
        "tensorflow", [*SQUAD, "--do_predict", "--backend=pytorch"],
        "--backend=pytorch needs the package torch, not installed (installed: tensorflow); pip install '.[pytorch]' "
        "installs it.",
    ),
    "no tensorflow": (
        "pytorch", [*GLUE, "--backend=tensorflow"],
        "--backend=tensorflow needs the package tensorflow, not installed (installed: pytorch); pip install "
        "'.[tensorflow]' installs it.",
    ),
    "no framework": (
        "", [*SQUAD, "--do_predict"],
        "neither tensorflow nor torch is installed, and one of them is needed to run a model; pip install "
        "'.[tensorflow]' or '.[pytorch]' installs one.",
    ),
    "a torch file without torch": (
        "export", ["-m", "export", "onnx", "--checkpoint={job}/pytorch_model.bin", "--output=o"],
        "reading {job}/pytorch_model.bin needs PyTorch, which is not installed; pip install '.[pytorch]' installs it",
    ),
    "dynamic quantization without torch": (
        "tensorflow", [*GLUE, "--quant_scheme=dynamic"],
        "--quant_scheme=dynamic needs the package torch, not installed; pip install '.[pytorch]' installs it.",
    ),
    "torchao's engine without torchao": (
        "pytorch", [*GLUE, "--quant_scheme=dynamic", "--dynamic_engine=torchao"],
        "--dynamic_engine=torchao needs the package torchao, not installed; pip install '.[torchao]' installs it.",
    ),
    "export without onnx": (
        "pytorch", ["-m", "export", "onnx", "--checkpoint={job}/model.ckpt-1", "--output=o"],
        "python -m export onnx needs the package onnx, not installed; pip install '.[export]' installs it",
    ),
    "check without onnx": (
        "pytorch", ["-m", "export", "check", "--checkpoint={job}/model.ckpt-1", "--model=o"],
        "python -m export check needs the package onnx, not installed; pip install '.[export]' installs it",
    ),
    "comparison without onnx": (
        "pytorch", ["-m", "export", "compare", "--checkpoint={job}/model.ckpt-1", "--output=o"],
        "python -m export compare needs the package onnx, not installed; pip install '.[export]' installs it",
    ),
    "export after a run without onnx": (
        "pytorch", [*SQUAD, "--do_predict", "--export_onnx=o"],
        "--export_onnx needs the package onnx, not installed; pip install '.[export]' installs it.",
    ),
    "export without onnxruntime": (
        "export but onnxruntime", ["-m", "export", "onnx", "--checkpoint={job}/model.ckpt-1", "--output=o"],
        "onnxruntime is not installed; pip install '.[export]' installs it",
    ),
    "several processes without Horovod": (
        "pytorch", [*SQUAD, "--do_predict", "--horovod", "--backend=pytorch"],
        "--horovod: Horovod for pytorch cannot be imported (No module named 'horovod'); `make horovod` builds and "
        "installs it into .venv, `python -m install.horovod_install` in a clone into the Python that runs it",
    ),
    "a hub name without its library": (
        "export", ["-m", "export", "onnx", "--checkpoint=bert-base-uncased", "--output=o"],
        "the checkpoint bert-base-uncased does not exist here, and fetching it from the Hugging Face hub needs "
        "huggingface_hub, which is not installed; pip install '.[hub]' installs it",
    ),
}  # fmt: skip
