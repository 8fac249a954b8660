"""What run_glue.py decides from its flags: whose defaults hold, the data, when to save and to evaluate, the case.

Rules as in flag_rules.py: each completes `values` in place and adds a sentence to `notes` for whatever the user did not
ask for in so many words; contradictions raise UserError.
"""

from pathlib import Path
from typing import Any

from tasks.glue import GLUE_TASKS, glue_task_name
from twinquant.errors import UserError
from twinquant.export_flags import exports
from twinquant.flag_rules import TWIN_DEFAULTS, choose_dialect, note_calibration_before_training
from twinquant.flags import ParsedFlags
from twinquant.model_files import called_uncased, check_file, read_lower_case, trained_model_in
from twinquant.words import no_effect

# Of FasterTransformer's PyTorch run_glue.py, which differs from its run_squad.py in the seed.
TWIN_GLUE_DEFAULTS = {**TWIN_DEFAULTS, "seed": 1}
# Flags that Hugging Face's scripts or NLP Architect's required and the others did not know.
HUGGING_FACE_SPELLINGS = ("--model_type", "--model_name_or_path")
# Transformers 2 to 5 agree on them; NLP Architect too, but for the logging.
HUGGING_FACE_DEFAULTS: dict[str, Any] = {
    "train_batch_size": 8,
    "predict_batch_size": 8,
    "learning_rate": 5e-5,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "num_train_epochs": 3.0,
    "max_seq_length": 128,
    "save_checkpoints_steps": 500,
    "log_freq": 500,
    "seed": 42,
}
NLP_ARCHITECT_LOG_FREQ = 50
# Names of the optimizer that is used here; of others that begin so, such as adamw_8bit, a note says that they are not.
PLAIN_ADAMW = ("adamw", "adamw_hf", "adamw_torch", "adamw_torch_fused")
NEVER = 2**31 - 1  # updates between two checkpoints, where only the last one is wanted
_OWN_DATA = (
    "train_file", "validation_file", "test_file", "text_column", "text_column_names", "label_column", "class_file",
    "do_regression",
)  # fmt: skip


def choose_glue_dialect(parsed: ParsedFlags) -> str:
    """Say whose command line this is: "pytorch", "hugging_face" or, as our own, "tensorflow"; fill in its defaults.

    A flag that FasterTransformer's PyTorch script required counts before one that Hugging Face's scripts required.
    """
    values = parsed.values
    twin = dict(TWIN_GLUE_DEFAULTS)
    if values["quant_scheme"] != "static":
        del twin["if_quant"]
    dialect = choose_dialect(parsed, twin)
    found = [spelling for spelling in HUGGING_FACE_SPELLINGS if spelling in parsed.all_spellings]
    if dialect == "pytorch":
        if values["do_predict"]:
            parsed.notes.append(
                "note: --do_predict predicts the test set; the PyTorch script's wrote the predictions of the dev set, "
                "which are here those of --do_eval."
            )
        return dialect
    if not found:
        return dialect
    defaults = dict(HUGGING_FACE_DEFAULTS)
    if values["model_type"] == "quant_bert":
        defaults["log_freq"] = NLP_ARCHITECT_LOG_FREQ
    if parsed.given("warmup_proportion"):
        del defaults["warmup_steps"]
    used = {name: value for name, value in defaults.items() if not parsed.given(name)}
    values.update(used)
    listed = [f"{name} {value}" for name, value in used.items()]
    listed += ["the learning rate not multiplied by the number of processes", "the backend pytorch if it is installed"]
    parsed.notes.append(
        f"note: {' and '.join(found)} {'belong' if len(found) > 1 else 'belongs'} to Hugging Face's and NLP "
        f"Architect's scripts, so their defaults hold where a flag is not given: {', '.join(listed)}."
    )
    return "hugging_face"


def check_work(parsed: ParsedFlags) -> None:
    """Whether there is anything to do, and with which seeds."""
    values = parsed.values
    if not (any(values[name] for name in ("do_train", "do_calib", "do_eval", "do_predict")) or exports(values)):
        raise UserError(
            "nothing to do: give at least one of --do_train, --do_calib, --do_eval, --do_predict and --export_onnx."
        )
    note_calibration_before_training(parsed)
    if not values["do_train"]:
        values["num_runs"] = 1  # every run would be the same
    last_seed = values["seed"] + values["num_runs"] - 1
    if last_seed > 4294967295:
        raise UserError(f"--num_runs={values['num_runs']} runs to the seed {last_seed}, above 4294967295.")


def note_training(parsed: ParsedFlags) -> None:
    """--bf16 as another spelling of --use_fp16; --optim, of which only AdamW is there; the order of the examples."""
    values = parsed.values
    if values["bf16"]:
        values["use_fp16"] = True
        parsed.notes.append(
            "note: --bf16 is taken as --use_fp16: bfloat16 on a CPU that has it, float16 with loss scaling on a GPU."
        )
    if parsed.given("optim") and values["optim"] not in PLAIN_ADAMW:
        if not values["optim"].startswith("adamw"):
            raise UserError(f"--optim={values['optim']} is refused: the optimizer is AdamW; leave the flag out.")
        parsed.notes.append(f"note: --optim={values['optim']} has no effect: the optimizer is AdamW, as BERT's.")
    sampling = values["train_sampling_strategy"]
    if sampling == "sequential":
        raise UserError(
            "--train_sampling_strategy=sequential is refused: training follows an order drawn from --seed; leave the "
            "flag out."
        )
    if parsed.given("group_by_length") and parsed.given("train_sampling_strategy"):
        if values["group_by_length"] != (sampling == "group_by_length"):
            said = parsed.spelling("group_by_length") if values["group_by_length"] else "--group_by_length=False"
            raise UserError(f"--train_sampling_strategy={sampling} contradicts {said}; give one of them.")
    if sampling == "group_by_length":
        values["group_by_length"] = True
    elif sampling != "random":
        parsed.notes.append(
            f"note: --train_sampling_strategy={sampling} has no effect: training follows an order drawn from --seed; "
            "batches of texts of like length are --group_by_length."
        )


def choose_saving(parsed: ParsedFlags) -> None:
    """--save_strategy and --save_steps 0 or -1 as updates between two checkpoints."""
    values = parsed.values
    if values["eval_all_checkpoints"] and values["do_train"] and not parsed.given("keep_checkpoints"):
        parsed.notes.append(
            f"note: --eval_all_checkpoints evaluates the {values['keep_checkpoints']} newest checkpoints: no more are "
            "kept without --keep_checkpoints."
        )
    strategy, given = values["save_strategy"], parsed.given("save_checkpoints_steps")
    if strategy == "steps" and values["save_checkpoints_steps"] > 0:
        return
    if strategy == "steps":
        said = f"{parsed.spelling('save_checkpoints_steps')} {values['save_checkpoints_steps']}"
    else:
        said = f"--save_strategy={strategy}"
        if given:
            parsed.notes.append(f"note: {parsed.spelling('save_checkpoints_steps')} has no effect with {said}.")
    values["save_checkpoints_steps"] = NEVER
    if strategy == "epoch":
        values["save_per_epoch"] = True
        parsed.notes.append(f"note: {said}: a checkpoint is saved at the end of every epoch, and the last model.")
    else:
        parsed.notes.append(
            f"note: {said}: the last model is saved, and the best one where it is evaluated while training; a run that "
            "is killed begins anew."
        )


def choose_evaluation(parsed: ParsedFlags) -> tuple[int | None, bool]:
    """When the dev set is evaluated while training: every so many updates (None: not so), and whether every epoch."""
    values = parsed.values
    strategy = values["eval_strategy"]
    wanted = values["evaluate_during_training"]
    if parsed.given("evaluate_during_training") and parsed.given("eval_strategy") and wanted != (strategy != "no"):
        raise UserError(
            f"--evaluate_during_training={wanted} contradicts {parsed.spelling('eval_strategy')}={strategy}; give one "
            "of them."
        )
    if wanted and strategy == "no":
        strategy = "steps"
    if not values["do_train"]:
        names = ("evaluate_during_training", "eval_strategy", "eval_steps", "load_best_model_at_end")
        idle = [parsed.spelling(name) for name in names if parsed.given(name) and values[name] not in (False, "no")]
        if idle:
            parsed.notes.append(f"note: {no_effect(idle)} without --do_train.")
        values["evaluate_during_training"] = values["load_best_model_at_end"] = False
        return None, False
    if values["load_best_model_at_end"] and strategy == "no":
        raise UserError(
            "--load_best_model_at_end needs evaluations to choose by: give --eval_strategy=epoch or "
            "--eval_strategy=steps."
        )
    if parsed.given("eval_steps") and strategy != "steps":
        parsed.notes.append(f"note: --eval_steps has no effect without --eval_strategy=steps, found {strategy}.")
    values["evaluate_during_training"] = strategy != "no"
    steps = values["eval_steps"] or values["log_freq"] if strategy == "steps" else None
    if strategy == "steps" and not parsed.given("eval_steps"):
        parsed.notes.append(
            f"note: evaluation every {steps} updates, as {parsed.spelling('log_freq')} (no --eval_steps)."
        )
    return steps, strategy == "epoch"


def choose_data(parsed: ParsedFlags) -> None:
    """A GLUE task in a folder, or files of the user's own, one for each phase; whether they are there; the length."""
    values = parsed.values
    own = [parsed.spelling(name) for name in _OWN_DATA if parsed.given(name) and values[name]]
    if values["task_name"] is None:
        _choose_own_data(parsed, own)
        pairs = len(values["text_column"]) == 2
    else:
        values["task_name"] = glue_task_name(values["task_name"])
        if own:
            raise UserError(
                f"{', '.join(own)} {'contradicts' if len(own) == 1 else 'contradict'} --task_name="
                f"{values['task_name']}, whose files are those in --data_dir; leave --task_name out for data of your "
                "own."
            )
        if values["data_dir"] is None:
            raise UserError(
                f"--task_name={values['task_name']} needs --data_dir, the folder of its train.tsv, dev.tsv and "
                "test.tsv: nothing is downloaded."
            )
        pairs = len(GLUE_TASKS[values["task_name"]].text_columns) == 2
    if values["data_dir"] is not None and not Path(values["data_dir"]).is_dir():
        found = "which is a file" if Path(values["data_dir"]).exists() else "which does not exist"
        raise UserError(f"--data_dir names {values['data_dir']}, {found}; a folder is expected.")
    if pairs and values["max_seq_length"] < 5:
        raise UserError(
            f"--max_seq_length={values['max_seq_length']} leaves no room for two texts: it must be at least 5, for "
            "three special tokens and one of each text."
        )


def _choose_own_data(parsed: ParsedFlags, own: list[str]) -> None:
    values = parsed.values
    if not own:
        raise UserError(
            "no data is named: give --task_name and --data_dir for a GLUE task, or --train_file, --validation_file and "
            "--test_file for data of your own."
        )
    evaluation = "evaluate_during_training" if parsed.given("evaluate_during_training") else "eval_strategy"
    evaluators = ["do_eval"] if values["do_eval"] else [evaluation] if values["evaluate_during_training"] else []
    phases = (
        ("train_file", [name for name in ("do_train", "do_calib") if values[name]]),
        ("validation_file", evaluators),
        ("test_file", [name for name in ("do_predict",) if values[name]]),
        ("class_file", ["class_file"]),
    )
    for name, users in phases:
        if values[name] is not None and values["data_dir"] is not None:
            # A path that is right without the folder is taken as it is.
            joined = Path(values["data_dir"]) / values[name]
            values[name] = str(joined) if joined.is_file() else values[name]
        if users and values[name] is None and name != "class_file":
            raise UserError(
                f"{parsed.spelling(users[0])} needs --{name}, a csv, tsv, txt or json file (or --task_name "
                "and --data_dir for a GLUE task)."
            )
        if users:
            check_file(parsed, name)
    _choose_columns(parsed)
    if values["do_regression"] and values["class_file"] is not None:
        raise UserError("--do_regression contradicts --class_file: a regression has no classes.")


def _choose_columns(parsed: ParsedFlags) -> None:
    values = parsed.values
    if parsed.given("text_column_names"):
        names = tuple(name.strip() for word in values["text_column_names"] for name in word.split(",") if name.strip())
        if parsed.given("text_column") and names != values["text_column"]:
            raise UserError("--text_column_names contradicts --text_column; give one of them.")
        values["text_column"] = names
        if len(names) == 2:
            parsed.notes.append(
                f"note: --text_column_names {','.join(names)}: the two are a pair of texts, where Hugging Face's "
                "script joined them into one."
            )
    columns = values["text_column"]
    if len(columns) > 2:
        spelling = "text_column_names" if parsed.given("text_column_names") else "text_column"
        raise UserError(f"{parsed.spelling(spelling)} takes one or two names of columns, found {', '.join(columns)}.")
    if len({*columns, values["label_column"]}) < len(columns) + 1:
        raise UserError("--text_column and --label_column name a column twice; different columns are expected.")


def take_trained_model(parsed: ParsedFlags) -> None:
    """--do_eval without --do_train of transformers 2: the model in --output_dir, not that of --model_name_or_path."""
    values = parsed.values
    of_version_2 = {"--model_type", "--model_name_or_path"} <= parsed.all_spellings
    if not of_version_2 or values["do_train"] or values["do_calib"]:
        return
    trained = trained_model_in(values["output_dir"])
    if trained is not None and Path(trained) != Path(values["init_checkpoint"]):
        parsed.notes.append(
            f"note: the model is {trained}, the newest in --output_dir: without --do_train, the script of --model_type "
            f"took that, not --model_name_or_path {values['init_checkpoint']}; --init_checkpoint names another."
        )
        values["init_checkpoint"] = trained


def choose_lower_case(parsed: ParsedFlags, dialect: str) -> None:
    """--do_lower_case where it is not given: the tokenizer's own setting, else the default of the script meant.

    Transformers 2 and the PyTorch twin lower-cased only when told to. Transformers 4 and 5 know no such flag and follow
    the tokenizer's setting, which for a hub name is what the name says.
    """
    values = parsed.values
    said = read_lower_case(values["vocab_file"])
    lower = values["do_lower_case"]
    if parsed.given("do_lower_case") or dialect == "pytorch":
        return  # where it cannot be right, note_case_mismatch says so
    if said is not None:
        reason = f"as tokenizer_config.json beside {values['vocab_file']} says"
        lower = said
    elif dialect == "tensorflow":
        return
    elif parsed.given("model_type"):
        lower, reason = (
            False,
            "the default of the scripts with --model_type, which lower-case only with --do_lower_case",
        )
    else:
        called = called_uncased(values["init_checkpoint"])
        lower = called is not False
        reason = (
            "the default of BERT's tokenizer" if called is None else f"as the name {values['init_checkpoint']} says"
        )
    values["do_lower_case"] = lower
    parsed.notes.append(f"note: do_lower_case is {lower}, {reason}.")
