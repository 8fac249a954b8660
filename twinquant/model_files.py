"""Where the files of a run are: the checkpoint, what lies beside it, and whether what the flags name exists."""

import re
from pathlib import Path

from checkpoints.checkpoint_state import latest_checkpoint
from checkpoints.dynamic_folder import refuse_dynamic
from twinquant.errors import UserError
from twinquant.flags import ParsedFlags
from twinquant.json_text import parse_json

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CHECKPOINT_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".safetensors", ".index", ".h5", ".npz")
_CONFIG_NAMES = ("bert_config.json", "config.json")
_HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_CASED = re.compile(r"(?<![a-z])(un)?cased(?![a-z])", re.IGNORECASE)


def looks_like_hub_name(path: str) -> bool:
    """True for "bert-base-uncased" and "user/model": names that the loader may look up on the Hugging Face hub.

    False for a missing file in a folder that exists ("out/finetuned" beside a folder "out"): that is a mistyped path.
    """
    if path.endswith(_CHECKPOINT_ENDINGS) or ".ckpt-" in path or ("/" in path and Path(path).parent.is_dir()):
        return False
    return _HUB_NAME.fullmatch(path) is not None


def check_file(parsed: ParsedFlags, name: str) -> None:
    """The flag's value, where there is one, must be an existing file."""
    path = parsed.values[name]
    if path is not None and not Path(path).is_file():
        found = "which is a folder" if Path(path).is_dir() else "which does not exist"
        raise UserError(f"{parsed.spelling(name)} names {path}, {found}; a file is expected.")


def check_checkpoint(parsed: ParsedFlags, name: str) -> None:
    """The flag's value, where there is one, must be a checkpoint prefix, a folder, a file or a possible hub name."""
    value = parsed.values[name]
    if value is None:
        return
    refuse_dynamic(value)
    path = Path(value)
    if not (path.exists() or Path(f"{value}.index").exists() or looks_like_hub_name(value)):
        raise UserError(
            f"{parsed.spelling(name)} names {value}, but there is neither {value}.index (a TensorFlow checkpoint) "
            "nor a folder or file of that name."
        )


def find_model_files(parsed: ParsedFlags) -> None:
    """Fill in `vocab_file` and `bert_config_file` from the folder of the checkpoint where they were not given.

    That is --init_checkpoint or, where there is none, the newest checkpoint in --output_dir. They stay None for a hub
    name, whose files only the loader can fetch. Raises UserError when they are missing.
    """
    values = parsed.values
    _take_hugging_face_name(parsed, "config_name", "bert_config_file", _CONFIG_NAMES)
    _take_hugging_face_name(parsed, "tokenizer_name", "vocab_file", ("vocab.txt",))
    checkpoint = values["init_checkpoint"]
    folder = None
    if values["bert_config_file"] is None or values["vocab_file"] is None:
        in_output = None
        if checkpoint is None and Path(values["output_dir"]).is_dir():
            in_output = latest_checkpoint(values["output_dir"])
        folder = _folder_of(checkpoint or in_output)
    for name, candidates in (("bert_config_file", _CONFIG_NAMES), ("vocab_file", ("vocab.txt",))):
        if values[name] is not None:
            check_file(parsed, name)
            continue
        found = next((folder / file for file in candidates if (folder / file).is_file()), None) if folder else None
        if found is not None:
            values[name] = str(found)
            parsed.notes.append(f"note: --{name} is {found}, found beside the checkpoint.")
        elif folder is not None or checkpoint is None:
            where = f", and {folder} holds no {' or '.join(candidates)}" if folder is not None else ""
            raise UserError(f"--{name} is required{where}.")


def read_lower_case(vocab_file: str | None) -> bool | None:
    """What the tokenizer_config.json beside a vocabulary says of lower-casing; None where it, or the file, is silent.

    Raises UserError where the file is not a JSON object.
    """
    path = Path(vocab_file).parent / "tokenizer_config.json" if vocab_file is not None else None
    if path is None or not path.is_file():
        return None
    config = parse_json(path.read_bytes(), path)
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(config).__name__}")
    lower = config.get("do_lower_case")
    return lower if isinstance(lower, bool) else None


def trained_model_in(folder: str) -> str | None:
    """The model that an output folder holds: its newest checkpoint, or the folder itself where Hugging Face's scripts
    saved one; None where there is none."""
    path = Path(folder)
    if not path.is_dir():
        return None
    newest = latest_checkpoint(path)
    if newest is not None:
        return str(newest)
    whole = (path / "config.json").is_file() and any((path / name).is_file() for name in _HUGGING_FACE_WEIGHTS)
    return str(path) if whole else None


def _folder_of(checkpoint: str | None) -> Path | None:
    """Where a checkpoint's config and vocabulary lie; of a run's output folder, those of its newest checkpoint."""
    if checkpoint is None or not (Path(checkpoint).exists() or Path(f"{checkpoint}.index").exists()):
        return None
    folder = Path(checkpoint)
    if not folder.is_dir():
        return folder.parent
    latest = None if any((folder / name).is_file() for name in _CONFIG_NAMES) else latest_checkpoint(folder)
    if latest is None:
        return folder
    return Path(latest) if Path(latest).is_dir() else Path(latest).parent


def check_weights_given(parsed: ParsedFlags, dialect: str, prediction: str) -> None:
    """Calibration and prediction alone need trained weights: from --init_checkpoint or a checkpoint in --output_dir.

    dialect: prediction alone takes the newest checkpoint in --output_dir only as the TensorFlow original, "tensorflow".
    prediction: the flag that asks for it, for the message.
    """
    values = parsed.values
    output = Path(values["output_dir"])
    if output.exists() and not output.is_dir():
        raise UserError(f"--output_dir names {output}, which is a file; a folder is expected.")
    if values["init_checkpoint"] is not None:
        return
    if not values["do_train"] and values["do_calib"]:
        raise UserError("--do_calib needs --init_checkpoint: none is given, and which model to calibrate must be said.")
    resumable = output.is_dir() and ((output / "checkpoint").exists() or any(output.glob("model.ckpt-*")))
    if resumable and not values["overwrite_output_dir"] and (values["do_train"] or dialect == "tensorflow"):
        return
    if not values["do_train"]:
        there = "" if resumable else f", and {output} holds no checkpoint"
        raise UserError(f"{prediction} needs --init_checkpoint: none is given{there}.")
    parsed.notes.append("warning: no --init_checkpoint is given: training starts from random weights.")


def called_uncased(checkpoint: str | None) -> bool | None:
    """Whether a checkpoint's path says uncased (True) or cased (False); None where it says neither."""
    words = _CASED.findall("/".join(Path(checkpoint).parts[-2:])) if checkpoint else []
    return words[-1] != "" if words else None


def note_case_mismatch(parsed: ParsedFlags) -> None:
    """Warn when --do_lower_case is not what the checkpoint's path (cased, uncased) or its tokenizer's file says."""
    checkpoint, vocab_file = parsed.values["init_checkpoint"], parsed.values["vocab_file"]
    uncased, said = called_uncased(checkpoint), read_lower_case(vocab_file)
    lower = parsed.values["do_lower_case"]
    if uncased is not None and uncased != lower:
        parsed.notes.append(
            f"warning: do_lower_case is {lower}, but {checkpoint} is called {'uncased' if uncased else 'cased'}; "
            f"{'--do_lower_case' if uncased else '--nodo_lower_case'} is probably meant."
        )
    elif said is not None and said != lower:
        parsed.notes.append(
            f"warning: do_lower_case is {lower}, but tokenizer_config.json beside {vocab_file} says {said}."
        )


def _take_hugging_face_name(parsed: ParsedFlags, flag: str, target: str, files: tuple[str, ...]) -> None:
    """--config_name and --tokenizer_name: a file, a folder that holds one, or the model's own name again."""
    value = parsed.values[flag]
    if value is None or value == parsed.values["init_checkpoint"] or parsed.given(target):
        if value is not None and value != parsed.values["init_checkpoint"]:
            parsed.notes.append(f"warning: --{flag} has no effect: {parsed.spelling(target)} is given.")
        elif value is not None:
            parsed.notes.append(f"note: --{flag} repeats {parsed.spelling('init_checkpoint')}.")
        return
    candidates = [Path(value), *(Path(value) / file for file in files)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"--{flag} names {value}, where there is no {' or '.join(files)}; give --{target} instead.")
    parsed.values[target] = str(found)
    parsed.notes.append(f"note: --{flag} is taken as --{target}={found}.")
