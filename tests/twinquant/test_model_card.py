"""Model cards: read by Hugging Face's own parser, never in the place of somebody's own README."""

import dataclasses
from pathlib import Path

import pytest

from twinquant.model_card import Card, is_ours, make_card, write_card

NAME = 'a "strange": name'
CARD = Card(
    name=NAME,
    head="classification",
    summary="BERT.",
    facts={"Classes": "yes | no", "Began with": "out/model.ckpt-1"},
    library="transformers",
    tags=["int8"],
    data="glue/mrpc",
    scores={"acc": 0.5, "mcc": -0.25, "f1_mm": 1.0},
    command="python run_glue.py --do_train",
    packages=("numpy", "not_installed"),
)


def test_hugging_face_reads_it(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    assert write_card(tmp_path, make_card(CARD))
    data = hub.ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False).data
    assert data.library_name == "transformers" and data.pipeline_tag == "text-classification"
    assert data.tags == ["bert", "int8"] and data.license is None and data.model_name == NAME
    found = {(result.metric_type, result.metric_name): result.metric_value for result in data.eval_results}
    assert found == {("accuracy", "acc"): 0.5, ("matthews_correlation", "mcc"): -0.25, ("f1_mm", "f1_mm"): 1.0}
    assert {result.dataset_name for result in data.eval_results} == {"glue/mrpc"}


def test_scores_of_a_part_are_not_the_data_sets() -> None:
    """The hub would show those of the header beside everybody's."""
    hub = pytest.importorskip("huggingface_hub")
    text = make_card(dataclasses.replace(CARD, part="the first 32 examples"))
    assert "On the first 32 examples of glue/mrpc:" in text and "| acc | 0.5000 |" in text
    assert hub.ModelCard(text).data.eval_results is None


def test_a_card_without_scores_claims_none(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = make_card(Card(name="m", head="question_answering", summary="BERT.", facts={}))
    data = hub.ModelCard(text).data
    assert data.eval_results is None and data.library_name is None
    assert "None were known when this card was written." in text


def test_what_a_reader_sees() -> None:
    text = make_card(CARD)
    assert "| Classes | yes \\| no |" in text and "| acc | 0.5000 |" in text
    assert "```\npython run_glue.py --do_train\n```" in text
    assert "numpy " in text and "not_installed" not in text
    assert make_card(CARD) == text  # nothing in it changes with the time


def test_somebody_s_own_readme_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n")
    assert not write_card(tmp_path, make_card(CARD))
    assert (tmp_path / "README.md").read_text() == "# Mine\n"


def test_a_card_is_written_anew_until_somebody_makes_it_their_own(tmp_path: Path) -> None:
    write_card(tmp_path, make_card(CARD))
    other = make_card(Card(name="other", head="classification", summary="x", facts={}))
    assert write_card(tmp_path, other)
    path = tmp_path / "README.md"
    assert path.read_text() == other and is_ours(path) and is_ours(path, "other") and not is_ours(path, NAME)
    path.write_text("\n".join(line for line in other.splitlines() if not line.startswith("<!--")))
    assert not write_card(tmp_path, make_card(CARD))
