"""What an exported model says of itself to people: the model card beside it."""

from collections.abc import Callable
from pathlib import Path

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


def export_card(
    path: Path,
    verdict: Verdict | None,
    source: Source,
    settings: ExportSettings,
    command: str | None,
    data: str | None,
    part: str = "",
) -> str:
    """The text of the card.

    Args:
        path: the model's.
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
            use=[_USES[settings.target].format(name=path.name)],
            packages=("onnx", "onnxruntime", "numpy"),
        )
    )


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
