"""The command line of run_squad.py: its own flags, the commands shown by --help, and the settings they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twinquant.common_flags import COMMON_FLAGS, PAD_TO_MAX_LENGTH, PREDICT_BATCH_SIZE
from twinquant.errors import UserError
from twinquant.export_flags import EXPORT_FLAGS, choose_export, exports
from twinquant.flag_rules import (
    check_distillation,
    check_launch,
    check_training,
    choose_device,
    choose_dialect,
    merge_accumulation,
    note_calibration_before_training,
    note_grouping,
    note_idle_flags,
    note_idle_phases,
    note_model_type,
)
from twinquant.flags import Flag, ParsedFlags, parse_flags
from twinquant.model_files import (
    check_checkpoint,
    check_file,
    check_weights_given,
    find_model_files,
    note_case_mismatch,
)
from twinquant.old_flags import OLD_FLAGS, USE_TRT
from twinquant.quantization_flags import choose_quantization
from twinquant.settings import CommonSettings, given_besides, kept_values
from twinquant.tensorboard_flags import choose_tensorboard

PROGRAM = "run_squad.py"
HELP_HEAD = r"""
run_squad.py: fine-tune, calibrate and quantize BERT for question answering (SQuAD 1.1 and 2.0).

The five commands, with $BERT a folder of bert_config.json, vocab.txt and bert_model.ckpt, and

  FILES="--bert_config_file=$BERT/bert_config.json --vocab_file=$BERT/vocab.txt
         --train_file=train-v1.1.json --predict_file=dev-v1.1.json"

1. Fine-tune in floating point:

  python run_squad.py $FILES --init_checkpoint=$BERT/bert_model.ckpt \
      --output_dir=out/finetuned --do_train=True --do_predict=True --if_quant=False \
      --train_batch_size=32 --learning_rate=4e-5 --num_train_epochs=2.0

2. Quantize the fine-tuned model after training (PTQ): calibrate it, then predict with it:

  python run_squad.py $FILES --init_checkpoint=out/finetuned/model.ckpt-5474 \
      --output_dir=out/ptq --do_calib=True --do_predict=True --if_quant=True \
      --train_batch_size=16 --calib_batch=16 --calib_method=percentile --percentile=99.999 \
      --quant_mode=ft2

3. Calibrate the pre-trained model, as the start of quantization-aware training (QAT):

  python run_squad.py $FILES --init_checkpoint=$BERT/bert_model.ckpt \
      --output_dir=out/calibrated --do_calib=True --train_batch_size=16 --calib_batch=16 \
      --calib_method=percentile --percentile=99.99 --quant_mode=ft2

4. Train with quantization simulated (QAT):

  python run_squad.py $FILES \
      --init_checkpoint=out/calibrated/model.ckpt-calibrated --output_dir=out/qat \
      --do_train=True --do_predict=True --if_quant=True --train_batch_size=32 \
      --learning_rate=4e-5 --num_train_epochs=2.0 --quant_mode=ft2

5. QAT with the fine-tuned model as teacher (knowledge distillation), from a calibration of the
   fine-tuned model (command 3 with --init_checkpoint=out/finetuned/model.ckpt-5474):

  python run_squad.py $FILES \
      --init_checkpoint=out/calibrated/model.ckpt-calibrated --output_dir=out/qat_kd \
      --do_train=True --do_predict=True --if_quant=True --train_batch_size=32 \
      --learning_rate=8e-5 --num_train_epochs=10.0 --quant_mode=ft2 \
      --distillation=True --teacher=out/finetuned/model.ckpt-5474

The originals ran on four GPUs (mpirun -np 4 -H localhost:4 python run_squad.py ... --horovod) with
a batch of 8 each and the learning rate multiplied by 4. In one process that is a batch of 32 (if
memory is short, --num_accumulation_steps) and four times their learning rate, as above. Command
lines written for FasterTransformer's PyTorch script (--bert_model, --config_file) keep that
script's defaults.
"""

# fmt: off
SQUAD_FLAGS = (
    Flag("train_file", str, None, "data", "The SQuAD training file (JSON), for --do_train and --do_calib.",
         metavar="FILE"),
    Flag("predict_file", str, None, "data", "The SQuAD file to answer (JSON), for --do_predict.", metavar="FILE"),
    Flag("data_dir", str, None, "data", "A folder that holds the two files; names not given are train-v1.1.json and "
         "dev-v1.1.json, or v2.0 with --version_2_with_negative.", metavar="FOLDER", kept=False),
    Flag("max_seq_length", int, 384, "data", "Length of a window: question, context and three special tokens.",
         within="[6, inf)"),
    Flag("doc_stride", int, 128, "data", "Tokens between the starts of two windows of one context.",
         within="[1, inf)"),
    Flag("max_query_length", int, 64, "data", "Longer questions are cut to this many tokens.", within="[1, inf)"),
    Flag("version_2_with_negative", bool, False, "data", "The data is SQuAD 2.0, where a question may have no answer."),
    PAD_TO_MAX_LENGTH,
    Flag("threads", int, 1, "accepted for old command lines", "Has no effect: features are made by one process.",
         kept=False, within="[1, inf)", note="has no effect: features are made by one process."),
    Flag("lang_id", int, 0, "accepted for old command lines", "Refused: a language id belongs to XLM models.",
         kept=False, refused="a language id belongs to XLM models, and only BERT is supported."),
    Flag("do_predict", bool, False, "prediction", "Answer the questions of --predict_file and write predictions.json "
         "and nbest_predictions.json, and null_odds.json for SQuAD 2.0."),
    Flag("do_eval", bool, True, "prediction", "Compute exact match (EM) and F1 of the predictions where "
         "--predict_file holds answers; given by itself, it implies --do_predict."),
    PREDICT_BATCH_SIZE,
    Flag("n_best_size", int, 20, "prediction", "Number of candidate answers per question.", within="[1, inf)"),
    Flag("max_answer_length", int, 30, "prediction", "Longest answer, in word pieces.", within="[1, inf)"),
    Flag("null_score_diff_threshold", float, 0.0, "prediction", "SQuAD 2.0: answer nothing when the score of no answer "
         "exceeds that of the best answer by more than this."),
    Flag("num_eval_iterations", int, None, "prediction", "Predict only the first examples: this number times "
         "--predict_batch_size.", within="[1, inf)"),
    Flag("eval_script", str, None, "accepted for old command lines", "Has no effect: EM and F1 are computed here, by "
         "the official definitions.", metavar="FILE", kept=False,
         note="is not run: EM and F1 are computed here, by the official definitions."),
    Flag("evaluate_during_training", bool, False, "accepted for old command lines", "Refused: evaluation happens once, "
         "after training.", kept=False, refused="evaluation happens once, after training, with --do_predict; to "
         "evaluate a saved checkpoint, name it with --init_checkpoint."),
    Flag("eval_all_checkpoints", bool, False, "accepted for old command lines", "Refused: one run evaluates one "
         "checkpoint.", kept=False, refused="one run evaluates one checkpoint; run once per checkpoint with "
         "--init_checkpoint and --do_predict."),
)
# fmt: on
ALL_FLAGS = COMMON_FLAGS + SQUAD_FLAGS + EXPORT_FLAGS + (USE_TRT, *OLD_FLAGS)


@dataclass(frozen=True, kw_only=True)
class SquadSettings(CommonSettings):
    """The settings of run_squad.py; each field is explained by the flag of the same name (`--help`)."""

    doc_stride: int
    max_query_length: int
    version_2_with_negative: bool
    do_eval: bool
    n_best_size: int
    max_answer_length: int
    null_score_diff_threshold: float
    num_eval_iterations: int | None


def parse_squad_flags(argv: Sequence[str]) -> SquadSettings:
    """Read the command line of run_squad.py (without the program's name).

    Prints nothing (but `--help`): warnings and notes are in `settings.notes`. Raises UserError, in one sentence, for
    whatever can be known to be wrong before the model is loaded: unknown flags, wrong values, missing files,
    contradictions.
    """
    parsed = parse_flags(ALL_FLAGS, argv, PROGRAM, HELP_HEAD)
    check_launch(parsed)
    dialect = choose_dialect(parsed)
    _choose_work(parsed)
    merge_accumulation(parsed, dialect)
    choose_device(parsed)
    custom_mode = choose_quantization(parsed, dialect, predicts=parsed.values["do_predict"])
    export = choose_export(parsed, parsed.values["do_predict"], custom_mode)
    check_training(parsed)
    note_grouping(parsed)
    note_model_type(parsed)
    check_distillation(parsed)
    choose_tensorboard(parsed)
    _check_lengths(parsed)
    _note_idle(parsed)
    if parsed.values["output_dir"] is None:
        raise UserError("--output_dir is required: the folder for checkpoints and predictions.")
    _check_data_files(parsed)
    check_checkpoint(parsed, "init_checkpoint")
    if parsed.values["distillation"]:
        check_checkpoint(parsed, "teacher")
    find_model_files(parsed)
    check_weights_given(parsed, dialect, "--do_predict" if parsed.values["do_predict"] else "an export")
    note_case_mismatch(parsed)
    return SquadSettings(
        **kept_values(parsed, ALL_FLAGS),
        scale_learning_rate=dialect == "tensorflow",
        custom_mode=custom_mode,
        export=export,
        dialect=dialect,
        explicit=frozenset(parsed.spellings),
        given_besides=given_besides(parsed, ALL_FLAGS),
        notes=tuple(parsed.notes),
    )


def _choose_work(parsed: ParsedFlags) -> None:
    values = parsed.values
    if parsed.given("do_eval") and values["do_eval"] and not values["do_predict"]:
        if parsed.given("do_predict"):
            parsed.notes.append("warning: --do_eval has no effect: --do_predict is off.")
        else:
            values["do_predict"] = True
            parsed.notes.append("note: --do_eval evaluates predictions, so --do_predict is switched on too.")
    if not (values["do_train"] or values["do_calib"] or values["do_predict"] or exports(values)):
        raise UserError("nothing to do: give at least one of --do_train, --do_calib, --do_predict and --export_onnx.")
    note_calibration_before_training(parsed)


def _check_lengths(parsed: ParsedFlags) -> None:
    length, question = parsed.values["max_seq_length"], parsed.values["max_query_length"]
    if length <= question + 3:
        raise UserError(
            f"--max_seq_length={length} leaves no room for the context: it must be above --max_query_length + 3 = "
            f"{question + 3}."
        )
    if parsed.values["doc_stride"] >= length - question:
        parsed.notes.append(
            f"warning: --doc_stride={parsed.values['doc_stride']} is at least --max_seq_length - --max_query_length = "
            f"{length - question}: windows may not overlap, and an answer at a border may be cut."
        )


def _note_idle(parsed: ParsedFlags) -> None:
    note_idle_phases(parsed, ALL_FLAGS)
    note_idle_flags(parsed, ALL_FLAGS, "version_2_with_negative", {"null_score_diff_threshold"})


def _check_data_files(parsed: ParsedFlags) -> None:
    values = parsed.values
    version = "v2.0" if values["version_2_with_negative"] else "v1.1"
    phases = (
        ("train_file", f"train-{version}.json", [name for name in ("do_train", "do_calib") if values[name]]),
        ("predict_file", f"dev-{version}.json", [name for name in ("do_predict",) if values[name]]),
    )
    for name, default, users in phases:
        folder = values["data_dir"]
        if folder is not None:
            # Joined as Hugging Face's script does; a path that is right without the folder is taken as it is.
            joined = Path(folder) / (values[name] or default)
            if joined.is_file() or values[name] is None:
                values[name] = str(joined) if joined.is_file() or users else None
        if users and values[name] is None:
            raise UserError(f"--{users[0]} needs --{name}, a SQuAD file in JSON.")
        # A file to predict that is given without --do_predict serves the check of an export.
        if users or (name == "predict_file" and exports(values)):
            check_file(parsed, name)
