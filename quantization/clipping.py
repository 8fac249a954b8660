"""How much the ranges of a fake-quantized model clip, counted on what its quantizers see, in any framework."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from quantization.histogram import without_padding


class ClippingCounter:
    """Counts, for every quantizer, the elements with |x| > amax; takes the place of an Observer.

    amax: float32 by scope, of shape () or, for a kernel quantized per channel, (channels,).
    """

    def __init__(self, amax: Mapping[str, np.ndarray]) -> None:
        self.amax = amax
        self._clipped: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def observe(
        self,
        names: Sequence[str],
        x: np.ndarray,
        lengths: np.ndarray | None = None,
        sequence_axes: Iterable[int] = (1,),
    ) -> None:
        """Counts x for the quantizers in names; arguments as those of `quantization.histogram.Observer.observe`.

        Padding, positions from lengths[b] on, is left out. Names without an amax are passed over.
        """
        axes = tuple(sequence_axes)
        done: dict[float, tuple[int, int]] = {}  # by amax: several quantizers that see x often share theirs
        for name in names:
            if name not in self.amax:
                continue
            limit = float(self.amax[name])
            if limit not in done:
                rows = [x]
                if lengths is not None:
                    rows = [without_padding(row, int(n), axes) for row, n in zip(x, lengths, strict=True)]
                clipped = sum(int(np.count_nonzero(np.abs(row) > np.float32(limit))) for row in rows)
                done[limit] = clipped, sum(row.size for row in rows)
            self._add(name, *done[limit])

    def observe_weight(self, name: str, kernel: np.ndarray, channel_axis: int) -> None:
        """Counts a kernel whose output channels are on that axis."""
        if name not in self.amax:
            return
        amax = np.asarray(self.amax[name], np.float32)
        if amax.ndim:
            shape = [1] * kernel.ndim
            shape[channel_axis] = -1
            amax = amax.reshape(shape)
        self._add(name, int(np.count_nonzero(np.abs(kernel) > amax)), kernel.size)

    def fractions(self) -> dict[str, float]:
        """The share of clipped elements, 0 to 1, of every quantizer that saw any."""
        return {name: self._clipped[name] / seen for name, seen in self._seen.items() if seen}

    def _add(self, name: str, clipped: int, seen: int) -> None:
        self._clipped[name] = self._clipped.get(name, 0) + clipped
        self._seen[name] = self._seen.get(name, 0) + seen
