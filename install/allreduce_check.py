"""One process of two under mpirun: adds up numbers with Horovod, and leaves with 0 only where the sum is right.

python install/allreduce_check.py torch|tensorflow
"""

import sys

EXPECTED = [3.0, 30.0]  # (rank + 1) and 10 (rank + 1), summed over two ranks


def sum_in_torch() -> tuple[int, list[float]]:
    """The number of processes, and the sum over them; on GPUs where Horovod was built for them and each has one."""
    import horovod.torch as hvd
    import torch

    hvd.init()
    on_gpu = bool(hvd.nccl_built()) and torch.cuda.device_count() >= hvd.local_size()
    device = f"cuda:{hvd.local_rank()}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    value = torch.tensor([1.0, 10.0], device=device) * (hvd.rank() + 1)
    result = hvd.size(), hvd.allreduce(value, op=hvd.Sum, name="check").tolist()
    hvd.shutdown()
    return result


def sum_in_tensorflow() -> tuple[int, list[float]]:
    """As sum_in_torch."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.init()
    gpus = tf.config.list_physical_devices("GPU")
    on_gpu = bool(hvd.nccl_built()) and len(gpus) >= hvd.local_size()
    # TensorFlow takes the memory of every GPU it sees, and puts tensors on the first one unasked.
    tf.config.set_visible_devices([gpus[hvd.local_rank()]] if on_gpu else [], "GPU")
    value = tf.constant([1.0, 10.0]) * (hvd.rank() + 1)
    result = hvd.size(), hvd.allreduce(value, op=hvd.Sum, name="check").numpy().tolist()
    hvd.shutdown()
    return result


def main(framework: str) -> int:
    """Returns the exit code; one line to standard error where something is not as it should be."""
    size, total = sum_in_torch() if framework == "torch" else sum_in_tensorflow()
    if (size, total) == (2, EXPECTED):
        return 0
    # Without mpirun, or with an MPI that is not Horovod's, every process takes itself for the only one.
    print(f"{size} processes (expected 2) came to the sum {total} (expected {EXPECTED})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
