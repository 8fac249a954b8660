"""Where messages go: standard error, one line each, so that standard output holds only results."""

import logging
import os
import sys


def set_up_messages(verbose: bool) -> None:
    """Shows the messages of logger "twinquant" from INFO (DEBUG when verbose) on, and quiets the frameworks' start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own start-up lines about GPUs that are not there
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("twinquant")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
