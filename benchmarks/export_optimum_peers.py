"""What optimum makes of the checkpoint, in optimum's own environment (`make optimum`): its export, then its quantizer.

optimum-onnx's ORTQuantizer calls onnxruntime's own quantize_dynamic and quantize_static, so its models differ from
benchmarks/export_models.py's peers only by the exported graph and by optimum's settings, of which all for x86 are
taken. It needs an older transformers than the rest of the project, hence an environment and a process of its own. The
files are timed like all others, by this process's onnxruntime.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.turns import FLOAT, ONNXRUNTIME
from checkpoints.config import BertConfig
from checkpoints.hugging_face import write_hugging_face
from checkpoints.value import Checkpoint
from install.optimum_install import environment_python

SCRIPT = Path(__file__).with_name("export_optimum_worker.py")


def left_out() -> list[str]:
    """What cannot be measured because it is not installed, a sentence each."""
    if environment_python() is not None:
        return []
    return ["optimum: it has no environment here (make optimum installs one)"]


def write_models(config: BertConfig, tensors: Mapping[str, np.ndarray], folder: Path) -> dict[str, tuple[str, Path]]:
    """(group, path) by name: optimum's export, and one model for each of its settings for x86."""
    checkpoint = Checkpoint(dict(tensors), {}, config, "random weights")
    write_hugging_face(folder / "checkpoint", checkpoint)
    python = environment_python()
    assert python is not None, "see left_out"
    command = [str(python), str(SCRIPT), str(folder / "checkpoint"), str(folder / "optimum")]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{outcome.stderr[-3000:]}")
    paths = json.loads((folder / "optimum/models.json").read_text(encoding="utf-8"))
    return {name: (FLOAT if "fp32" in name else ONNXRUNTIME, folder / "optimum" / path) for name, path in paths.items()}
