"""What an exported model says of itself to people: the model card beside it."""

from collections.abc import Callable
from pathlib import Path

from checkpoints.names import CLASSIFICATION
from export.data import Reading
from export.runtime import EXACT_WITHOUT_VNNI
from export.settings import ExportSettings, describe_mode
from export.source import Source
from export.verdict import Verdict
from twinquant.model_card import FILE, Card, is_ours, make_card

MakeCard = Callable[[Path, Verdict | None], str]
"""Makes the text of a card for the model of that path, which passed with that verdict, or was not checked (None)."""

_USES = {
    "onnxruntime": "`onnxruntime.InferenceSession({name!r})` runs it; optimum loads the folder.",
    "openvino": "`openvino.Core().compile_model({name!r})` runs it.",
    "tensorrt": "`trtexec --onnx={name}` builds an engine from it.",
}
# transformers' AutoTokenizer makes the same rows from the folder; these lines need onnxruntime and tokenizers only.
_CLASSIFY = """\
import json
import numpy as np
import onnxruntime
from tokenizers import BertWordPieceTokenizer

folder = "."
tokenizer = BertWordPieceTokenizer(f"{{folder}}/vocab.txt", lowercase={lower})
tokenizer.enable_truncation({longest})
tokenizer.enable_padding()
rows = tokenizer.encode_batch(["One text.", "And another one."])  # of pairs: [("A text.", "Its second text."), ...]
inputs = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
inputs = {{name: np.array([getattr(row, ours) for row in rows], np.int64) for name, ours in inputs.items()}}
(logits,) = onnxruntime.InferenceSession(f"{{folder}}/{name}").run(["logits"], inputs)
"""
_NAMES = """\
names = json.load(open(f"{folder}/config.json", encoding="utf-8"))["id2label"]
print([names[str(index)] for index in logits.argmax(axis=1)])
"""
_VALUES = """\
print(logits[:, 0].tolist())
"""


def export_card(
    path: Path,
    verdict: Verdict | None,
    source: Source,
    settings: ExportSettings,
    reading: Reading,
    command: str | None,
    data: str | None,
    part: str = "",
) -> str:
    """The text of the card.

    Args:
        path: the model's.
        reading: of the texts that it is for.
        command: the line that made it.
        data: the name of what it was checked on; None: random tokens.
        part: which part of that, "" for all.
    """
    config = source.config
    layers = f"{config.num_hidden_layers} layer{'s' * (config.num_hidden_layers > 1)}, hidden size {config.hidden_size}"
    kind = source.head.replace("_", " ").replace("classification", "text classification")
    facts = {"Task": kind}
    if source.label_names:
        facts["Classes"] = ", ".join(source.label_names)
    facts["Checkpoint"] = source.name
    facts["Precision"] = settings.precision + (f", mode {describe_mode(settings.mode)}" if settings.mode else "")
    if settings.mode is not None and source.calibration is not None:
        keys = ("calib_method", "percentile", "batches", "batch_size")
        told = {key: source.calibration[key] for key in keys if source.calibration.get(key) is not None}
        facts["Calibration"] = ", ".join(f"{key} {value}" for key, value in told.items())
    facts["Runtime"] = settings.target
    is_classifier = source.head == CLASSIFICATION
    limit = f"; the model takes {config.max_position_embeddings}" * (config.max_position_embeddings > reading.longest)
    facts["Texts" if is_classifier else "Windows"] = f"at most {reading.longest} tokens (`--max_seq_length`){limit}"
    default = "" if reading.is_told else ", BERT's default: no file beside the checkpoint says"
    facts["Lower case"] = ("yes" if reading.do_lower_case else "no") + default
    note = "It was not checked against its checkpoint."
    if verdict is not None:
        lines = ["The check against its checkpoint, before it got its name:", ""]
        note = "\n".join([*lines, *(f"- {line}" for line in verdict.lines()[1:])])
    comparison = verdict.comparison if verdict is not None else None
    quantized = settings.precision != "fp32"
    return make_card(
        Card(
            name=path.name,
            head=source.head,
            summary=f"BERT ({layers}) for {kind} as an ONNX model: {settings.describe()}.",
            facts=facts,
            library="onnx",
            tags=["onnx", *(["quantization", "int8"] if quantized else [])],
            data=data,
            part=part,
            scores=comparison.model_scores if comparison is not None else {},
            score_note=note,
            command=command,
            use=_use(path.name, source, settings, reading),
            packages=("onnx", "onnxruntime", "numpy"),
        )
    )


def _use(name: str, source: Source, settings: ExportSettings, reading: Reading) -> list[str]:
    lines = [_USES[settings.target].format(name=name)]
    if settings.precision != "fp32" and settings.target == "onnxruntime" and not settings.reduce_range:
        lines.append(f"On a CPU without VNNI it needs the session option `{EXACT_WITHOUT_VNNI}=1`.")
    if source.head != CLASSIFICATION or source.checkpoint.vocab_file is None:
        return lines
    code = classifier_code(name, reading.longest, reading.do_lower_case, is_regression=source.num_labels == 1)
    return [*lines, "", "In this folder:", "", f"```python\n{code}```"]


def classifier_code(name: str, longest: int, lower: bool, is_regression: bool = False) -> str:
    """Lines of Python that run the classifier `name` on two texts, in its folder, and print classes or values."""
    code = _CLASSIFY.format(name=name, longest=longest, lower=lower)
    return code.removeprefix("import json\n") + _VALUES if is_regression else code + _NAMES


def card_place(path: Path, in_its_folder: bool) -> Path | None:
    """Where the card of a model goes; None where every place is taken by somebody else's file.

    README.md where the model has a folder of its own, and no other model or person wrote that; else a file of the
    model's name.
    """
    places = card_names(path)[0 if in_its_folder else 1 :]
    return next((place for place in places if not place.exists() or is_ours(place, path.name)), None)


def card_names(path: Path) -> list[Path]:
    """The two places of a model's card."""
    return [path.with_name(FILE), path.with_suffix(".md")]
