"""The table of measured results: EM, F1 and the agreement of the backends, for fp32, PTQ, QAT and QAT + distillation.

python -m benchmarks.squad_results --model FOLDER --train_file FILE --predict_file FILE --output_dir FOLDER
    [--stages fp32 ft1-p99.99 ...] [--steps 100] [--backends pytorch tensorflow] [--max_seq_length 384] [--threads 2]

Each cell is one run_squad.py command; commands that an earlier call has finished are not run again, so the table can be
filled in pieces; squad.json in the output folder holds it, the machine and the versions. The model is a fine-tuned
Hugging Face folder: it is quantized after training, and it is start and teacher of QAT. The QAT stages train `--steps`
steps; "fp32-trained" is the float model trained as many steps further.
"""

import argparse
import shlex
import sys
from pathlib import Path

from backends import BACKEND_NAMES
from benchmarks.commands import Command, same_answers, use_threads
from benchmarks.result_files import SQUAD, write_results
from benchmarks.result_stages import DISTILLATION, PTQ, QAT
from twinquant.main import run_main

TRAIN = "--do_train --train_batch_size=8 --learning_rate=3e-5 --max_steps={steps} --log_freq=10"
STAGES = {
    "fp32": "",
    **PTQ,
    "fp32-trained": TRAIN,
    **{name: f"{TRAIN} {flags}" for name, flags in QAT.items()},
    **{name.replace("qat", "qat-kd"): f"{TRAIN} {flags} {DISTILLATION}" for name, flags in QAT.items()},
}
DEFAULT_STAGES = ["fp32", "ft1-p99.99", "ft2-p99.99", "ft3-p99.99", "fp32-trained", "qat-ft2", "qat-kd-ft2"]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train_file", "predict_file", "output_dir"):
        parser.add_argument(f"--{name}", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=DEFAULT_STAGES)
    parser.add_argument("--backends", nargs="+", choices=BACKEND_NAMES, default=list(BACKEND_NAMES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--max_seq_length", type=int, default=384)
    parser.add_argument("--threads", type=int, help="threads of each command (default: as many as there are cores)")
    arguments = parser.parse_args(argv)
    use_threads(arguments.threads)
    folder = Path(arguments.output_dir)
    data = f"--train_file={shlex.quote(arguments.train_file)} --predict_file={shlex.quote(arguments.predict_file)}"
    data += f" --init_checkpoint={shlex.quote(arguments.model)} --cache_dir={shlex.quote(str(folder / 'features'))}"
    data += f" --max_seq_length={arguments.max_seq_length} --do_predict --predict_batch_size=16 "
    rows = []
    for stage in arguments.stages:
        flags = data + STAGES[stage].format(steps=arguments.steps, teacher=shlex.quote(arguments.model))
        commands = [Command(stage, name, flags, folder / f"{stage}_{name}") for name in arguments.backends]
        for command in commands:
            if not command.done:
                command.run()
            scores = command.result("eval_results.json")
            row = {"stage": stage, "backend": command.backend, "seconds": round(command.seconds)}
            rows.append(row | {"exact_match": scores["exact_match"], "f1": scores["f1"]})
        answers = [command.result("predictions.json") for command in commands]
        if len(answers) == 2:
            different = round(len(answers[0]) * (1.0 - same_answers(*answers) / 100.0))
            rows[-1] |= {"different_answers": different, "questions": len(answers[0])}
        write_results(folder / "squad.json", SQUAD, vars(arguments), rows)
        print_table(rows)


def print_table(rows: list[dict]) -> None:
    """The results so far as a Markdown table."""
    print("\n| stage | backend | EM | F1 | seconds | answers that differ between the backends |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        different = f"{row['different_answers']} of {row['questions']}" if "questions" in row else ""
        print(
            f"| {row['stage']} | {row['backend']} | {row['exact_match']:.2f} | {row['f1']:.2f} | {row['seconds']} "
            f"| {different} |"
        )
    print(flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main, "squad_results"))
