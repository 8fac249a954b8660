"""How a quantized model's classes differ from those of its fp32 parent, and whether that is chance."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from tasks.classification_metrics import flips
from tasks.classification_outputs import Predictions
from twinquant.files import write_json_atomically

logger = logging.getLogger("twinquant")


def report_flips(
    parent: Mapping[str, Predictions], child: Mapping[str, Predictions], parent_name: str, folder: Path
) -> dict[str, dict]:
    """Compares the predictions of both models set by set, logs it and writes flips.json, if any has labels.

    Sets without labels are left out. Returns, by the name of the set, `tasks.classification_metrics.Flips` and the
    number of examples.
    """
    found = {}
    for name, predictions in child.items():
        if predictions.labels is None or name not in parent:
            continue
        result = flips(predictions.labels, parent[name].predictions, predictions.predictions)
        count = len(predictions.labels)
        found[name] = dataclasses.asdict(result) | {"examples": count}
        logger.info(
            "%s against %s: %d of %d predictions differ; right only there %d, only here %d; McNemar's exact p %.3f",
            name, parent_name, result.changed, count, result.parent_only_right, result.child_only_right, result.p_value,
        )  # fmt: skip
    if found:
        write_json_atomically(folder / "flips.json", {"parent": parent_name, "sets": found})
    return found
