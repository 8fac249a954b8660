"""What the commands do: `onnx`, `check` and `triton`."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from export.card import MakeCard, card_place, export_card
from export.cpu import has_vnni
from export.data import make_task, max_seq_length, reading
from export.flags import Arguments, parse_check_flags, parse_onnx_flags, parse_triton_flags
from export.folder import model_path, publish, staged
from export.metadata import describe_model
from export.model import build_model
from export.model_file import LARGEST_MESSAGE, write_model
from export.rules import check_rules
from export.runtime import import_onnxruntime, read_model
from export.settings import ExportSettings
from export.source import Source, load_source
from export.triton import TritonSettings, copy_model, place_version
from export.verdict import Verdict
from export.verify import CheckSettings, installed_backend, verify
from tasks.base import Task
from training.script import recorded
from twinquant.command_line import shown_command
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.messages import set_up_messages
from twinquant.run_record import RunRecord

logger = logging.getLogger("twinquant")

Check = Callable[[Path], Verdict]


class CheckFailed(UserError):
    """A model was not written, because it fails its check."""


def run_onnx(argv: list[str]) -> int:
    """`python -m export onnx`: writes and checks a model; UserError where it fails the check."""
    arguments = parse_onnx_flags(argv)
    set_up_messages(verbose=False)
    say_notes(arguments)
    if arguments["check"]:
        import_onnxruntime()  # before the model is written and not after it
    source = load_source(arguments["checkpoint"], arguments["task"], arguments["bert_config_file"])
    task = _make_task(arguments, source, arguments["check_data"], arguments["check_examples"])
    command = shown_command("python -m export onnx", argv)
    with _recorded(argv, arguments):
        written = export_as_told(source, arguments, arguments["output"], task, command=command)
    print("\n".join(describe_files(written)))
    return 0


@contextlib.contextmanager
def _recorded(argv: list[str], arguments: Arguments) -> Iterator[None]:
    """Keeps a record in the folder that the model gets, if it is one of its own; none where there is no model then."""
    output = Path(arguments["output"])
    record = RunRecord(output, "python -m export onnx", argv, arguments.values, writes=output.is_dir())
    record.note(mode=arguments["quant_mode"] or arguments["precision"], backend=arguments["backend"])
    with recorded(record):
        record.enter("export")
        yield
        record.writes = True


def run_triton(argv: list[str]) -> int:
    """`python -m export triton`: an exported model and its configuration in a model repository."""
    arguments = parse_triton_flags(argv)
    set_up_messages(verbose=False)
    say_notes(arguments)
    model = existing_model(arguments["model"])
    settings = TritonSettings(**{name: arguments[name] for name in TritonSettings.names()})
    written = place_version(arguments["output"], settings, partial(copy_model, model))
    print("\n".join(describe_files(written)))
    return 0


def run_check(argv: list[str]) -> int:
    """`python -m export check`: prints the report; 1 where the model fails."""
    arguments = parse_check_flags(argv)
    set_up_messages(verbose=False)
    say_notes(arguments)
    path = existing_model(arguments["model"])
    _, metadata = read_model(path)
    source = load_source(arguments["checkpoint"], metadata["task"], arguments["bert_config_file"])
    task = _make_task(arguments, source, arguments["data"], arguments["max_examples"])
    check = _check_settings(arguments, source)
    for warning in arguments.idle_bounds(metadata["precision"], task is not None):
        logger.warning("%s", warning)
    bounds = arguments.bounds(metadata["precision"])
    verdict = verify(path, source, check, bounds, task)
    if arguments["json_summary"] is not None:
        write_json_atomically(arguments["json_summary"], verdict.to_dict())
    print("\n".join(verdict.lines()))
    return 1 if verdict.failures else 0


def existing_model(model: str) -> Path:
    """The model file that --model names."""
    path = model_path(model)
    if not path.is_file():
        raise UserError(
            f"--model names {path}, which is not a file; expected a model that `python -m export onnx` wrote"
        )
    return path


def export_as_told(
    source: Source,
    arguments: Arguments,
    output: str | Path,
    task: Task | None,
    final: str | Path | None = None,
    command: str | None = None,
) -> list[Path]:
    """Chooses the model's settings, writes it, and checks it on `task` or random tokens; see `export_model`.

    `command`: the line that asked for it, for the card.
    """
    settings = choose_settings(arguments, source)
    check = None
    if arguments["check"]:
        check = partial(_check_written, source=source, task=task, arguments=arguments, settings=settings)
    data = arguments["check_data"]
    card = partial(
        export_card,
        source=source,
        settings=settings,
        reading=reading(arguments, source),
        command=command,
        data=None if task is None or data is None else Path(data).name,
        part="" if task is None else task.part,
    )
    return export_model(source, settings, output, check, final, card)


def describe_files(paths: list[Path]) -> list[str]:
    """A line for each file that was written, with its size."""
    return [f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)" for path in paths]


def export_model(
    source: Source,
    settings: ExportSettings,
    output: str | Path,
    check: Check | None = None,
    final: str | Path | None = None,
    card: MakeCard | None = None,
) -> list[Path]:
    """Writes a model and the files beside it; returns their paths.

    Args:
        output: a path that ends in .onnx, or a folder.
        check: given the model's temporary path; the model gets its name only if the verdict has no failures.
        final: where the caller will move what is written, for messages.
        card: makes the card that is put beside the model; None: none is.

    Raises UserError where the ranges do not fit or the place cannot be written, CheckFailed where the check fails.
    """
    mode = settings.effective_mode
    ranges = source.ranges(mode) if mode is not None else {}
    metadata = describe_model(source, settings, ranges)
    model = build_model(
        source.tensors, source.config, source.head, source.num_labels, settings, ranges, metadata.props()
    )
    if settings.target != "onnxruntime" and settings.precision == "int8":
        check_rules(model.proto.graph, model.constants, settings.target)
    path = model_path(output)
    with staged(path) as temporary:
        names = write_model(temporary, model, LARGEST_MESSAGE)
        del model  # the check needs memory for a model of its own
        if len(names) > 1:
            logger.info("the model is larger than 2 GB: its weights are in %s beside it, keep both together", names[0])
        verdict = check(temporary) if check is not None else None
        if verdict is not None and verdict.failures:
            name = model_path(final or output)
            advice = f". Next: {verdict.next_step}" if verdict.next_step else ""
            raise CheckFailed(f"{name} was not written, it fails its check: {'; '.join(verdict.failures)}{advice}")
        if card is not None:
            place = card_place(path, in_its_folder=path != Path(output))
            if place is None:
                logger.info("no model card is written: %s is somebody else's", path.with_name(f"{path.stem}.md"))
            else:
                temporary.with_name(place.name).write_text(card(path, verdict), encoding="utf-8")
                names = [place.name, *names]
        return publish(temporary, names, path, source)


def choose_settings(arguments: Arguments, source: Source) -> ExportSettings:
    """The settings that the flags, the checkpoint and the CPU lead to; says what it chose."""
    precision, target = arguments["precision"], arguments["target"]
    quantized = precision != "fp32"
    mode = source.choose_mode(arguments["quant_mode"], arguments["quant_exclude"]) if precision == "int8" else None
    if mode is not None and target == "tensorrt" and mode.name == "ort":
        raise UserError(
            f"{source.name} is calibrated for mode ort, whose unsigned integers TensorRT lacks; use ft1 or trt"
        )
    vnni = has_vnni(arguments["cpu"])
    reduce_range = arguments["reduce_range"]
    if reduce_range is None:
        reduce_range = quantized and target == "onnxruntime" and not vnni
        if reduce_range:
            which = "this CPU" if arguments["cpu"] == "this" else arguments["cpu"]
            logger.info(
                "%s has no VNNI, and 8-bit weights would saturate: weights get 7 bits (--noreduce_range keeps 8, exact "
                "with the session option session.x64quantprecision=1)", which,
            )  # fmt: skip
    settings = ExportSettings(
        precision=precision,
        mode=mode,
        target=target,
        portable=arguments["portable"],
        int8_embeddings=arguments["int8_embeddings"],
        reduce_range=reduce_range,
        # Only the default form of int8 depends on it; elsewhere equal models shall say equal things of themselves.
        vnni=vnni or precision != "int8" or target != "onnxruntime" or arguments["portable"],
    )
    logger.info("exporting %s: %s", source.name, settings.describe())
    return settings


def _check_written(
    path: Path, source: Source, task: Task | None, arguments: Arguments, settings: ExportSettings
) -> Verdict:
    if arguments["backend"] is None and installed_backend() is None:
        logger.info("the model is not compared with its checkpoint: neither torch nor tensorflow is installed")
    bounds = arguments.bounds(settings.precision)
    verdict = verify(path, source, _check_settings(arguments, source), bounds, task)
    for line in verdict.lines():
        logger.info("%s", line)
    return verdict


def _make_task(arguments: Arguments, source: Source, data: str | None, examples: int | None) -> Task | None:
    return None if data is None else make_task(arguments, source, data, examples)


def _check_settings(arguments: Arguments, source: Source) -> CheckSettings:
    return CheckSettings(
        backend=arguments["backend"],
        batch_size=arguments["predict_batch_size"],
        max_seq_length=max_seq_length(arguments, source),
        threads=arguments["threads"],
    )


def say_notes(arguments: Arguments) -> None:
    """Tells the user what the flags came to."""
    for note in arguments.notes:
        logger.info("%s", note)
