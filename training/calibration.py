"""Runs the float model over calibration data and turns what its quantizers saw into ranges."""

import logging
from collections.abc import Mapping

import numpy as np

from backends.base import Backend
from checkpoints.config import BertConfig
from quantization.calibration import amax_from_histogram, clipped_fraction, weight_amax, without_last_bits
from quantization.histogram import Observer
from quantization.modes import Mode, all_quantizers
from quantization.ranges import Ranges, fuse_qkv_ranges
from tasks.base import Features
from training.order import padded_length
from training.prediction import check_same_features, model_inputs
from training.processes import ALONE, Processes
from training.progress import Progress

logger = logging.getLogger("twinquant")


def observe(
    backend: Backend,
    features: Features,
    batch_size: int,
    batches: int,
    longest: int,
    include_padding: bool = False,
    processes: Processes = ALONE,
) -> Observer:
    """Histograms of every activation quantizer over the first `batches` batches of `features`, in order.

    The features repeat from the start where there are fewer, as the original's input pipeline does; padding counts only
    with `include_padding`, and then batches are padded to `longest` as the original's.

    Of several processes each observes every so many-th batch, and the histograms are added up: all processes return
    what one alone would have seen, to the bit.

    Raises:
        UserError: the processes have not the same rows.
    """
    check_same_features(features, processes)
    observer = Observer()
    with Progress("calibrate", batches, "batch", every=1 + batches // 5) as progress:
        for number in range(processes.rank, batches, processes.size):
            indexes = np.arange(number * batch_size, (number + 1) * batch_size) % len(features)
            length = padded_length(features.lengths[indexes], longest, backend.length_multiple, include_padding)
            backend.observe(model_inputs(features.batch(indexes, length)), observer, include_padding)
            progress.advance(min(batches - progress.done, processes.size))
    if processes.size == 1:
        return observer
    # In the order of the ranks, and so of first observation: that of one process.
    together = Observer()
    for rank, histograms in enumerate(processes.gather(observer.to_dict(), "histograms")):
        together.merge(Observer.from_dict(histograms, f"histograms of rank {rank}"))
    return together


def find_ranges(
    observer: Observer,
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    mode: Mode,
    method: str,
    percentile: float,
) -> tuple[Ranges, dict[str, float]]:
    """Ranges of all quantizers, also those that the mode leaves off, and the fraction each activation range clips.

    Weights take their maximum, activations `method`; query, key and value share theirs where the mode fuses them.
    """
    quantizers = all_quantizers(config.num_hidden_layers)
    ranges: Ranges = {}
    for scopes, histogram in observer.groups():
        settings = mode.settings(quantizers[scopes[0]])
        amax = amax_from_histogram(histogram, method, percentile, settings, scopes[0])
        ranges.update(dict.fromkeys(scopes, np.asarray(without_last_bits(amax), np.float32)))
    for scope, row in quantizers.items():
        if row.is_weight:
            ranges[scope] = weight_amax(tensors[scope.removesuffix("_quantizer")], mode.per_channel, name=scope)
    if mode.fuse_qkv:
        logger.info("ranges of query, key and value are fused to their maximum (mode %s)", mode.name)
        ranges = fuse_qkv_ranges(ranges, config.num_hidden_layers)
    clipped = {s: clipped_fraction(observer[s], float(ranges[s])) for s, row in quantizers.items() if not row.is_weight}
    return {scope: ranges[scope] for scope in quantizers}, clipped
