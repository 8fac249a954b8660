#!/usr/bin/env python3
"""Fine-tune, calibrate, quantize, distil and predict BERT on SQuAD, with FasterTransformer's flags.

python run_squad.py --help shows the five commands; docs/run_squad.md explains them.
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from checkpoints.config import BertConfig
from tasks.squad import SquadTask
from training import progress
from training.interruption import Interrupted
from training.launch import check_launch
from training.run import Run
from twinquant.files import write_json_atomically
from twinquant.flag_rules import resolve_backend
from twinquant.main import run_main
from twinquant.memory import keep_freed_memory
from twinquant.messages import set_up_messages
from twinquant.squad_flags import PROGRAM, SquadSettings, parse_squad_flags

logger = logging.getLogger("twinquant")


def make_task(settings: SquadSettings, config: BertConfig, vocab_file: Path) -> SquadTask:
    """The SQuAD task for a model of that config and vocabulary."""
    evaluated = settings.num_eval_iterations
    return SquadTask(
        vocab_file=vocab_file,
        train_file=settings.train_file,
        predict_file=settings.predict_file,
        do_lower_case=settings.do_lower_case,
        max_seq_length=settings.max_seq_length,
        doc_stride=settings.doc_stride,
        max_query_length=settings.max_query_length,
        n_best_size=settings.n_best_size,
        max_answer_length=settings.max_answer_length,
        version_2_with_negative=settings.version_2_with_negative,
        null_score_diff_threshold=settings.null_score_diff_threshold,
        cache_dir=settings.cache_dir or Path(settings.output_dir) / "features",
        overwrite_cache=settings.overwrite_cache,
        verbose_logging=settings.verbose_logging,
        max_position_embeddings=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        max_predict_examples=None if evaluated is None else evaluated * settings.predict_batch_size,
    )


def main(argv: Sequence[str]) -> int:
    settings = parse_squad_flags(argv)
    set_up_messages(settings.verbose_logging)
    launch_note = check_launch(settings.horovod)
    backend, backend_note = resolve_backend(settings.backend, dialect=settings.dialect)
    notes = [*settings.notes, launch_note, backend_note]
    for line in (settings.describe_given(), *filter(None, notes), f"backend: {backend}"):
        logger.info("%s", line)
    progress.bars_wanted = not settings.disable_progress_bar
    keep_freed_memory()
    run = Run(settings, backend, lambda config, vocab_file: make_task(settings, config, vocab_file))
    try:
        metrics = run.execute()
    except Interrupted as interruption:
        logger.warning("%s", interruption)
        return interruption.exit_code
    if metrics and settings.do_eval:
        if settings.json_summary:
            write_json_atomically(settings.json_summary, metrics)
        print(json.dumps({name: metrics[name] for name in ("exact_match", "f1")}))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, PROGRAM))
