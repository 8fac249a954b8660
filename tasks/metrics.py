"""Scores of answers as the official SQuAD evaluation scripts (v1.1 and v2.0) compute them, in percent."""

from __future__ import annotations

import logging
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger("twinquant")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

Metric = Callable[[str, str], float]


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an, the, single spaces between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_score(prediction: str, gold: str) -> float:
    """1.0 where the normalized texts are equal, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1_score(prediction: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the words of the normalized texts; 0.0 where they share none."""
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(gold).split()
    shared = sum((Counter(predicted) & Counter(expected)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def f1_score_with_empty(prediction: str, gold: str) -> float:
    """As `f1_score`, but 1.0 where both texts are empty after normalization (version 2.0's rule)."""
    if not normalize_answer(prediction) or not normalize_answer(gold):
        return exact_score(prediction, gold)
    return f1_score(prediction, gold)


def squad_v1_metrics(gold_answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> dict[str, float]:
    """{"exact_match", "f1"}: mean over all questions of the best score against any of the question's gold answers.

    gold_answers: question id to its texts, at least one each. A question without a prediction scores 0, with one
    warning for all of them.
    """
    unanswered = [identifier for identifier in gold_answers if identifier not in predictions]
    if unanswered:
        logger.warning("%d question(s) have no prediction and score 0; the first is %s", len(unanswered), unanswered[0])
    exact = f1 = 0.0
    for identifier, golds in gold_answers.items():
        if identifier in predictions:
            exact += max(exact_score(predictions[identifier], gold) for gold in golds)
            f1 += max(f1_score(predictions[identifier], gold) for gold in golds)
    return {"exact_match": 100.0 * exact / len(gold_answers), "f1": 100.0 * f1 / len(gold_answers)}


def squad_v2_metrics(
    gold_answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The official version 2.0 scores, where an empty prediction means "no answer" and a question may have none.

    Keys: exact, f1, total; HasAns_* and NoAns_* of the same where there are such questions; with `null_odds` also
    best_exact, best_exact_thresh, best_f1, best_f1_thresh, the best scores that some threshold on the odds would give
    (answers that are already "" stay so); and exact_match, equal to exact. Questions without a prediction are not
    counted, as in the official script, with one warning.
    """
    missing = [identifier for identifier in gold_answers if identifier not in predictions]
    if missing:
        logger.warning(
            "%d question(s) have no prediction and are not counted; the first is %s", len(missing), missing[0]
        )
    answered = [identifier for identifier in gold_answers if identifier in predictions]
    has_answer = {identifier: bool(golds) for identifier, golds in gold_answers.items()}
    exact = {key: _best(exact_score, predictions[key], gold_answers[key]) for key in answered}
    f1 = {key: _best(f1_score_with_empty, predictions[key], gold_answers[key]) for key in answered}

    metrics = _means("", exact, f1, answered)
    metrics |= _means("HasAns_", exact, f1, [key for key in answered if has_answer[key]])
    metrics |= _means("NoAns_", exact, f1, [key for key in answered if not has_answer[key]])
    if null_odds is not None and answered:
        for name, scores in (("exact", exact), ("f1", f1)):
            best, threshold = _best_threshold(scores, predictions, has_answer, null_odds)
            metrics |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    metrics["exact_match"] = metrics.get("exact", 0.0)
    return metrics


def _best(metric: Metric, prediction: str, golds: Sequence[str]) -> float:
    """The best score against the gold answers; golds that normalize to nothing, or none at all, count as ""."""
    return max(metric(prediction, gold) for gold in [gold for gold in golds if normalize_answer(gold)] or [""])


def _means(prefix: str, exact: Mapping[str, float], f1: Mapping[str, float], keys: Sequence[str]) -> dict[str, float]:
    if not keys:
        return {}
    return {
        f"{prefix}exact": 100.0 * sum(exact[key] for key in keys) / len(keys),
        f"{prefix}f1": 100.0 * sum(f1[key] for key in keys) / len(keys),
        f"{prefix}total": len(keys),
    }


def _best_threshold(
    scores: Mapping[str, float],
    predictions: Mapping[str, str],
    has_answer: Mapping[str, bool],
    null_odds: Mapping[str, float],
) -> tuple[float, float]:
    """(best score in percent, threshold): questions whose odds exceed the threshold are taken as "no answer".

    Begins with "no answer" everywhere and admits the predictions in the order of their odds.
    """
    current = best = float(sum(not answer for answer in has_answer.values()))
    threshold = 0.0
    for key in sorted(null_odds, key=lambda key: null_odds[key]):
        if key not in scores:
            continue
        if has_answer[key]:
            current += scores[key]
        elif predictions[key]:
            current -= 1.0
        if current > best:
            best, threshold = current, null_odds[key]
    return 100.0 * best / len(scores), threshold
