"""The command line of run_glue.py: its own flags, the commands shown by --help, and the settings they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twinquant.arguments_file import split_arguments_file
from twinquant.common_flags import COMMON_FLAGS, PAD_TO_MAX_LENGTH, PREDICT_BATCH_SIZE
from twinquant.errors import UserError
from twinquant.export_flags import EXPORT_FLAGS, choose_export
from twinquant.flag_rules import (
    check_distillation,
    check_launch,
    check_training,
    choose_device,
    merge_accumulation,
    note_grouping,
    note_idle_flags,
    note_idle_phases,
)
from twinquant.flags import Flag, ParsedFlags, parse_flags
from twinquant.glue_rules import (
    check_work,
    choose_data,
    choose_evaluation,
    choose_glue_dialect,
    choose_lower_case,
    choose_saving,
    note_training,
    take_trained_model,
)
from twinquant.model_files import check_checkpoint, check_weights_given, find_model_files, note_case_mismatch
from twinquant.old_flags import OLD_FLAGS
from twinquant.quantization_flags import choose_quantization, choose_scheme
from twinquant.settings import CommonSettings, given_besides, kept_values
from twinquant.tensorboard_flags import choose_tensorboard
from twinquant.trainer_flags import TRAINER_FLAGS

PROGRAM = "run_glue.py"
HELP_HEAD = r"""
run_glue.py: fine-tune, calibrate and quantize BERT for classification: the GLUE tasks, and data
of your own.

The commands, with $BERT a folder of bert_config.json, vocab.txt and bert_model.ckpt, and

  TASK="--task_name=MRPC --data_dir=glue_data/MRPC"

1. Fine-tune in floating point:

  python run_glue.py $TASK --init_checkpoint=$BERT/bert_model.ckpt --output_dir=out/finetuned \
      --do_train --do_eval --train_batch_size=32 --learning_rate=2e-5

2. Quantize the fine-tuned model after training (PTQ): calibrate it, then evaluate it:

  python run_glue.py $TASK --init_checkpoint=out/finetuned/model.ckpt-343 --output_dir=out/ptq \
      --do_calib --do_eval --if_quant --quant_mode=ft2 --train_batch_size=16 --calib_batch=16 \
      --calib_method=percentile --percentile=99.99

3. Train with quantization simulated (QAT), from a calibration of the pre-trained model:

  python run_glue.py $TASK --init_checkpoint=$BERT/bert_model.ckpt --output_dir=out/calibrated \
      --do_calib --quant_mode=ft2 --train_batch_size=16 --calib_batch=16
  python run_glue.py $TASK --init_checkpoint=out/calibrated/model.ckpt-calibrated \
      --output_dir=out/qat --do_train --do_eval --if_quant --quant_mode=ft2 \
      --train_batch_size=32 --learning_rate=2e-5

4. QAT with the fine-tuned model as teacher (knowledge distillation), from the calibration of the
   fine-tuned model (command 2):

  python run_glue.py $TASK --init_checkpoint=out/ptq/model.ckpt-calibrated \
      --output_dir=out/qat_kd --do_train --do_eval --if_quant --quant_mode=ft2 \
      --train_batch_size=32 --learning_rate=2e-5 --num_train_epochs=10 \
      --distillation --teacher=out/finetuned/model.ckpt-343

5. Q8BERT, the scheme of NLP Architect, whose ranges are found while training:

  python run_glue.py $TASK --init_checkpoint=$BERT/bert_model.ckpt --output_dir=out/q8bert \
      --quant_scheme=q8bert --do_train --do_eval --train_batch_size=32 --learning_rate=2e-5

6. PyTorch's dynamic quantization of the fine-tuned model, which needs no calibration:

  python run_glue.py $TASK --init_checkpoint=out/finetuned/model.ckpt-343 \
      --output_dir=out/dynamic --backend=pytorch --do_eval --quant_scheme=dynamic

7. Data of your own, as csv, tsv, json lines, or txt of text, tab, label; scored after every epoch:

  python run_glue.py --train_file=thucnews/train.txt --validation_file=thucnews/dev.txt \
      --test_file=thucnews/test.txt --class_file=thucnews/class.txt \
      --init_checkpoint=$BERT/bert_model.ckpt --output_dir=out/news \
      --do_train --do_eval --do_predict --eval_strategy=epoch --max_seq_length=40

8. Mean and standard deviation over five seeds:

  python run_glue.py $TASK --init_checkpoint=$BERT/bert_model.ckpt --output_dir=out/five \
      --do_train --do_eval --train_batch_size=32 --learning_rate=2e-5 --num_runs=5

Command lines of other scripts work as they are, with the defaults of those scripts: Hugging
Face's run_glue.py of transformers 2 (--model_type bert --model_name_or_path ...) and of 4 and 5
(--model_name_or_path ..., or one .json file of arguments), FasterTransformer's PyTorch script
(--bert_model, --config_file), and NLP Architect's (--model_type quant_bert; its lines nlp-train
transformer_glue ... and nlp-inference transformer_glue ... are commands of their own here).
"""

# fmt: off
# The first of its group, before the settings of one scheme that run_squad.py has too.
QUANT_SCHEME = Flag(
    "quant_scheme", str, "static", "quantization", "static: --quant_mode with calibrated ranges. q8bert: NLP "
    "Architect's, symmetric with one scale per tensor, embeddings included, ranges followed while training; it implies "
    "--if_quant. dynamic: PyTorch's dynamic quantization of the trained model, by int8 kernels.",
    choices=("static", "q8bert", "dynamic"))
# Of one's own texts; the commands of `python -m export` that read data have them too.
TEXT_COLUMN = Flag(
    "text_column", list, (), "data", "The column of texts, or the two columns of pairs of texts. When not given: "
    "columns with usual names, such as sentence1 and sentence2, or text.", metavar="NAME [NAME]")
LABEL_COLUMN = Flag(
    "label_column", str, None, "data", "The column of labels: names, whole numbers, or numbers with a point, which "
    "make it a regression. When not given: a column with a usual name, such as label.", aliases=("label_column_name",),
    metavar="NAME")
CLASS_FILE = Flag(
    "class_file", str, None, "data", "The names of the classes, one a line, in the order of the labels 0, 1, ...; when "
    "not given, the labels of the training file, sorted.", metavar="FILE")
GLUE_FLAGS = (
    Flag("task_name", str, None, "data", "The GLUE task: cola, sst-2, mrpc, sts-b, qqp, mnli (both dev sets), mnli-mm, "
         "qnli, rte or wnli, in any case, with or without hyphens. Not for data of your own.", metavar="TASK"),
    Flag("data_dir", str, None, "data", "The folder of the task's train.tsv, dev.tsv and test.tsv, as "
         "download_glue_data.py lays them out, or the folder above it. For data of your own, the folder of the files "
         "named below.", metavar="FOLDER"),
    Flag("train_file", str, None, "data", "Texts and labels of your own for --do_train and --do_calib: csv or tsv, "
         "with or without header, json (lines or a list), or txt of text, tab, label.", metavar="FILE"),
    Flag("validation_file", str, None, "data", "The like for --do_eval and for evaluation during training.",
         metavar="FILE"),
    Flag("test_file", str, None, "data", "The like for --do_predict; labels may be missing.", metavar="FILE"),
    TEXT_COLUMN,
    Flag("text_column_names", list, (), "data", "The same, with a comma between two names, as in Hugging Face's "
         "run_classification.py.", metavar="NAME[,NAME]", kept=False),
    LABEL_COLUMN,
    CLASS_FILE,
    Flag("do_regression", bool, False, "data", "Predict the labels as numbers although all are whole."),
    Flag("max_seq_length", int, 128, "data", "Longer texts are cut to this many tokens, the special ones counted.",
         within="[3, inf)"),
    PAD_TO_MAX_LENGTH,
    Flag("ignore_mismatched_sizes", bool, False, "model and checkpoints", "With --do_train or --do_calib: begin with a "
         "new head where that of --init_checkpoint is for another number of classes (an MNLI model for MRPC). Without "
         "it such a checkpoint is refused."),
    Flag("max_train_samples", int, None, "data", "Train on the first examples only.", within="[1, inf)"),
    Flag("max_eval_samples", int, None, "data", "Evaluate the first examples only.", aliases=("max_val_samples",),
         within="[1, inf)"),
    Flag("max_predict_samples", int, None, "data", "Predict the first examples only.", aliases=("max_test_samples",),
         within="[1, inf)"),
    Flag("evaluate_during_training", bool, False, "fine-tuning", "Evaluate the dev set while training too, every "
         "--eval_steps updates and after the last, and keep the best model as model.ckpt-best."),
    Flag("eval_strategy", str, "no", "fine-tuning", "When to evaluate while training: steps is "
         "--evaluate_during_training, epoch is the same at the end of every epoch.", aliases=("evaluation_strategy",),
         choices=("no", "steps", "epoch"), kept=False),
    Flag("eval_steps", int, None, "fine-tuning", "Updates between two evaluations while training; when not given, "
         "--log_freq.", within="[1, inf)", kept=False),
    Flag("load_best_model_at_end", bool, False, "fine-tuning", "After training, evaluate and predict with the best "
         "model instead of the last: the one with the best main score of the task."),
    Flag("save_strategy", str, "steps", "fine-tuning", "When to save while training: every --save_checkpoints_steps "
         "updates, at the end of every epoch, or not at all (no, best); the last model is always saved.",
         choices=("no", "steps", "epoch", "best"), kept=False),
    Flag("num_runs", int, 1, "fine-tuning", "Train this many times, with --seed and the seeds after it, and report the "
         "mean and the standard deviation of the scores.", within="[1, inf)"),
    Flag("start_step", int, 0, "quantization", "q8bert: quantization begins after this many updates.",
         within="[0, inf)"),
    Flag("ema_decay", float, 0.9999, "quantization", "q8bert: decay of the moving average that an activation's range "
         "is.", within="[0, 1)"),
    Flag("load_quantized_model", bool, False, "quantization", "q8bert: evaluate and predict from the int8 file of "
         "--init_checkpoint alone."),
    Flag("quantized_engine", str, "auto", "quantization", "dynamic: PyTorch's int8 kernels; auto takes the faster "
         "of fbgemm and onednn. qnnpack was made for ARM and is slow on x86.",
         choices=("auto", "x86", "onednn", "fbgemm", "qnnpack")),
    Flag("dynamic_engine", str, "torch", "quantization", "dynamic: the implementation: torch is quantize_dynamic, "
         "whose removal is announced, torchao is its successor.", choices=("torch", "torchao")),
    Flag("dynamic_per_channel", bool, False, "quantization", "dynamic: one weight scale per output channel instead of "
         "one per tensor."),
    Flag("per_row", bool, False, "quantization", "dynamic: one activation scale per row instead of one per batch, so "
         "that a text's answer does not depend on its neighbors in the batch."),
    Flag("do_eval", bool, False, "prediction", "Evaluate the dev set, for mnli both: scores in eval_results.txt and "
         "eval_results.json.", aliases=("evaluate",)),
    Flag("do_predict", bool, False, "prediction", "Predict the test set: predict_results_<task>.txt, and the file of "
         "the GLUE submission."),
    Flag("eval_all_checkpoints", bool, False, "prediction", "With --do_eval: evaluate every checkpoint in "
         "--output_dir, each into a folder of its own."),
    PREDICT_BATCH_SIZE,
    Flag("bf16", bool, False, "runtime", "The same as --use_fp16.", kept=False),
)
# What differs here from the flags that run_squad.py has too.
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "init_checkpoint": {
        "help": "The checkpoint to start from: the prefix of a TensorFlow checkpoint, a Hugging Face folder or hub "
        "name, or a state dict (.bin, .pt) of FasterTransformer's PyTorch script. The spelling --model_name_or_path is "
        "Hugging Face's and selects its defaults.",
        "aliases": ("model_name_or_path", "model_path"),
    },
    "do_lower_case": {
        "help": "Lower-case the text, as uncased models need; cased models need --nodo_lower_case. When not given, the "
        "tokenizer_config.json beside the vocabulary decides, if it says; with --model_type and with the PyTorch "
        "script's flags it is off unless given, as in those scripts.",
    },
    "save_checkpoints_steps": {
        "help": "Save a checkpoint every so many updates; 0 or -1: only the last.",
        "within": "[-1, inf)",
    },
    "learning_rate": {"default": 5e-5},
    "num_accumulation_steps": {
        "help": "Steps whose gradients are added up for one update. Spelled --gradient_accumulation_steps it divides "
        "--train_batch_size, as FasterTransformer's PyTorch script did, but not in Hugging Face's command lines.",
    },
    "distillation_loss": {
        "help": "Which original's loss: tf is KL(student || teacher) summed over the classes, pytorch is KL(teacher || "
        "student) averaged over them.",
    },
    "backend": {
        "help": "The framework. When not given: tensorflow if it is installed, else pytorch (the other way round with "
        "flags of Hugging Face's, NLP Architect's or FasterTransformer's PyTorch script, and for dynamic quantization "
        "pytorch).",
    },
    "use_xla": {"aliases": ("torch_compile",)},
    "disable_progress_bar": {"aliases": ("disable_tqdm",)},
    "verbose_logging": {"help": "Log more."},
    "bert_model": {
        "help": "Required by FasterTransformer's PyTorch script, where it only named a cache. Selects that script's "
        "defaults; the model is the one of --init_checkpoint.",
    },
    "model_type": {
        "group": "model and checkpoints",
        "help": "The architecture, in the command lines of Hugging Face's transformers 2 and NLP Architect, whose "
        "defaults it selects: bert, or quant_bert, which is --quant_scheme=q8bert.",
        "choices": ("bert", "quant_bert"),
    },
}
# fmt: on
ALL_FLAGS = tuple(
    replace(flag, **CHANGES.get(flag.name, {}))
    for flag in (QUANT_SCHEME, *COMMON_FLAGS, *GLUE_FLAGS, *EXPORT_FLAGS, *OLD_FLAGS, *TRAINER_FLAGS)
)


@dataclass(frozen=True, kw_only=True)
class GlueSettings(CommonSettings):
    """The settings of run_glue.py; each field is explained by the flag of the same name (`--help`)."""

    task_name: str | None  # a key of tasks.glue.GLUE_TASKS; None: data of the user's own
    data_dir: str | None
    validation_file: str | None
    test_file: str | None
    text_column: tuple[str, ...]  # none, one or two
    label_column: str | None
    class_file: str | None
    do_regression: bool
    max_train_samples: int | None
    max_eval_samples: int | None
    max_predict_samples: int | None

    do_eval: bool  # the dev set; do_predict is the test set
    evaluate_during_training: bool  # at evaluate_steps or evaluate_per_epoch
    load_best_model_at_end: bool
    eval_all_checkpoints: bool
    num_runs: int
    ignore_mismatched_sizes: bool

    quant_scheme: str  # "static", "q8bert" or "dynamic"
    start_step: int
    ema_decay: float
    load_quantized_model: bool
    quantized_engine: str
    dynamic_engine: str
    dynamic_per_channel: bool
    per_row: bool

    @property
    def predicts(self) -> bool:
        """Whether the run ends with a prediction, of the dev set or the test set."""
        return self.do_eval or self.do_predict


def parse_glue_flags(argv: Sequence[str]) -> GlueSettings:
    """Read the command line of run_glue.py (without the program's name), or a .json file of arguments and flags behind.

    Prints nothing (but `--help`): warnings and notes are in `settings.notes`. Raises UserError, in one sentence, for
    whatever can be known to be wrong before the model is loaded: unknown flags, wrong values, missing files,
    contradictions.
    """
    file, flags = split_arguments_file(argv)
    parsed = parse_flags(ALL_FLAGS, flags, PROGRAM, HELP_HEAD, file)
    values = parsed.values
    check_launch(parsed)
    choose_scheme(parsed)
    dialect = choose_glue_dialect(parsed)
    check_work(parsed)
    merge_accumulation(parsed, dialect)
    choose_device(parsed)
    custom_mode = None
    if values["quant_scheme"] != "q8bert":
        custom_mode = choose_quantization(parsed, dialect, predicts=values["do_eval"] or values["do_predict"])
    predicts = values["do_eval"] or values["do_predict"]
    export = choose_export(parsed, predicts, custom_mode)
    check_training(parsed)
    check_distillation(parsed)
    choose_tensorboard(parsed)
    note_training(parsed)
    note_grouping(parsed)
    choose_saving(parsed)
    evaluate_steps, evaluate_per_epoch = choose_evaluation(parsed)
    _note_idle(parsed)
    if values["output_dir"] is None:
        raise UserError("--output_dir is required: the folder for checkpoints, predictions and scores.")
    choose_data(parsed)
    check_checkpoint(parsed, "init_checkpoint")
    if values["distillation"]:
        check_checkpoint(parsed, "teacher")
    take_trained_model(parsed)
    find_model_files(parsed)
    user = "--do_eval" if values["do_eval"] else "--do_predict" if values["do_predict"] else "an export"
    check_weights_given(parsed, dialect, user)
    choose_lower_case(parsed, dialect)
    note_case_mismatch(parsed)
    return GlueSettings(
        **kept_values(parsed, ALL_FLAGS),
        predict_file=None,
        evaluate_steps=evaluate_steps,
        evaluate_per_epoch=evaluate_per_epoch,
        scale_learning_rate=dialect == "tensorflow",
        custom_mode=custom_mode,
        export=export,
        dialect=dialect,
        explicit=frozenset(parsed.spellings),
        given_besides=given_besides(parsed, ALL_FLAGS),
        notes=tuple(parsed.notes),
    )


def _note_idle(parsed: ParsedFlags) -> None:
    scheme = parsed.values["quant_scheme"]
    note_idle_phases(parsed, ALL_FLAGS)
    q8bert = {"start_step", "ema_decay"}
    note_idle_flags(parsed, ALL_FLAGS, "quant_scheme=q8bert", q8bert, active=scheme == "q8bert")
    dynamic = {"quantized_engine", "dynamic_engine", "dynamic_per_channel", "per_row"}
    note_idle_flags(parsed, ALL_FLAGS, "quant_scheme=dynamic", dynamic, active=scheme == "dynamic")
    note_idle_flags(parsed, ALL_FLAGS, "do_train", {"num_runs"})
    begins = parsed.values["do_train"] or parsed.values["do_calib"]
    note_idle_flags(parsed, ALL_FLAGS, "do_train", {"ignore_mismatched_sizes"}, active=begins)
    note_idle_flags(parsed, ALL_FLAGS, "do_eval", {"eval_all_checkpoints"})
    evaluates = parsed.values["do_eval"] or parsed.values["evaluate_during_training"]
    note_idle_flags(parsed, ALL_FLAGS, "do_eval", {"max_eval_samples"}, active=evaluates)
    note_idle_flags(parsed, ALL_FLAGS, "do_predict", {"max_predict_samples"})
