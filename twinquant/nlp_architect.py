"""NLP Architect's two commands: `nlp-train transformer_glue ...` and `nlp-inference transformer_glue ...`.

Their words are those of run_glue.py but for what each command implies, which is added here.
"""

from collections.abc import Callable, Sequence

from twinquant.base_packages import require_base_packages
from twinquant.errors import UserError
from twinquant.flags import flag_names

PROCEDURE = "transformer_glue"


def main_train(argv: Sequence[str] | None = None) -> int:
    """The console script nlp-train: fine-tune and evaluate with run_glue.py; returns the exit code."""
    return _run_script(lambda words: _run_glue(train_arguments(words)), "nlp-train", argv)


def main_inference(argv: Sequence[str] | None = None) -> int:
    """The console script nlp-inference: evaluate or predict with run_glue.py; returns the exit code."""
    return _run_script(lambda words: _run_glue(inference_arguments(words)), "nlp-inference", argv)


def train_arguments(argv: Sequence[str]) -> list[str]:
    """run_glue.py's words for those after `nlp-train`, which trains and evaluates, and logs every 50 updates.

    Raises UserError for another procedure than transformer_glue.
    """
    words, given = _flags_of("nlp-train", argv)
    implied = [f"--{name}" for name in ("do_train", "do_eval") if name not in given]
    if not given & {"logging_steps", "log_freq"}:
        implied.append("--logging_steps=50")
    return [*implied, *words]


def inference_arguments(argv: Sequence[str]) -> list[str]:
    """run_glue.py's words for those after `nlp-inference`: --evaluate evaluates dev.tsv, else test.tsv is predicted.

    Raises UserError for another procedure than transformer_glue.
    """
    words, given = _flags_of("nlp-inference", argv)
    return words if given & {"evaluate", "do_eval", "do_predict"} else ["--do_predict", *words]


def _flags_of(program: str, argv: Sequence[str]) -> tuple[list[str], set[str]]:
    """The words behind the procedure, and the names of the flags among them; --help and --version need no procedure."""
    words = list(argv)
    if words and words[0] in ("-v", "--version"):
        words = ["--version"]
    elif words and words[0] == PROCEDURE:
        words = words[1:]
    elif not words or words[0] not in ("-h", "--help"):
        found = repr(words[0]) if words else "nothing"
        raise UserError(
            f"{program} takes {PROCEDURE} and its flags, as in {program} {PROCEDURE} --help; found {found}."
        )
    return words, flag_names(words)


# Both import late: the scripts and what they share stand above this package, and only a run of them needs the rest.
def _run_script(main: Callable[[Sequence[str]], int | None], program: str, argv: Sequence[str] | None) -> int:
    require_base_packages(program)
    from training.script import run_script

    return run_script(main, program, argv)


def _run_glue(argv: Sequence[str]) -> int | None:
    from run_glue import main

    main_of_run_glue: Callable[[Sequence[str]], int | None] = main
    return main_of_run_glue(argv)
