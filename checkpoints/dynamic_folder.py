"""A dynamically quantized model where a checkpoint is expected.

backends/pytorch/dynamic_file.py reads and writes such models; its import needs torch.
"""

import os
from pathlib import Path

from twinquant.errors import UserError

WEIGHTS_FILE = "model_int8.safetensors"
SETTINGS_FILE = "dynamic.json"


def refuse_dynamic(path: str | os.PathLike[str]) -> None:
    """Raises UserError where `path` is such a folder, which has both files, or the file of weights in it.

    It names the fp32 model where run_glue.py left it: that writes the two as fp32/model and int8, beside each other.
    """
    given = Path(path)
    weights = given if given.name == WEIGHTS_FILE else given / WEIGHTS_FILE
    if not (weights.is_file() and weights.with_name(SETTINGS_FILE).is_file()):
        return
    parent = weights.parent.parent / "fp32" / "model"
    known = f": {parent}" if parent.is_dir() else ""
    raise UserError(
        f"{given} is a model that --quant_scheme=dynamic quantized, which DynamicModel.load in "
        f"backends/pytorch/dynamic.py reads; what is asked for here needs the fp32 model it was made of{known}"
    )
