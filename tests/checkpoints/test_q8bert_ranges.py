"""The ranges that q8bert finds, those of pooler and head included, in every form a checkpoint is saved in."""

import numpy as np
import pytest

from checkpoints import names
from checkpoints.checkpoint import load_checkpoint
from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.hugging_face import write_hugging_face
from checkpoints.tf_checkpoint import write_tf_checkpoint
from quantization.modes import all_quantizers, enabled_quantizers, q8bert_mode

WRITERS = {
    "hugging-face": write_hugging_face,
    "bundle": write_tf_checkpoint,
    "fastertransformer": write_fastertransformer,
}


@pytest.mark.parametrize("head", [names.QUESTION_ANSWERING, names.CLASSIFICATION])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_ranges_come_back_to_the_bit(tmp_path, make_checkpoint, assert_same_arrays, head, write):
    checkpoint, rows = make_checkpoint(head, num_labels=3), all_quantizers(2, head)
    scopes = [scope for scope in enabled_quantizers(2, q8bert_mode(), head) if not rows[scope].is_weight]
    values = np.random.default_rng(0).uniform(0, 9, len(scopes)).astype(np.float32)
    checkpoint.ranges = {scope: np.asarray(value) for scope, value in zip(scopes, values, strict=True)}
    write(tmp_path / "model", checkpoint)
    assert_same_arrays(load_checkpoint(tmp_path / "model").ranges, checkpoint.ranges)
