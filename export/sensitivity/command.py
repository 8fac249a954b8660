"""`python -m export sensitivity`: the cost of every quantizer, and what to leave in float."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from export.check import make_reference
from export.commands import say_notes
from export.data import make_task, max_seq_length
from export.flags import Arguments
from export.grids import make_grids
from export.kernels import expected_int8_products
from export.sensitivity.costs import Evaluator, TensorCost, measure, quantized_tensors
from export.sensitivity.flags import parse_sensitivity_flags
from export.sensitivity.search import Exclusion, find_exclusion
from export.settings import ExportSettings
from export.source import Source, load_source
from export.verify import installed_backend
from quantization.exclusion import exclusion_file
from quantization.modes import Mode
from twinquant.errors import UserError
from twinquant.files import make_folder, write_bytes_atomically
from twinquant.messages import set_up_messages

logger = logging.getLogger("twinquant")

FILES = ("sensitivity.json", "sensitivity.md", "quant_exclude.txt")


def run_sensitivity(argv: list[str]) -> int:
    """Measures, searches, writes three files into --output and prints the table."""
    arguments = parse_sensitivity_flags(argv)
    set_up_messages(verbose=False)
    say_notes(arguments)
    source = load_source(arguments["checkpoint"], arguments["task"], arguments["bert_config_file"])
    layers = source.config.num_hidden_layers
    mode = source.choose_mode(arguments["quant_mode"], arguments["quant_exclude"])
    ranges = source.ranges(mode)
    backend_name = arguments["backend"] or installed_backend()
    if backend_name is None:
        raise UserError("sensitivity runs the checkpoint under a backend; install torch or tensorflow")
    output = Path(arguments["output"])
    make_folder(output)
    task = make_task(arguments, source, arguments["data"], arguments["max_examples"])
    backend = make_reference(source, ExportSettings(), backend_name)
    evaluator = Evaluator(
        backend, mode, ranges, task, layers, arguments["predict_batch_size"], max_seq_length(arguments, source)
    )
    tensors = quantized_tensors(mode, layers)
    logger.info(
        "mode %s quantizes %d tensors; %d rows on the %s backend, score in float %.2f",
        mode.name, len(tensors), evaluator.rows, backend_name, evaluator.float_score,
    )  # fmt: skip
    costs = measure(evaluator, tensors, arguments["also_without"])
    found = find_exclusion(evaluator, costs, arguments["max_drop"])
    report = _report(source, mode, evaluator, costs, found, arguments, backend_name)
    text = _markdown(report, costs, found)
    comments = _summary(report)
    # With those that were off from the start: the file takes the place of the calibration's own list.
    left_in_float = [*sorted(mode.excluded), *found.scopes]
    contents = (json.dumps(report, indent=2) + "\n", text, exclusion_file(left_in_float, comments))
    for name, content in zip(FILES, contents, strict=True):
        write_bytes_atomically(output / name, content.encode())
    print(_markdown(report, costs[: arguments["top"]], found), end="")
    print(f"wrote {', '.join(str(output / name) for name in FILES)}")
    return 0


def _report(
    source: Source,
    mode: Mode,
    evaluator: Evaluator,
    costs: list[TensorCost],
    found: Exclusion,
    arguments: Arguments,
    backend_name: str,
) -> dict[str, Any]:
    layers = source.config.num_hidden_layers
    without = dataclasses.replace(mode, excluded=mode.excluded | set(found.scopes))
    products = [
        expected_int8_products("int8", layers, make_grids(m, source.ranges(m), layers)) for m in (mode, without)
    ]
    return {
        "checkpoint": source.name,
        "quant_mode": mode.name,
        "quant_exclude": sorted(mode.excluded),
        "backend": backend_name,
        "data": arguments["data"],
        "rows": evaluator.rows,
        "float_score": evaluator.float_score,
        "max_drop": arguments["max_drop"],
        "quantized_error": found.quantized_error,
        "quantized_drop": found.quantized_drop,
        "excluded": found.scopes,
        "excluded_error": found.error,
        "excluded_drop": found.drop,
        "int8_products": products[0],
        "int8_products_without_excluded": products[1],
        "tensors": [
            dataclasses.asdict(cost) | {"tensor": cost.tensor.name, "scopes": list(cost.tensor.scopes)}
            for cost in costs
        ],
    }


def _summary(report: dict[str, Any]) -> list[str]:
    """The result in sentences, which also head the file of excluded quantizers."""
    lines = [
        f"{report['checkpoint']}, mode {report['quant_mode']}, on {report['rows']} rows of {report['data']} "
        f"({report['backend']} backend): score in float {report['float_score']:.2f}, "
        f"with all quantizers {report['float_score'] - report['quantized_drop']:.2f}."
    ]
    if not report["excluded"]:
        return [*lines, f"The drop is at most --max_drop={report['max_drop']:g}: nothing need stay in float."]
    return [
        *lines,
        f"{len(report['excluded'])} quantizers left in float meet --max_drop={report['max_drop']:g}: score "
        f"{report['float_score'] - report['excluded_drop']:.2f}. {report['int8_products_without_excluded']} of "
        f"{report['int8_products']} matrix products still run in int8.",
    ]


def _markdown(report: dict[str, Any], costs: list[TensorCost], found: Exclusion) -> str:
    lines = [*_summary(report), ""]
    if len(costs) < len(report["tensors"]):
        lines += [f"The {len(costs)} tensors with the largest errors; all are in the files.", ""]
    lines += [
        "error: mean absolute difference of the logits to float's; drop: points of the score below float's.",
        "",
        "| tensor | error alone | drop alone | error of all others | drop of all others | left in float |",
        "|---|---|---|---|---|---|",
    ]
    kept = {tensor.name for tensor in found.tensors}
    for cost in costs:
        numbers = [cost.alone_error, cost.alone_drop, cost.without_error, cost.without_drop]
        shown = ["" if number is None else f"{number:.4f}" if place % 2 == 0 else f"{number:.2f}"
                 for place, number in enumerate(numbers)]  # fmt: skip
        lines.append(f"| {cost.tensor.name} | {' | '.join(shown)} | {'yes' if cost.tensor.name in kept else ''} |")
    everything = f"| everything | {found.quantized_error:.4f} | {found.quantized_drop:.2f} | | | |"
    return "\n".join([*lines, everything]) + "\n"
