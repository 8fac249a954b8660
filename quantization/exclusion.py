"""Quantizers that are left in float: the patterns of --quant_exclude, and the file that holds them."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from quantization.modes import Mode, enabled_quantizers
from twinquant.errors import UserError

FLAG = "--quant_exclude"


def exclude(mode: Mode, words: Sequence[str], num_hidden_layers: int) -> Mode:
    """The mode without the quantizers that the words name.

    Args:
        words: each is the name of a file of patterns, if there is such a file, else a pattern (see `matches`).
        num_hidden_layers: of the model; quantizers outside the encoder, which only q8bert has, are not named.

    Raises UserError for a file that cannot be read, and for a pattern that names no quantizer which the mode turns on:
    a misspelled name must not leave quantized what the user wants in float.
    """
    scopes = list(enabled_quantizers(num_hidden_layers, mode))
    excluded: set[str] = set()
    for pattern, source in _patterns(words):
        found = [scope for scope in scopes if matches(pattern, scope)]
        if not found:
            kind = "" if source else ", which is no file either,"
            example = next((scope for scope in scopes if scope.endswith("input_quantizer")), scopes[0])
            raise UserError(
                f"{FLAG}: {source}the pattern {pattern!r}{kind} matches no quantizer that mode {mode.name} turns on in "
                f"a model of {num_hidden_layers} layers; expected a name or a part of one, such as {example}"
            )
        excluded.update(found)
    return dataclasses.replace(mode, excluded=mode.excluded | excluded)


def matches(pattern: str, scope: str) -> bool:
    """Whether a pattern names a quantizer.

    A pattern is a scope or whole parts of one between slashes: `layer_5` names all quantizers of that layer,
    `layer_*/output/dense/input_quantizer` one of each layer. `*` and `?` stand for characters other than a slash, `**`
    for any.
    """
    translated = re.escape(pattern.strip("/")).replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.search(f"/{translated}/", f"/{scope}/") is not None


def exclusion_file(scopes: Iterable[str], comments: Sequence[str] = ()) -> str:
    """The text of a file that excludes those quantizers; every comment becomes a line of its own."""
    return "".join(f"# {comment}\n" for comment in comments) + "".join(f"{scope}\n" for scope in scopes)


def _patterns(words: Sequence[str]) -> list[tuple[str, str]]:
    """Every pattern with the place in a file that it comes from, which is empty for one of the command line."""
    patterns = []
    for word in words:
        if not Path(word).is_file():
            patterns.append((word, ""))
            continue
        try:
            lines = Path(word).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"{FLAG}: cannot read {word}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{FLAG}: {word} is not UTF-8 text; expected one pattern a line") from error
        for number, line in enumerate(lines, start=1):
            if pattern := line.partition("#")[0].strip():
                patterns.append((pattern, f"line {number} of {word}: "))
    return patterns
