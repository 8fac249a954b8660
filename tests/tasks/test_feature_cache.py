"""The cache gives the same features back, and never stale or damaged ones."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.feature_cache import cached_features, features_key
from tasks.squad_examples import read_squad_examples
from tasks.squad_features import SquadFeatures, make_squad_features
from tasks.tokenization import TokenizedTexts, Tokenizer
from twinquant.errors import UserError


@pytest.fixture(params=[True, False], ids=["training", "prediction"])
def features(request: pytest.FixtureRequest, write_squad: Callable[..., Path], tokenizer: Tokenizer) -> SquadFeatures:
    path = write_squad(("the cat sat on the mat", [("a", "who", [("cat", 4)]), ("b", "where", [("mat", 19)])]))
    return make_squad_features(read_squad_examples(path, request.param), tokenizer, 8, 2, 2)


def refuse() -> SquadFeatures:
    raise AssertionError("made anew")


def assert_same(first: SquadFeatures, second: SquadFeatures) -> None:
    for field in dataclasses.fields(SquadFeatures):
        one, other = getattr(first, field.name), getattr(second, field.name)
        pairs = [(one, other)]
        if isinstance(one, TokenizedTexts):
            pairs = [(one.ids, other.ids), (one.words, other.words), (one.offsets, other.offsets)]
        for left, right in pairs:
            assert type(left) is type(right), field.name
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype and left.tolist() == right.tolist(), field.name
            else:
                assert left == right, field.name


def test_same_features_come_back(tmp_path: Path, features: SquadFeatures) -> None:
    folder = tmp_path / "new" / "cache"
    assert cached_features(folder, "k1", lambda: features) is features
    assert_same(cached_features(folder, "k1", refuse), features)
    with pytest.raises(AssertionError, match="made anew"):
        cached_features(folder, "k2", refuse)
    with pytest.raises(AssertionError, match="made anew"):
        cached_features(folder, "k1", refuse, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["squad-features-k1.npz"]


def test_damaged_files_are_made_anew(tmp_path: Path, features: SquadFeatures, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever byte changes and wherever the file ends, the features are right; most damage is noticed and said."""
    cached_features(tmp_path, "k", lambda: features)
    (path,) = tmp_path.glob("*.npz")
    good = path.read_bytes()
    damaged = [good[:length] for length in range(0, len(good), 97)]
    damaged += [good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :] for place in range(0, len(good), 13)]
    rebuilt = 0
    for content in damaged:
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "twinquant"):
            assert_same(cached_features(tmp_path, "k", lambda: features), features)
        if caplog.records:
            assert "is damaged" in caplog.text and str(path) in caplog.text
            assert path.read_bytes() == good
            rebuilt += 1
    assert rebuilt > len(damaged) * 0.6  # the rest changed what carries no data, such as a file's date


def test_features_of_another_key_are_not_taken(tmp_path: Path, features: SquadFeatures) -> None:
    cached_features(tmp_path, "k1", lambda: features)
    (tmp_path / "squad-features-k1.npz").rename(tmp_path / "squad-features-k2.npz")
    with pytest.raises(AssertionError, match="made anew"):
        cached_features(tmp_path, "k2", refuse)


def test_key_changes_with_everything(tmp_path: Path, vocab_file: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text("{}")
    settings = {"do_lower_case": True, "max_seq_length": 384, "max_examples": None}
    first = features_key(data, vocab_file, **settings)
    assert first == features_key(data, vocab_file, **settings) and len(first) == 64
    keys = {first, features_key(data, vocab_file, **settings | {"do_lower_case": False})}
    keys.add(features_key(data, vocab_file, **settings | {"max_seq_length": 128}))
    keys.add(features_key(data, vocab_file, **settings | {"max_examples": 8}))
    data.write_text("{ }")
    keys.add(features_key(data, vocab_file, **settings))
    vocab_file.write_text("[PAD]\n")
    keys.add(features_key(data, vocab_file, **settings))
    assert len(keys) == 6


def test_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        cached_features(tmp_path / "file", "k", refuse)
