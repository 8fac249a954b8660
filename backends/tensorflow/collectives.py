"""Horovod's operations on TensorFlow tensors. Mirrors backends/pytorch/collectives.py."""

from collections.abc import Callable
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from backends.collectives import Collectives, ProcessLost, check_gpus


class TensorFlowCollectives(Collectives):
    """See `backends.collectives.Collectives`."""

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        if gpus := tf.config.list_physical_devices("GPU"):
            check_gpus(len(gpus), self.local_size)
            # The others hidden: TensorFlow takes the memory of every GPU it sees.
            tf.config.set_visible_devices(gpus[self.local_rank], "GPU")

    def gather(self, array: np.ndarray, name: str) -> np.ndarray:
        with tf.device("/CPU:0"):
            return _finished(hvd.allgather, tf.constant(array), name=name).numpy()

    def broadcast(self, array: np.ndarray, name: str) -> np.ndarray:
        # Horovod's tensors have an axis at least.
        with tf.device("/CPU:0"):
            tensor = tf.constant(array.reshape(-1))
            return _finished(hvd.broadcast, tensor, root_rank=0, name=name).numpy().reshape(array.shape)

    def sum_gradients(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        sums: list[tf.Tensor] = []
        half = self.compression == "fp16"
        for number, part in enumerate(self.buckets([_size(g) * g.dtype.size for g in gradients])):
            flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients[part]], 0)
            flat = tf.cast(flat, tf.float16) if half else flat
            total = _finished(hvd.allreduce, flat, op=hvd.Sum, name=f"gradients.{number}")
            pieces = tf.split(tf.cast(total, gradients[0].dtype), [_size(gradient) for gradient in gradients[part]])
            sums += [tf.reshape(piece, old.shape) for piece, old in zip(pieces, gradients[part], strict=True)]
        return sums


def _size(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements()


def _finished(operation: Callable[..., tf.Tensor], *arguments: Any, **keywords: Any) -> tf.Tensor:
    """The result of an operation of Horovod."""
    try:
        return operation(*arguments, **keywords)
    except tf.errors.OpError as error:
        raise ProcessLost(str(error.message).splitlines()[0]) from error
