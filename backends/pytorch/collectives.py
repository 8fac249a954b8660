"""Horovod's operations on PyTorch tensors. Mirrors backends/tensorflow/collectives.py."""

import time
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch
from horovod.common.exceptions import HorovodInternalError

from backends.collectives import Collectives, ProcessLost, check_gpus


class PyTorchCollectives(Collectives):
    """See `backends.collectives.Collectives`."""

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        if torch.cuda.is_available():
            check_gpus(torch.cuda.device_count(), self.local_size)
            torch.cuda.set_device(self.local_rank)

    def gather(self, array: np.ndarray, name: str) -> np.ndarray:
        return _finished(hvd.allgather_async, torch.from_numpy(np.array(array)), name=name).numpy()

    def broadcast(self, array: np.ndarray, name: str) -> np.ndarray:
        # Horovod's tensors have an axis at least.
        tensor = torch.from_numpy(np.array(array).reshape(-1))
        return _finished(hvd.broadcast_async, tensor, root_rank=0, name=name).numpy().reshape(array.shape)

    def sum_gradients(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        sums: list[torch.Tensor] = []
        half = self.compression == "fp16"
        for number, part in enumerate(self.buckets([gradient.nbytes for gradient in gradients])):
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients[part]])
            flat = flat.half() if half else flat
            total = _finished(hvd.allreduce_async_, flat, op=hvd.Sum, name=f"gradients.{number}")
            pieces = total.to(gradients[0].dtype).split([gradient.numel() for gradient in gradients[part]])
            sums += [piece.view_as(old) for piece, old in zip(pieces, gradients[part], strict=True)]
        return sums


def _finished(operation: Callable[..., int], *arguments: Any, **keywords: Any) -> torch.Tensor:
    """The result of an asynchronous operation of Horovod."""
    try:
        handle = operation(*arguments, **keywords)
        pause = 1e-5
        # Horovod's own waiting takes a whole core, which its background thread may need.
        while not hvd.poll(handle):
            time.sleep(pause)
            pause = min(2 * pause, 1e-3)
        return hvd.synchronize(handle)
    except HorovodInternalError as error:
        raise ProcessLost(str(error).splitlines()[0]) from error
