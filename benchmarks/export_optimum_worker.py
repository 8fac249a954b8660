"""Run by optimum's Python (see export_optimum_peers.py): CHECKPOINT_FOLDER OUTPUT_FOLDER.

Writes optimum's ONNX export of the checkpoint and its dynamically quantized models, and models.json with their paths by
name. Imports nothing of this project, which that environment does not hold.
"""

import json
import os
import sys
from pathlib import Path


def main(checkpoint: str, output: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from optimum.exporters.onnx import main_export
    from optimum.onnxruntime import AutoOptimizationConfig, AutoQuantizationConfig, ORTOptimizer, ORTQuantizer

    folder = Path(output)
    main_export(checkpoint, folder / "fp32", task="question-answering", do_validation=False)
    ORTOptimizer.from_pretrained(folder / "fp32").optimize(AutoOptimizationConfig.O2(), save_dir=folder / "o2")
    models = {"optimum fp32": "fp32/model.onnx", "optimum fp32, O2": "o2/model_optimized.onnx"}
    for name in ("avx2", "avx512", "avx512_vnni"):
        config = getattr(AutoQuantizationConfig, name)(is_static=False, per_channel=True)
        quantizer = ORTQuantizer.from_pretrained(folder / "fp32", file_name="model.onnx")
        quantizer.quantize(config, save_dir=folder / name)
        models[f"optimum ORTQuantizer dynamic, {name}"] = f"{name}/model_quantized.onnx"
    (folder / "models.json").write_text(json.dumps(models), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
