"""Histograms of |x| in constant memory, whose result does not depend on the order or the splitting of the data.

The range of a histogram is always a power of two: 2**exponent, the smallest that holds the largest |x| seen. Its 2048
bins therefore have a width that is a power of two as well, and when the range doubles, the bins merge exactly in pairs.
So any order of batches, and any division of them among processes followed by merge(), gives the same counts to the bit.

Bin i holds the values with i * width < |x| <= (i + 1) * width; bin 0 also holds the zeros. Bins are closed on the right
because a largest value of exactly 2**exponent (1.0 after a softmax, say) must stay in one bin when pairs merge.
"""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from twinquant.errors import UserError

BINS = 2048

# The smallest range. Tensors below it quantize to zero whatever their amax (numerics.ZERO_AMAX).
MIN_EXPONENT = -24

# Elements handled at a time. The scratch arrays then stay in the second-level cache: measured 2.2 ns per element of a
# normal distribution, against 2.9 with 8192 elements and 3.0 with 65536 (one Zen4 core, NumPy 2.4). Two threads were
# slower than one (4.3 ns), since np.bincount, most of the time, holds the interpreter lock.
CHUNK = 32768


class _Scratch(threading.local):
    """Work arrays, one set per thread: TensorFlow may call back from several."""

    def __init__(self) -> None:
        self.values = np.empty(CHUNK, np.float32)
        self.narrow = np.empty(CHUNK, np.int32)
        self.indexes = np.empty(CHUNK, np.intp)


_scratch = _Scratch()


class Histogram:
    """Counts of |x| over 2048 equal bins from 0 to 2**exponent.

    counts: int64 [2048]; exponent: int, at least MIN_EXPONENT; amax: float32, the exact maximum of |x|;
    total: number of values seen. A fresh histogram has total 0 and amax 0.
    Not safe for updates of one histogram from several threads at a time.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.exponent = MIN_EXPONENT
        self.amax = np.float32(0)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin, a power of two."""
        return math.ldexp(1.0, self.exponent) / BINS

    def edges(self) -> np.ndarray:
        """The 2049 borders of the bins, float64, exact: bin i reaches from edges[i] (exclusive) to edges[i + 1]."""
        return np.arange(BINS + 1, dtype=np.float64) * self.width

    def update(self, x: np.ndarray, name: str = "quantizer") -> None:
        """Counts every element of x: float32 (other float types are converted chunk by chunk), any shape and strides.

        Raises UserError naming the quantizer if x holds NaN or infinity; the histogram is then not to be used further.
        """
        # The iterator hands out pieces of the array as it lies in memory, and copies one chunk at a time only where
        # the array is not contiguous.
        pieces = np.nditer(
            x,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_dtypes=[np.float32],
            casting="same_kind",
            buffersize=CHUNK,
        )
        for piece in pieces:
            # nditer yields an array here; its declared type does not say so.
            self._update_chunk(np.asarray(piece), x.shape, name)

    def _update_chunk(self, piece: np.ndarray, shape: tuple[int, ...], name: str) -> None:
        count = piece.size
        if count == 0:
            return
        values, narrow, indexes = _scratch.values[:count], _scratch.narrow[:count], _scratch.indexes[:count]
        np.abs(piece, out=values)
        largest = values.max()
        if not np.isfinite(largest):
            found = "NaN" if np.isnan(largest) else "infinity"
            raise UserError(
                f"calibration: the tensor at {name}, of shape {shape}, holds {found}, finite numbers were expected"
            )
        if largest > self.amax:
            self.amax = largest
            self._grow(_range_exponent(largest))
        # Exact but for values that underflow, and those belong to bin 0 in any case.
        values *= np.float32(BINS * math.ldexp(1.0, -self.exponent))
        np.ceil(values, out=values)
        # Two casts are quicker than one: only float32 to int32 has a vector instruction everywhere.
        np.copyto(narrow, values, casting="unsafe")
        np.copyto(indexes, narrow)
        counted = np.bincount(indexes, minlength=BINS + 1)
        self.counts += counted[1:]
        self.counts[0] += counted[0]

    def _grow(self, exponent: int) -> None:
        """Widens the range to 2**exponent, merging neighboring bins; never narrows it."""
        doublings = exponent - self.exponent
        if doublings <= 0:
            return
        merged = self.counts.reshape(-1, 2 ** min(doublings, BINS.bit_length() - 1)).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[: len(merged)] = merged
        self.exponent = exponent

    def merge(self, other: "Histogram") -> None:
        """Adds other's counts, exactly as if this histogram had seen other's data too. Leaves other as it is."""
        widened = other.copy()
        widened._grow(self.exponent)
        self._grow(other.exponent)
        self.counts += widened.counts
        self.amax = max(self.amax, other.amax)

    def copy(self) -> "Histogram":
        twin = Histogram()
        twin.counts, twin.exponent, twin.amax = self.counts.copy(), self.exponent, self.amax
        return twin

    def to_dict(self) -> dict[str, Any]:
        """A form that json can write; the counts stop at the last one that is not 0."""
        used = int(np.flatnonzero(self.counts)[-1]) + 1 if self.counts.any() else 0
        return {"exponent": self.exponent, "amax": float(self.amax), "counts": self.counts[:used].tolist()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], source: str = "histogram") -> "Histogram":
        """The histogram that to_dict() described. Raises UserError naming the source if it is not consistent."""
        try:
            exponent, amax = int(value["exponent"]), np.float32(value["amax"])
            counts = np.asarray(value["counts"], dtype=np.int64).reshape(-1)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: a histogram with exponent, amax and counts was expected ({error!r})") from error
        if len(counts) > BINS or (counts < 0).any():
            raise UserError(f"{source}: at most {BINS} counts of at least 0 were expected, found {len(counts)} counts")
        if not (np.isfinite(amax) and amax >= 0 and exponent == _range_exponent(amax)):
            raise UserError(f"{source}: the histogram's amax {amax} does not fit its range 2**{exponent}")
        histogram = cls()
        histogram.counts[: len(counts)] = counts
        histogram.exponent, histogram.amax = exponent, amax
        return histogram


def without_padding(example: np.ndarray, length: int, sequence_axes: Sequence[int]) -> np.ndarray:
    """A view of one example of a batch, which has lost axis 0, without the positions from `length` on.

    sequence_axes: those that run over positions, as the batch counts them.
    """
    return example[tuple(slice(length) if axis + 1 in sequence_axes else slice(None) for axis in range(example.ndim))]


def _range_exponent(amax: np.float32) -> int:
    """The smallest exponent, at least MIN_EXPONENT, with amax <= 2**exponent."""
    if amax == 0:
        return MIN_EXPONENT
    fraction, exponent = math.frexp(float(amax))  # amax = fraction * 2**exponent, 0.5 <= fraction < 1
    return max(exponent - 1 if fraction == 0.5 else exponent, MIN_EXPONENT)


class Observer:
    """One histogram per observed tensor, found by the names of the quantizers that see it."""

    def __init__(self) -> None:
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._group_of: dict[str, tuple[str, ...]] = {}

    def observe(
        self,
        names: Sequence[str],
        x: np.ndarray,
        lengths: np.ndarray | None = None,
        sequence_axes: Iterable[int] = (1,),
    ) -> None:
        """Counts x for the quantizers in names, which all see this tensor and share one histogram.

        x: float32, examples on axis 0, any strides.
        lengths: int [x.shape[0]], the number of real positions of each example, or None to count everything. Positions
            from lengths[b] on, on every axis in sequence_axes, are padding and are left out without copying x: (1,) for
            activations [B, S, H], (2,) for heads [B, A, S, D], (2, 3) for attention scores [B, A, S, S].
        Raises UserError naming the quantizer for NaN or infinity among the values that are counted.
        """
        group = tuple(names)
        histogram = self._histogram(group)
        label = ", ".join(group)
        if lengths is None:
            histogram.update(x, label)
            return
        lengths, axes = np.asarray(lengths), tuple(sequence_axes)
        if not all(0 < axis < x.ndim for axis in axes):
            raise ValueError(f"{label}: sequence axes {axes} do not fit a tensor of shape {x.shape}")
        longest = min((x.shape[axis] for axis in axes), default=0)
        if lengths.shape != x.shape[:1] or (lengths < 0).any() or (lengths > longest).any():
            raise ValueError(
                f"{label}: lengths {lengths.tolist()} do not fit a tensor of shape {x.shape}: "
                f"{x.shape[0]} lengths from 0 to {longest} were expected"
            )
        for example, length in zip(x, lengths.tolist(), strict=True):
            histogram.update(without_padding(example, length, axes), label)

    def _histogram(self, group: tuple[str, ...]) -> Histogram:
        if group not in self._histograms:
            taken = [name for name in group if name in self._group_of]
            if taken or not group:
                raise ValueError(f"quantizers {group} cannot be observed together: {taken} were seen in another group")
            self._histograms[group] = Histogram()
            self._group_of.update({name: group for name in group})
        return self._histograms[group]

    def __getitem__(self, name: str) -> Histogram:
        """The histogram of the quantizer of this name; KeyError if it was never observed."""
        return self._histograms[self._group_of[name]]

    def groups(self) -> list[tuple[tuple[str, ...], Histogram]]:
        """(quantizer names, their common histogram), in the order of first observation: one range per pair to find."""
        return list(self._histograms.items())

    def merge(self, other: "Observer") -> None:
        """Adds what another process observed."""
        for group, histogram in other.groups():
            self._histogram(group).merge(histogram)

    def to_dict(self) -> dict[str, Any]:
        """A form that json can write, to send between processes."""
        return {"groups": [{"names": list(group), **histogram.to_dict()} for group, histogram in self.groups()]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], source: str = "histograms") -> "Observer":
        """The observer that to_dict() described. Raises UserError naming the source if it is not consistent."""
        observer = cls()
        try:
            entries = [(tuple(str(name) for name in entry["names"]), entry) for entry in value["groups"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{source}: a list of groups of quantizer names was expected ({error!r})") from error
        for group, entry in entries:
            observer._histogram(group).merge(Histogram.from_dict(entry, f"{source}: {', '.join(group)}"))
        return observer
