"""How a quantized model's answers differ from those of its fp32 parent; of classes, whether that is chance."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from tasks.classification_metrics import flips, value_drift
from tasks.classification_outputs import Predictions
from twinquant.files import write_json_atomically

logger = logging.getLogger("twinquant")


def report_flips(
    parent: Mapping[str, Predictions], child: Mapping[str, Predictions], parent_name: str, folder: Path
) -> dict[str, dict]:
    """Compares the predictions of both models set by set, logs it and writes flips.json, if any has labels.

    Sets without labels are left out. Returns, by the name of the set, `tasks.classification_metrics.Flips`, of a
    regression `ValueDrift`, and the number of examples.
    """
    found = {}
    for name, predictions in child.items():
        if predictions.labels is None or name not in parent:
            continue
        count = len(predictions.labels)
        if predictions.predictions.dtype.kind == "f":
            drift = value_drift(parent[name].predictions, predictions.predictions)
            found[name] = dataclasses.asdict(drift) | {"examples": count}
            logger.info(
                "%s against %s: %d values differ by %.4f on average, by %.4f at most; their correlation is %.4f",
                name, parent_name, count, drift.mean_difference, drift.largest_difference, drift.pearson,
            )  # fmt: skip
            continue
        result = flips(predictions.labels, parent[name].predictions, predictions.predictions)
        found[name] = dataclasses.asdict(result) | {"examples": count}
        logger.info(
            "%s against %s: %d of %d predictions differ; right only there %d, only here %d; McNemar's exact p %.3f",
            name, parent_name, result.changed, count, result.parent_only_right, result.child_only_right, result.p_value,
        )  # fmt: skip
    if found:
        write_json_atomically(folder / "flips.json", {"parent": parent_name, "sets": found})
    return found
