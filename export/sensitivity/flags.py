"""The flags of `python -m export sensitivity`."""

from export.flags import BACKEND, CHECKPOINT_FLAGS, DATA_FLAGS, Arguments, require
from quantization.modes import MODE_NAMES
from twinquant.flags import Flag, parse_flags

HEAD = r"""
python -m export sensitivity: what each quantizer of a calibrated checkpoint costs, tensor by tensor, and a
short list of quantizers to leave in float so that the score drops by at most --max_drop points.

  python -m export sensitivity --checkpoint=out/ptq/model.ckpt-calibrated --data=dev-v1.1.json --max_examples=200 \
      --max_drop=0.3 --output=out/sensitivity
  python -m export onnx --checkpoint=out/ptq/model.ckpt-calibrated --precision=int8 --output=onnx/int8 \
      --quant_exclude=out/sensitivity/quant_exclude.txt

It predicts the examples once per tensor. A score on few examples is coarse, and one that the list was
chosen on flatters it: choose on some examples, measure on others. run_squad.py and run_glue.py take
--quant_exclude too.
"""

# fmt: off
FLAGS = (
    *CHECKPOINT_FLAGS,
    Flag("data", str, None, "data", "Required: labeled data, a SQuAD file, with --task_name a GLUE folder, or "
         "a file of your own texts.",
         metavar="PATH"),
    Flag("max_examples", int, 64, "data", "Take only the first examples.", within="[1, inf)"),
    Flag("output", str, None, "export", "Required: the folder for sensitivity.json, sensitivity.md and "
         "quant_exclude.txt.", metavar="FOLDER"),
    Flag("quant_mode", str, None, "export", "Which tensors are quantized. When not given: the mode that "
         "calibration.json beside the checkpoint tells.", choices=MODE_NAMES),
    Flag("quant_exclude", list, (), "export", "Quantizers that are off from the start, as of `python -m export onnx`.",
         metavar="FILE|PATTERN [...]"),
    Flag("max_drop", float, 0.3, "export", "How much of the score may be lost, in points of 100.", within="[0, 100]"),
    Flag("also_without", bool, False, "export", "Measure also what is lost when all but one tensor are quantized: "
         "twice the time."),
    Flag("top", int, 20, "export", "Rows of the table that are printed; the files have all.", within="[1, inf)"),
    *DATA_FLAGS,
    BACKEND,
)
# fmt: on


def parse_sensitivity_flags(argv: list[str]) -> Arguments:
    """The command line; UserError for what cannot be meant."""
    parsed = parse_flags(FLAGS, argv, "python -m export sensitivity", HEAD)
    require(parsed, "checkpoint", "the calibrated checkpoint")
    require(parsed, "data", "labeled data to measure on")
    require(parsed, "output", "the folder for the results")
    return Arguments(parsed.values, tuple(parsed.notes))
