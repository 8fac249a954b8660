#!/usr/bin/env python3
"""Fine-tune, calibrate, quantize, distil and predict BERT for GLUE's tasks and text classification of one's own.

python run_glue.py --help shows the commands; docs/run_glue.md explains them.
"""

from twinquant.base_packages import require_base_packages

require_base_packages("run_glue.py")  # before the imports that need them

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from checkpoints.config import BertConfig
from tasks.classification import ClassificationTask
from tasks.classification_source import ClassificationSource
from tasks.glue import GlueSource
from tasks.text_classification import OwnDataSource
from training.classification_run import ClassificationRun
from training.dynamic_run import DynamicRun
from training.processes import Processes
from training.repeats import run_repeatedly
from training.script import begin, record_of, recorded, run_script, until_interrupted
from twinquant.files import make_folder, write_json_atomically
from twinquant.glue_flags import PROGRAM, GlueSettings, parse_glue_flags
from twinquant.run_record import RunRecord


def make_source(settings: GlueSettings, config: BertConfig) -> ClassificationSource:
    """Where the examples come from: a GLUE task's folder, or files of the user's own."""
    if settings.task_name is not None:
        return GlueSource(settings.task_name, str(settings.data_dir), config.label_names)
    return OwnDataSource(
        train_file=settings.train_file,
        validation_file=settings.validation_file,
        test_file=settings.test_file,
        text_column=settings.text_column,
        label_column=settings.label_column,
        class_file=settings.class_file,
        do_regression=settings.do_regression,
        label_names=config.label_names,
    )


def make_task(settings: GlueSettings, config: BertConfig, vocab_file: Path, makes_features: bool) -> ClassificationTask:
    """The classification task for a model of that config and vocabulary; one of several processes makes features."""
    return ClassificationTask(
        source=make_source(settings, config),
        vocab_file=vocab_file,
        do_lower_case=settings.do_lower_case,
        max_seq_length=settings.max_seq_length,
        cache_dir=settings.cache_dir or Path(settings.output_dir) / "features",
        overwrite_cache=settings.overwrite_cache and makes_features,
        max_position_embeddings=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        max_train_samples=settings.max_train_samples,
        max_eval_samples=settings.max_eval_samples,
        max_predict_samples=settings.max_predict_samples,
        do_eval=settings.do_eval or settings.evaluate_steps is not None or settings.evaluate_per_epoch,
        do_predict=settings.do_predict,
    )


def make_run(settings: GlueSettings, backend: str, processes: Processes, record: RunRecord) -> ClassificationRun:
    """One run, with one seed."""
    kind = DynamicRun if settings.quant_scheme == "dynamic" else ClassificationRun
    makes_features = processes.local_rank == 0
    return kind(
        settings,
        backend,
        partial(make_task, makes_features=makes_features),
        processes,
        record,
    )


def main(argv: Sequence[str]) -> int:
    settings = parse_glue_flags(argv)
    backend, processes = begin(settings)
    with recorded(record_of(settings, PROGRAM, argv, backend, processes)) as record:
        run = None
        if settings.num_runs > 1:

            def run_once(one: GlueSettings) -> dict[str, float]:
                record.enter(f"seed {one.seed}")
                with recorded(record_of(one, PROGRAM, argv, backend, processes)) as own:
                    scores = make_run(one, backend, processes, own).execute()
                    own.note(results=dict(scores))
                    return scores

            exit_code, scores = until_interrupted(
                lambda: run_repeatedly(settings, settings.num_runs, run_once, processes.is_first), record
            )
        else:
            run = make_run(settings, backend, processes, record)
            exit_code, scores = until_interrupted(run.execute, record)
        processes.together(None)  # waits for rank 0, which writes the results
        if scores:
            print(json.dumps(scores), flush=True)
            if settings.json_summary:
                make_folder(Path(settings.json_summary).parent)
                write_json_atomically(settings.json_summary, scores)
        if exit_code == 0 and run is not None:
            run.export()
    return exit_code


if __name__ == "__main__":
    sys.exit(run_script(main, PROGRAM))
