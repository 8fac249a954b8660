#!/usr/bin/env python3
"""Fine-tune, calibrate, quantize, distil and predict BERT on SQuAD, with FasterTransformer's flags.

python run_squad.py --help shows the five commands; docs/run_squad.md explains them.
"""

from twinquant.base_packages import require_base_packages

require_base_packages("run_squad.py")  # before the imports that need them

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from checkpoints.config import BertConfig
from tasks.squad import SquadTask
from training.run import Run
from training.script import begin, record_of, recorded, run_script, until_interrupted
from twinquant.files import make_folder, write_json_atomically
from twinquant.squad_flags import PROGRAM, SquadSettings, parse_squad_flags


def make_task(settings: SquadSettings, config: BertConfig, vocab_file: Path, makes_features: bool) -> SquadTask:
    """The SQuAD task for a model of that config and vocabulary; one of several processes makes features."""
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
        overwrite_cache=settings.overwrite_cache and makes_features,
        verbose_logging=settings.verbose_logging,
        max_position_embeddings=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        max_predict_examples=None if evaluated is None else evaluated * settings.predict_batch_size,
    )


def main(argv: Sequence[str]) -> int:
    settings = parse_squad_flags(argv)
    backend, processes = begin(settings)
    with recorded(record_of(settings, PROGRAM, argv, backend, processes)) as record:
        run = Run(
            settings,
            backend,
            partial(make_task, makes_features=processes.local_rank == 0),
            processes,
            record,
        )
        exit_code, metrics = until_interrupted(run.execute, record)
        processes.together(None)  # waits for rank 0, which writes the answers
        if metrics and settings.do_eval:
            print(json.dumps({name: metrics[name] for name in ("exact_match", "f1")}), flush=True)
            if settings.json_summary:
                make_folder(Path(settings.json_summary).parent)
                write_json_atomically(settings.json_summary, metrics)
        if exit_code == 0:
            run.export()
    return exit_code


if __name__ == "__main__":
    sys.exit(run_script(main, PROGRAM))
