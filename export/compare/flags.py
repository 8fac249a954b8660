"""The flags of `python -m export compare`."""

from export.compare.rows import KINDS
from export.flags import DATA_FLAGS, MODEL_FLAGS, Arguments
from quantization.modes import MODE_NAMES
from twinquant.errors import UserError
from twinquant.flags import Flag, parse_flags

HEAD = r"""
python -m export compare: one command, one table: a checkpoint as fp32 and int8 in each backend, under
onnxruntime and, where it is installed, OpenVINO, with scores, agreement, size, memory and speed.

  python -m export compare --checkpoint=out/ptq/model.ckpt-calibrated --data=dev-v1.1.json --output=report

  python -m export compare --checkpoint out/mrpc/model.ckpt-343 --data=glue/MRPC --task_name=MRPC \
      --rows 'onnxruntime-*' --output=report

writes report/report.json, report.md and report.html, a page that needs no other file, and prints the
table. What cannot be measured is a row with the reason. Computes on the CPU.
"""

# fmt: off
COMPARE_FLAGS = (
    Flag("checkpoint", list, (), "model and checkpoints", "Required: checkpoints, in any form that the scripts' "
         "--init_checkpoint takes; int8 rows need one with ranges. May be given several times.",
         metavar="PATH [PATH ...]", repeats=True),
    *MODEL_FLAGS,
    Flag("data", str, None, "data", "Required: what is predicted: a SQuAD file, with --task_name a GLUE folder, or "
         "a file of your own texts.",
         metavar="PATH"),
    Flag("max_examples", int, None, "data", "Take only the first examples.", within="[1, inf)"),
    Flag("output", str, None, "export", "Required: the report's folder.", metavar="FOLDER"),
    Flag("keep_models", str, None, "export", "Keep the exported models in this folder.", metavar="FOLDER"),
    Flag("quant_mode", str, None, "export", "Of the int8 rows: which tensors are quantized. When not given: the mode "
         "that calibration.json beside the checkpoint tells.", choices=MODE_NAMES),
    Flag("quant_exclude", list, (), "export", "Of the int8 rows: quantizers to leave in float, as of `python -m export "
         "onnx`.", metavar="FILE|PATTERN [...]"),
    Flag("reduce_range", bool, None, "export", "Of the onnxruntime rows: weights of 7 bits. When not given: on where "
         "this CPU has no VNNI."),
    Flag("rows", list, (), "runtime", "Names or patterns of the rows to measure, such as 'onnxruntime-*' or "
         f"'*-int8'; of several checkpoints also 'NAME/*'. When not given: all, which are "
         f"{', '.join(kind.name for kind in KINDS)}.", metavar="PATTERN [PATTERN ...]", repeats=True),
    Flag("baseline", str, None, "runtime", "The row whose time the ratios are to. When not given: onnxruntime-fp32 of "
         "the first checkpoint, the fp32 that an int8 model of the same runtime has to beat.", metavar="ROW"),
    Flag("batches", list, ("1x128", "8x128", "1x384"), "runtime", "Shapes to time, rows x positions; at most the "
         "model's positions.", metavar="BxS [BxS ...]", repeats=True),
    Flag("threads", list, (), "runtime", "Numbers of threads to time with. When not given: 1 and one per core.",
         metavar="N [N ...]", repeats=True),
    Flag("rounds", int, 15, "runtime", "Times that every row runs every shape, taking turns with the others.",
         within="[1, inf)"),
    *DATA_FLAGS,
)
# fmt: on


def parse_compare_flags(argv: list[str]) -> Arguments:
    """The command line of `python -m export compare`; UserError for what cannot be meant."""
    parsed = parse_flags(COMPARE_FLAGS, argv, "python -m export compare", HEAD)
    required = {
        "checkpoint": "the checkpoint to measure",
        "data": "the SQuAD file or GLUE folder to predict",
        "output": "the report's folder",
    }
    for name, what in required.items():
        if not parsed.values[name]:
            raise UserError(f"--{name} is required: {what}")
    return Arguments(parsed.values, tuple(parsed.notes))
