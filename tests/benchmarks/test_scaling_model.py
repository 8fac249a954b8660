"""The arithmetic of docs/scaling.md on cases that were computed by hand."""

import math
from pathlib import Path

import pytest

from benchmarks.scaling_model import (
    MODELS,
    Assumptions,
    bucket_bytes,
    efficiency,
    exchange_seconds,
    markdown,
    prediction,
    ring_seconds,
    save_seconds,
    saving_share,
    tensor_bytes,
)

MIB = 2**20


@pytest.mark.parametrize(
    "ranks, latency, expected",
    [
        pytest.param(1, 0.5, 0.0, id="one rank sends nothing"),
        pytest.param(2, 0.0, 8.0, id="two ranks send the array once"),
        pytest.param(4, 0.0, 12.0, id="four ranks send it 2 * 3/4 times"),
        pytest.param(4, 0.5, 15.0, id="six messages, half a second each"),
    ],
)
def test_ring(ranks: int, latency: float, expected: float) -> None:
    assert ring_seconds(8e6, ranks, 1e6, latency) == pytest.approx(expected)


def test_buckets_are_the_products() -> None:
    assert bucket_bytes([3 * MIB, 3 * MIB, 5 * MIB, MIB], 6) == [6 * MIB, 6 * MIB]
    assert bucket_bytes([9 * MIB, MIB], 6) == [9 * MIB, MIB]


@pytest.mark.parametrize("half, expected", [(False, 0.001 + 0.016 + 0.008), (True, 0.001 + 0.040 + 0.004)])
def test_exchange_within_a_machine(half: bool, expected: float) -> None:
    assumed = Assumptions(inside=1e9, inside_latency=0.0, operation=1e-3, memory=1e9, between=1.0)
    assert exchange_seconds([8_000_000], 2, assumed, half) == pytest.approx(expected)
    assert exchange_seconds([8_000_000] * 3, 2, assumed, half) == pytest.approx(3 * expected)
    assert exchange_seconds([8_000_000], 1, assumed, half) == 0.0


def test_exchange_between_machines_goes_at_the_pace_of_their_link() -> None:
    assumed = Assumptions(
        gpus_per_machine=2, inside=math.inf, between=1e8, between_latency=1e-3, operation=0.0, memory=math.inf
    )
    # Agreement over a tree of 4: 2 * 2 messages of 1 ms. Ring: 6 messages of 2 MB at 20 ms, and 1 ms each.
    assert exchange_seconds([8_000_000], 4, assumed) == pytest.approx(0.004 + 6 * 0.021)


def test_efficiency() -> None:
    assert efficiency(0.06, 0.0) == 1.0
    assert efficiency(0.06, 0.06) == pytest.approx(0.5)
    assert efficiency(0.06, 0.06, micro_batches=3) == pytest.approx(0.75)


def test_saving() -> None:
    assumed = Assumptions(checksum=1e9, write=0.5e9)
    assert save_seconds(10**9, assumed) == pytest.approx(12 + 24)  # 4 bytes each of weight and two moments
    assert saving_share(10, 0.1, 1000, 1000) == pytest.approx(10 / 110)
    assert saving_share(10, 0.1, 1001, 1000) == pytest.approx(20 / 120.1)  # and one after the last step
    assert saving_share(10, 0.1, 50, 1000) == pytest.approx(10 / 15)


def test_size_of_the_models() -> None:
    assert sum(tensor_bytes(MODELS["BERT-base"])) == 4 * 108_893_186
    assert sum(tensor_bytes(MODELS["BERT-large"])) == 4 * 334_094_338


def test_steps_of_squad() -> None:
    assert prediction("BERT-base", 4, Assumptions())["steps"] == 5474  # as FasterTransformer's guide


def test_the_document_shows_the_table_of_the_default_assumptions() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/scaling.md").read_text(encoding="utf-8")
    assert markdown(Assumptions()) in text
