"""A model under onnxruntime beside its checkpoint under a backend: the same rows through both, and what differs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends import create_backend
from backends.base import Backend, Batch
from checkpoints.names import CLASSIFICATION
from export.embeddings import rounded_tables
from export.settings import ExportSettings
from export.source import Source
from tasks.base import Outputs, Task
from training.prediction import Predictor, predict_all
from twinquant.memory import release_freed_memory


@dataclass
class Comparison:
    """How far a model and its reference are apart on the same rows.

    largest, mean: of the absolute differences of logits at tokens. relative: the mean difference as a share of what
    `relative_to` says; None where it was not measured. answers, equal_answers: counts, and scores, of the model and of
    the reference; main_scores: the task's main score of both, in points of 100; empty or None without data.
    """

    rows: int
    largest: float
    mean: float
    relative: float | None = None
    relative_to: str = ""
    answers: int = 0
    equal_answers: int = 0
    model_scores: dict[str, float] = field(default_factory=dict)
    reference_scores: dict[str, float] = field(default_factory=dict)
    main_scores: tuple[float, float] | None = None

    @property
    def equal_percent(self) -> float:
        """Equal answers in percent; 100 where there are none."""
        return 100.0 * self.equal_answers / self.answers if self.answers else 100.0

    @property
    def score_difference(self) -> float:
        """Difference of the main scores in points of 100; 0 where there are none."""
        return abs(self.main_scores[0] - self.main_scores[1]) if self.main_scores is not None else 0.0


_RELEASE_EVERY = 1 << 26


class _UsedUp(Mapping[str, np.ndarray]):
    """Tensors each of which is let go once it is read: a backend that loads them then does not double the memory."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._tensors = tensors
        self._freed = 0

    def __getitem__(self, name: str) -> np.ndarray:
        if self._freed >= _RELEASE_EVERY:
            release_freed_memory()
            self._freed = 0
        tensor = self._tensors.pop(name)
        self._freed += tensor.nbytes
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def make_reference(source: Source, settings: ExportSettings, backend_name: str, use_up: bool = False) -> Backend:
    """The checkpoint under a backend, computing what the model is meant to: same mode, weight bits and embeddings.

    For an int8-dynamic model that is the float model: backends find no ranges at run time.

    Args:
        use_up: the source's tensors are not needed any more, and their memory is freed.
    """
    backend = create_backend(backend_name, source.config, source.head, num_labels=source.num_labels)
    mode = settings.effective_mode
    ranges = source.ranges(mode) if mode is not None else {}
    tensors = source.take_tensors() if use_up else source.tensors
    if settings.int8_embeddings:
        tensors = rounded_tables(tensors)
    backend.load(_UsedUp(tensors) if use_up else tensors)
    if mode is not None:
        backend.set_quantization(mode, ranges)
    return backend


def random_batches(source: Source, seed: int = 0) -> list[Batch]:
    """Random tokens in shapes that differ: one row, an odd length, rows with padding, a row of two tokens."""
    rng = np.random.default_rng(seed)
    longest = min(64, source.config.max_position_embeddings)
    batches: list[Batch] = []
    for lengths in ((longest,), (max(2, longest // 2 - 1), 2, longest // 3), (longest, longest - 1, longest // 2)):
        width = max(lengths)
        mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
        ids = rng.integers(0, source.config.vocab_size, mask.shape).astype(np.int32) * mask
        segments = (np.arange(width) > width // 3).astype(np.int32) * mask % source.config.type_vocab_size
        batches.append({"input_ids": ids, "input_mask": mask, "segment_ids": segments})
    return batches


def compare_on_batches(
    open_model: Callable[[], Predictor],
    open_reference: Callable[[], Backend],
    settings: ExportSettings,
    batches: Sequence[Batch],
) -> Comparison:
    """Compares logits. The reference is opened first, and let go before the model is: each may need the whole memory.

    Of a quantized model `relative` is the mean difference as a share of what fake quantization changes in the reference
    or, of an int8-dynamic one, of the logits' standard deviation.
    """
    reference = open_reference()
    expected = [reference.predict(batch) for batch in batches]
    moved = 0.0
    if settings.mode is not None:
        reference.set_quantization(None, {})
        moved = float(_all_differences([reference.predict(batch) for batch in batches], expected, batches).mean())
    del reference
    model = open_model()
    differences = _all_differences([model.predict(batch) for batch in batches], expected, batches)
    comparison = Comparison(
        sum(len(batch["input_ids"]) for batch in batches), float(differences.max()), float(differences.mean())
    )
    if settings.mode is not None:
        comparison.relative, comparison.relative_to = _ratio(comparison.mean, moved), "what quantization changes"
    elif settings.precision == "int8-dynamic":
        spread = np.concatenate([logits.ravel() for outputs in expected for logits in outputs.values()]).std()
        comparison.relative, comparison.relative_to = _ratio(comparison.mean, spread), "the logits' spread"
    return comparison


def compare_on_task(
    open_model: Callable[[], Predictor],
    open_reference: Callable[[], Predictor],
    task: Task,
    batch_size: int,
    longest: int,
) -> Comparison:
    """Compares logits, answers and scores on all prediction sets of a task; `longest`: max_seq_length.

    Answers of a regression are values, which are never quite equal: they are not counted.

    The reference is opened first, and let go before the model is: each may need the whole memory.
    """
    prediction_sets = [(one, one.features()) for one in task.prediction_sets()]

    def outputs_of(name: str, predictor: Predictor) -> list[Outputs]:
        return [
            predict_all(predictor, features, batch_size, longest, bar=f"check the {name}")
            for _, features in prediction_sets
        ]

    all_expected = outputs_of("checkpoint", open_reference())
    all_ours = outputs_of("model", open_model())
    differences = []
    comparison = Comparison(0, 0.0, 0.0)
    for (prediction_set, features), ours, expected in zip(prediction_sets, all_ours, all_expected, strict=True):
        for name in expected:
            for one, other, length in zip(ours[name], expected[name], features.lengths, strict=True):
                cut = None if task.head == CLASSIFICATION else length  # each is padded as its runtime needs it
                differences.append(np.abs(one[:cut] - other[:cut]))
        comparison.rows += len(features)
        (answers, scores), (expected_answers, expected_scores) = map(prediction_set.judge, (ours, expected))
        if not are_values(expected_answers):
            comparison.answers += len(expected_answers)
            comparison.equal_answers += sum(answers.get(key) == value for key, value in expected_answers.items())
        comparison.model_scores |= scores
        comparison.reference_scores |= expected_scores
    joined = np.concatenate(differences)
    comparison.largest, comparison.mean = float(joined.max()), float(joined.mean())
    if comparison.model_scores:
        points = 100.0 if task.head == CLASSIFICATION else 1.0  # SQuAD's scores are percentages already
        comparison.main_scores = (
            points * task.main_score(comparison.model_scores),
            points * task.main_score(comparison.reference_scores),
        )
    return comparison


def are_values(answers: Mapping[Any, Any]) -> bool:
    """Whether these are the answers of a regression, not texts or classes."""
    return any(isinstance(value, float) for value in answers.values())


def _all_differences(
    found: Sequence[Mapping[str, np.ndarray]], expected: Sequence[Mapping[str, np.ndarray]], batches: Sequence[Batch]
) -> np.ndarray:
    """Absolute differences of all logits at tokens; those at padding mean nothing."""
    parts = []
    for ours, theirs, batch in zip(found, expected, batches, strict=True):
        tokens = batch["input_mask"] > 0
        for name in theirs:
            difference = np.abs(ours[name] - theirs[name])
            parts.append(difference[tokens] if difference.shape == tokens.shape else difference.ravel())
    return np.concatenate(parts)


def _ratio(value: float, whole: float) -> float:
    return value / max(float(whole), 1e-12)
