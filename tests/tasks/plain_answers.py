"""The answer rules of BERT's run_squad.py as plain loops over one question, an independent reference for tests."""

import math
import unicodedata
from dataclasses import dataclass


@dataclass
class Window:
    """One window of a question: row positions first .. first + len(words) - 1 hold context tokens."""

    pieces: list[str]
    words: list[int]
    owned: list[bool]
    first: int
    start_logits: list[float]
    end_logits: list[float]


def best_positions(logits: list[float], count: int) -> list[int]:
    return sorted(range(len(logits)), key=lambda position: -logits[position])[:count]


def answers_by_loop(
    windows: list[Window], document: list[str], n_best: int, max_length: int, version_2: bool
) -> tuple[list[dict], float | None]:
    """The n-best list with texts, and the null odds (version 2)."""
    found = []
    null_score, null = 1000000.0, (0.0, 0.0)
    for window in windows:
        if version_2 and window.start_logits[0] + window.end_logits[0] < null_score:
            null = (window.start_logits[0], window.end_logits[0])
            null_score = sum(null)
        for start in best_positions(window.start_logits, n_best):
            for end in best_positions(window.end_logits, n_best):
                inside = window.first <= start <= end < window.first + len(window.words)
                if inside and window.owned[start - window.first] and end - start < max_length:
                    found.append((window.start_logits[start], window.end_logits[end], window, start, end))
    if version_2:
        found.append((*null, None, 0, 0))
    found.sort(key=lambda entry: -(entry[0] + entry[1]))
    entries: list[dict] = []
    for start_logit, end_logit, window, start, end in found:
        if len(entries) == n_best:
            break
        text = ""
        if window is not None:
            span = slice(start - window.first, end - window.first + 1)
            words = window.words[span]
            text = final_text(window.pieces[span], " ".join(document[words[0] : words[-1] + 1]))
        if all(entry["text"] != text for entry in entries):
            entries.append({"text": text, "start_logit": start_logit, "end_logit": end_logit})
    if version_2 and all(entry["text"] for entry in entries):
        entries.append({"text": "", "start_logit": null[0], "end_logit": null[1]})
    if not entries:
        entries.append({"text": "empty", "start_logit": 0.0, "end_logit": 0.0})
    total = sum(math.exp(entry["start_logit"] + entry["end_logit"]) for entry in entries)
    for entry in entries:
        entry["probability"] = math.exp(entry["start_logit"] + entry["end_logit"]) / total
    if not version_2:
        return entries, None
    filled = [entry for entry in entries if entry["text"]]
    odds = null_score - filled[0]["start_logit"] - filled[0]["end_logit"] if filled else 1000000.0
    return entries, odds


def final_text(pieces: list[str], original: str) -> str:
    """Aligns pieces with the original character by character."""
    predicted = ""
    for piece in pieces:
        predicted += piece[2:] if piece.startswith("##") else " " + piece
    predicted = predicted.strip()
    tokenized = " ".join(basic_tokens(original))
    start = tokenized.find(predicted)
    visible = [index for index, character in enumerate(original) if character != " "]
    tokenized_visible = [index for index, character in enumerate(tokenized) if character != " "]
    if start < 0 or len(visible) != len(tokenized_visible):
        return original
    places = dict(zip(tokenized_visible, visible, strict=True))
    return original[places[start] : places[start + len(predicted) - 1] + 1]


def basic_tokens(text: str) -> list[str]:
    lowered = unicodedata.normalize("NFD", text.lower())
    spaced = ""
    for character in lowered:
        category = unicodedata.category(character)
        if category in ("Mn", "Cf", "Cc"):
            continue
        ascii_mark = character.isascii() and not character.isalnum() and not character.isspace()
        spaced += f" {character} " if ascii_mark or category.startswith("P") else character
    return spaced.split()
