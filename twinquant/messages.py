"""Where messages go: standard error, one line each, so that standard output holds only results."""

import logging
import os
import sys
from collections.abc import Mapping

# How Open MPI, other MPIs and Horovod's own launcher tell a process which one it is.
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK", "RANK")


def rank_of_launch(environment: Mapping[str, str] = os.environ) -> int:
    """The rank of this process among those started together, as the environment tells before Horovod runs; else 0."""
    found = [environment[name] for name in _RANK_VARIABLES if environment.get(name, "").isdigit()]
    return int(found[0]) if found else 0


def set_up_messages(verbose: bool) -> None:
    """Shows the messages of logger "twinquant" from INFO (DEBUG when verbose) on, and quiets the frameworks' start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own start-up lines about GPUs that are not there
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("twinquant")
    logger.handlers = [handler]
    # Of several processes only rank 0 talks; the others say what stops them.
    level = logging.ERROR if rank_of_launch() > 0 else logging.DEBUG if verbose else logging.INFO
    logger.setLevel(level)
    logger.propagate = False
