"""A TensorFlow backend on the second of two logical CPU devices predicts, trains and resumes.

Run by test_runtime.py in a process of its own, since TensorFlow divides a device only before it starts. The first is
the default, as a GPU is where --device cpu asks for the other. TensorFlow's own report tells where every operation ran.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])  # not the folder of this file, where tests/backends hides backends
sys.path.append(str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tiny_bert import make_batch, tiny_config, tiny_tensors  # noqa: E402

from backends.base import RuntimeSettings  # noqa: E402
from backends.tensorflow import backend as module  # noqa: E402

HALF = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [HALF, HALF])
tf.debugging.set_log_device_placement(True)
module.choose_device = lambda requested: f"/device:{requested.upper()}"  # of CPUs there is else only one

CONFIG = tiny_config(num_hidden_layers=1)
BATCH = make_batch(CONFIG, [9, 5], labels=True)


def new_backend(tensors: dict[str, np.ndarray]) -> module.TensorFlowBackend:
    backend = module.TensorFlowBackend(CONFIG, runtime=RuntimeSettings("cpu:1", dropout=False))
    backend.load(tensors)
    return backend


unbroken = new_backend(tiny_tensors(CONFIG))
unbroken.predict(BATCH)
unbroken.train_step([BATCH, BATCH], 1e-3, 0)
resumed = new_backend(unbroken.tensors())
resumed.load_optimizer_state(unbroken.optimizer_state())
slots = [*unbroken.optimizer.exp_avg.values(), *resumed.optimizer.exp_avg_sq.values()]
print("\nslots on", *{slot.device.rpartition(":")[2] for slot in slots})
for backend in (unbroken, resumed):
    backend.train_step([BATCH], 1e-3, 1)
same = [np.array_equal(array, unbroken.tensors()[name]) for name, array in resumed.tensors().items()]
print("\nresumed", "equal" if all(same) else "different")
