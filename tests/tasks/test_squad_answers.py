"""Answers against plain loops, and the cases where the rules are easily missed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from plain_answers import Window, answers_by_loop, final_text

from tasks.answer_text import TextProjector
from tasks.squad_answers import Answers, nbest_json, predict_answers
from tasks.squad_examples import SquadExamples, read_squad_examples
from tasks.squad_features import SquadFeatures, make_squad_features
from tasks.tokenization import Tokenizer
from twinquant.errors import UserError

WriteSquad = Callable[..., Path]
CONTEXT = "The cat's mat (1895-1943) sat on Jim's café, the unaffable dog ran. CAT cat zebra"


@pytest.mark.parametrize(
    ("pieces", "words", "text"),
    [
        pytest.param(["cat"], ["Cat's"], "Cat", id="before punctuation"),
        pytest.param(["1895"], ["(1895-1943)"], "1895", id="inside"),
        pytest.param(["cafe", ",", "the"], ["café,", "The"], "café, The", id="accent"),
        pytest.param(["un", "##aff"], ["Unaffable", "cat"], "Unaff", id="part of a word"),
        pytest.param(["cat", "cat"], ["cat's", "cat"], "cat's cat", id="not in the words"),
        pytest.param(["[UNK]"], ["zebra,"], "zebra,", id="unknown piece"),
        pytest.param(["b"], ["\ufb01b"], "b", id="same length"),
        pytest.param(["s"], ["Straße\u00a0s"], "Straße\u00a0s", id="other length"),
        pytest.param(["cat"], ["cat", "cat."], "cat", id="first place"),
    ],
)
def test_projection(tokenizer: Tokenizer, pieces: list[str], words: list[str], text: str) -> None:
    assert TextProjector(tokenizer).project(pieces, words) == text
    assert final_text(pieces, " ".join(words)) == text


def test_projection_that_fails_is_logged_when_verbose(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "twinquant"):
        TextProjector(tokenizer).project(["dog"], ["cat"])
        assert not caplog.records
        TextProjector(tokenizer, verbose=True).project(["dog"], ["cat"])
    assert "cannot find 'dog' in 'cat'" in caplog.text


@pytest.fixture
def make(write_squad: WriteSquad, tokenizer: Tokenizer) -> Callable[..., tuple[SquadExamples, SquadFeatures]]:
    def make_features(*contexts: str, length: int = 40, stride: int = 8) -> tuple[SquadExamples, SquadFeatures]:
        questions = [("who sat ?", "where"), ("what ?", "who")]
        path = write_squad(
            *[
                (context, [(f"{number}-{index}", text[0], []) for index, text in enumerate(questions)])
                for number, context in enumerate(contexts)
            ]
        )
        examples = read_squad_examples(path, is_training=False)
        return examples, make_squad_features(examples, tokenizer, length, stride, 3)

    return make_features


def plain_windows(features: SquadFeatures, tokenizer: Tokenizer, example: int, start: list, end: list) -> list[Window]:
    rows = np.flatnonzero(features.example_index == example)
    mask = features.max_context_mask(rows, int(features.lengths.max()))
    windows = []
    for row, owned in zip(rows, mask, strict=True):
        first = int(features.question_lengths[row]) + 2
        length = int(features.window_length[row])
        tokens = features.context_tokens(row, np.arange(first, first + length))
        windows.append(
            Window(
                pieces=[tokenizer.tokens[index] for index in features.contexts.ids[tokens]],
                words=features.contexts.words[tokens].tolist(),
                owned=owned[first : first + length].tolist(),
                first=first,
                start_logits=[float(value) for value in start[row][: features.lengths[row]]],
                end_logits=[float(value) for value in end[row][: features.lengths[row]]],
            )
        )
    return windows


@pytest.mark.parametrize("version_2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("levels", [4, 1000], ids=["many equal logits", "distinct logits"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_plain_loops(make: Callable, tokenizer: Tokenizer, version_2: bool, levels: int, seed: int) -> None:
    examples, features = make(
        CONTEXT, "Dog", CONTEXT + " " + CONTEXT, "\u200b", length=20 + 3 * seed, stride=1 + 3 * seed
    )
    rng = np.random.default_rng(seed)
    start, end = (rng.integers(0, levels, (len(features), 60)).astype(np.float32) * 9 / levels for _ in range(2))
    answers = predict_answers(examples, features, start, end, tokenizer, 5 + seed, 4 + seed, version_2)
    assert list(answers.predictions) == list(answers.nbest) == examples.ids
    for example, identifier in enumerate(examples.ids):
        windows = plain_windows(features, tokenizer, example, start, end)
        document = examples.paragraphs[examples.paragraph_index[example]]
        entries, odds = answers_by_loop(windows, document, 5 + seed, 4 + seed, version_2)
        found = answers.nbest[identifier]
        assert [list(entry) for entry in found] == [["text", "probability", "start_logit", "end_logit"]] * len(found)
        for name in ("text", "start_logit", "end_logit"):
            assert [entry[name] for entry in found] == [entry[name] for entry in entries]
        assert [entry["probability"] for entry in found] == pytest.approx([entry["probability"] for entry in entries])
        if answers.null_odds is not None:
            assert answers.null_odds[identifier] == pytest.approx(odds)


def test_padding_and_form_of_the_logits_do_not_matter(make: Callable, tokenizer: Tokenizer) -> None:
    examples, features = make(CONTEXT, "Dog ran", length=24)
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, len(features), 24)).astype(np.float32)
    expected = predict_answers(examples, features, start, end, tokenizer)
    short = [[row[:length] for row, length in zip(rows, features.lengths, strict=True)] for rows in (start, end)]
    assert predict_answers(examples, features, short[0], short[1], tokenizer) == expected
    beyond = np.arange(30) >= features.lengths[:, None]
    high = [np.where(beyond, np.nan, np.pad(rows, ((0, 0), (0, 6)))) for rows in (start, end)]
    assert predict_answers(examples, features, high[0], high[1], tokenizer) == expected


def test_chunks_do_not_matter(make: Callable, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    examples, features = make(CONTEXT, "Dog ran", CONTEXT, length=24)
    start, end = np.random.default_rng(0).normal(size=(2, len(features), 24))
    expected = predict_answers(examples, features, start, end, tokenizer, version_2_with_negative=True)
    monkeypatch.setattr("tasks.squad_answers.EXAMPLES_PER_CHUNK", 2)
    assert predict_answers(examples, features, start, end, tokenizer, version_2_with_negative=True) == expected


@pytest.mark.parametrize(("threshold", "text"), [(-1.5, ""), (-1.0, "Dog"), (0.0, "Dog")])
def test_null_threshold(make: Callable, tokenizer: Tokenizer, threshold: float, text: str) -> None:
    examples, features = make("Dog ran")
    start, end = np.zeros((2, len(features), 40))
    start[:, 0] = 1.0  # null score 1, against 2 for "Dog", the first context token
    start[0, features.question_lengths[0] + 2] = end[0, features.question_lengths[0] + 2] = 1.0
    answers = predict_answers(examples, features, start, end, tokenizer, 20, 30, True, threshold)
    assert answers.null_odds is not None and answers.null_odds["0-0"] == -1.0
    assert answers.predictions["0-0"] == text
    assert [entry["text"] for entry in answers.nbest["0-0"]].count("") == 1


@pytest.mark.parametrize("version_2", [False, True], ids=["v1", "v2"])
def test_no_possible_answer(make: Callable, tokenizer: Tokenizer, version_2: bool) -> None:
    """A window whose best positions are all outside the context, and a context without tokens."""
    examples, features = make("Dog ran", "\u200b")
    start, end = np.zeros((2, len(features), 40))
    start[:, 0] = end[:, 0] = 5.0
    answers = predict_answers(examples, features, start, end, tokenizer, 1, 30, version_2)
    assert set(answers.predictions.values()) == {"" if version_2 else "empty"}
    if version_2:
        assert answers.null_odds == dict.fromkeys(examples.ids, 1000000.0)
        assert answers.nbest["0-0"] == [{"text": "", "probability": 1.0, "start_logit": 5.0, "end_logit": 5.0}]


def test_only_pieceless_contexts(make: Callable, tokenizer: Tokenizer) -> None:
    examples, features = make("\u200b")
    answers = predict_answers(examples, features, np.zeros((0, 9)), np.zeros((0, 9)), tokenizer)
    assert answers.predictions == {"0-0": "empty", "0-1": "empty"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite(make: Callable, tokenizer: Tokenizer, value: float) -> None:
    examples, features = make("Dog ran")
    start, end = np.zeros((2, len(features), 40))
    end[1, 3] = value
    with pytest.raises(UserError, match="feature 1 are not finite"):
        predict_answers(examples, features, start, end, tokenizer)


def test_rows_that_do_not_fit(make: Callable, tokenizer: Tokenizer) -> None:
    examples, features = make("Dog ran")
    with pytest.raises(ValueError, match="end_logits has 1 rows; expected one for each of the 2"):
        predict_answers(examples, features, np.zeros((2, 40)), np.zeros((1, 40)), tokenizer)
    with pytest.raises(ValueError, match="row 0 of the logits has 3 positions"):
        predict_answers(examples, features, np.zeros((2, 3)), np.zeros((2, 3)), tokenizer)


def test_files(tmp_path: Path) -> None:
    entry = {"text": 'say "é"\n', "probability": 1e-9, "start_logit": -1.5, "end_logit": 3.0}
    answers = Answers({"b": "é", "a": ""}, {"b": [entry, entry], "a": [entry]}, {"b": 0.5, "a": -2.0})
    answers.write(tmp_path)
    for name, value in (
        ("predictions", answers.predictions), ("nbest_predictions", answers.nbest), ("null_odds", answers.null_odds),
    ):  # fmt: skip
        assert (tmp_path / f"{name}.json").read_text(encoding="ascii") == json.dumps(value, indent=4) + "\n"
    assert nbest_json({}) == "{\n\n}\n" and json.loads(nbest_json({})) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["predictions.json", "nbest_predictions.json", "null_odds.json"]
    )
