"""The calibration report: its numbers against the histograms', a page that needs no other file and stays small."""

import html.parser
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from quantization.calibration import METHODS, clipped_fraction, mean_squared_error
from quantization.histogram import Histogram, Observer
from quantization.modes import get_mode
from reports.calibration_numbers import CHOSEN, TensorNumbers, calibration_numbers
from reports.calibration_page import NUMBERS, PAGE, best_method, write_calibration_report
from reports.calibration_plots import BARS, bars
from twinquant.errors import UserError

pytest.importorskip("matplotlib")
LAYER = "bert/encoder/layer_{}"
INPUTS = [f"{LAYER}/attention/self/{name}/input_quantizer" for name in ("query", "key", "value")]
FACTS = {
    "checkpoint": "out/<model>.ckpt",
    "calib_method": "mse",
    "percentile": 99.9,
    "quant_mode": "ort",
    "batches": 2,
    "batch_size": 4,
    "data": "train.json",
}


@pytest.fixture(scope="module")
def numbers() -> list[TensorNumbers]:
    observer, rng = Observer(), np.random.default_rng(0)
    for layer in range(2):
        observer.observe([name.format(layer) for name in INPUTS], rng.standard_t(3, 20_000).astype(np.float32))
        probabilities = f"{LAYER.format(layer)}/attention/self/matmul_a_input_quantizer"
        observer.observe([probabilities], rng.random(20_000).astype(np.float32))
        observer.observe([f"{LAYER.format(layer)}/output/layernorm_input_quantizer"], np.zeros(9, np.float32))
    observer.observe(["bert/final_input_quantizer"], rng.standard_normal(20_000).astype(np.float32))
    ranges = {scope: np.float32(3.0) for scopes, _ in observer.groups() for scope in scopes}
    return calibration_numbers(observer, ranges, get_mode("ort"), 2, 99.9)


def test_numbers(numbers: list[TensorNumbers]) -> None:
    first = numbers[0]
    assert (first.name, first.layer, len(first.scopes)) == ("attention/self/query/input", 0, 3)
    assert set(first.choices) == {*METHODS, CHOSEN} and first.enabled == first.scopes
    for choice in first.choices.values():
        assert choice.clipped == clipped_fraction(first.histogram, choice.amax)
        assert choice.error == mean_squared_error(first.histogram, choice.amax)
    assert first.choices["max"].amax == pytest.approx(float(first.histogram.amax), rel=5e-4)
    assert first.choices["percentile"].clipped == pytest.approx(0.001, rel=0.2)
    assert first.choices[CHOSEN].amax == 3.0 and best_method(first) == "mse"
    assert numbers[1].choices[CHOSEN].amax == 1.0  # fixed by mode ort, whatever calibration found
    assert not numbers[2].enabled and numbers[2].share_of_error == 0.0
    assert numbers[-1].layer is None


class Reader(html.parser.HTMLParser):
    """Collects what the page refers to, and its rows and images; counts unbalanced tags."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.ids: set[str | None] = set()
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.rows += tag == "tr"
        self.images += [found] if tag == "img" else []
        self.links += [found["href"]] if "href" in found else []
        self.ids |= {found["id"]} if "id" in found else set()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page(numbers: list[TensorNumbers], tmp_path: Path) -> None:
    page = write_calibration_report(tmp_path / "report", numbers, FACTS)
    assert page == tmp_path / "report" / PAGE
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == [] and len(reader.images) == 3
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in reader.images)
    assert all(image["loading"] == "lazy" and image["width"] and image["height"] for image in reader.images)
    assert {str(link).removeprefix("#") for link in reader.links} == reader.ids  # nothing outside the page
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert reader.rows == 2 + len(numbers) + 1 + sum(bool(tensor.enabled) for tensor in numbers)
    assert "out/&lt;model&gt;.ckpt" in text and "percentile 99.9" in text and '<tr class="off">' in text
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == sorted([PAGE, NUMBERS, "layer_00.png", "layer_01.png", "model.png"])
    told = json.loads((tmp_path / "report" / NUMBERS).read_text())
    assert told["calib_method"] == "mse" and len(told["tensors"]) == len(numbers)
    assert told["tensors"][0]["choices"]["chosen"]["amax"] == 3.0
    # The size that the page keeps free is that of the image.
    data = (tmp_path / "report/layer_00.png").read_bytes()
    assert [str(number) for number in struct.unpack(">II", data[16:24])] == [
        reader.images[0]["width"],
        reader.images[0]["height"],
    ]
    # BERT-base has 13 such images, of 19 panels instead of 3.
    assert len(text) * 12 / 2 * 19 / 3 < 10e6
    again = write_calibration_report(tmp_path / "report", numbers, FACTS)
    assert again.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("largest", [0.0, 1e-30, 1.0, 1e30], ids=str)
def test_bars_hold_every_value(largest: float) -> None:
    histogram = Histogram()
    histogram.update(np.linspace(0, largest, 1000, dtype=np.float32))
    edges, counts = bars(histogram)
    assert counts.sum() == 1000 and len(edges) == len(counts) + 1 <= BARS + 1 and edges[-1] >= largest


def test_a_folder_that_cannot_be_written(numbers: list[TensorNumbers], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        write_calibration_report(tmp_path / "file/report", numbers, FACTS)
