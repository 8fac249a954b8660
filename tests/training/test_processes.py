"""What the processes of a run exchange and do in turn, with threads in the place of processes."""

import threading
import time

import numpy as np
import pytest
from test_training_calibration import CONFIG, FEATURES, LONGEST, TENSORS
from thread_collectives import ThreadCollectives, run_ranks
from tiny_bert import ToyFeatures, make_backend

from training.calibration import observe
from training.prediction import predict_all
from training.processes import ALONE, PeerFailed, checksum
from training.watchdog import Watchdog
from twinquant.errors import UserError


def test_one_process_alone_exchanges_nothing():
    assert (ALONE.rank, ALONE.size, ALONE.is_first) == (0, 1, True)
    assert ALONE.gather({"a": 1}, "x") == [{"a": 1}] and ALONE.share([2], "x") == [2]
    assert ALONE.first(lambda: 3) == ALONE.in_turns(lambda: 3) == ALONE.together(lambda: 3) == 3
    with pytest.raises(UserError, match="own"):
        ALONE.first(lambda: _raise(UserError("own")))


def _raise(error):
    raise error


def test_values_of_all_ranks():
    found = run_ranks(3, lambda p: (p.gather({"rank": p.rank}, "g"), p.share(p.rank + 7, "s"), p.stack(
        np.array([p.rank, 1.0]), "t").tolist()))  # fmt: skip
    assert found == [([{"rank": 0}, {"rank": 1}, {"rank": 2}], 7, [[0, 1], [1, 1], [2, 1]])] * 3


def test_bytes_of_different_lengths():
    found = run_ranks(3, lambda p: p.gather_bytes(b"ab" * p.rank, "g"))
    assert found == [[b"", b"ab", b"abab"]] * 3


def test_arrays_of_rank_0():
    """Also of shape () and without elements; what the others give does not matter."""
    arrays = {"scalar": np.float32(0.1), "none": np.empty((0, 3), np.int32), "matrix": np.arange(6.0).reshape(2, 3)}
    for rank, found in enumerate(run_ranks(2, lambda p: p.share_arrays(arrays if p.is_first else {}, "a"))):
        assert found.keys() == arrays.keys(), rank
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def test_together_waits_for_the_slowest():
    ends = {}

    def work(processes):
        result = processes.together((lambda: time.sleep(0.7)) if processes.rank == 1 else None)
        ends[processes.rank] = time.monotonic()
        return result

    started = time.monotonic()
    assert run_ranks(3, work) == [None] * 3
    assert all(0.6 < end - started for end in ends.values())


@pytest.mark.parametrize(("error", "code"), [(UserError("full disk"), 2), (KeyError("bug"), 1)], ids=["user", "defect"])
def test_an_error_of_one_rank_stops_all(error, code):
    found = run_ranks(3, lambda p: p.together(lambda: _raise(error) if p.rank == 1 else p.rank))
    assert found[1] is error
    for other in (found[0], found[2]):
        assert isinstance(other, PeerFailed) and other.exit_code == code and "rank 1" in str(other)


@pytest.mark.parametrize(
    ("machines", "expected"), [(1, [{0}, {1, 2, 3}]), (2, [{0}, {2}, {1, 3}])], ids=["one-machine", "two-machines"]
)
def test_turns(machines, expected):
    """Rank 0, then the first of the other machine, then the rest; nobody begins before a turn is over."""
    log, lock = [], threading.Lock()

    def work(processes):
        def make():
            with lock:
                log.append(("begin", processes.rank))
            time.sleep(0.05)
            with lock:
                log.append(("end", processes.rank))
            return processes.rank

        return processes.in_turns(make)

    assert run_ranks(4, work, machines) == [0, 1, 2, 3]
    position = 0
    for turn in expected:
        part = log[position : position + 2 * len(turn)]
        assert {rank for _, rank in part} == turn
        position += len(part)


def test_unequal_tensors_are_named_on_every_rank():
    def check(processes):
        tensors = {"query": np.ones(3), "value": np.full(3, 2.0 + (processes.rank == 2))}
        processes.check_equal({"query": tensors["query"]}, "parameters")
        processes.check_equal(tensors, "parameters")

    for found in run_ranks(3, check):
        assert isinstance(found, UserError)
        assert str(found) == "parameters: value of rank 2 is not equal to that of rank 0"


def test_a_missing_tensor_is_named():
    found = run_ranks(2, lambda p: p.check_equal({"a": np.ones(1)} | ({} if p.rank else {"b": np.ones(1)}), "what"))
    assert all("rank 1 has 1 tensors, rank 0 has 2" in str(error) for error in found)


def test_checksums_tell_values_shapes_and_types_apart():
    a = np.arange(6, dtype=np.float32)
    others = [a.reshape(2, 3), a.view(np.int32), np.nextafter(a, 7), np.append(a, 0)]
    assert len({checksum(a), *map(checksum, others)}) == 5
    assert checksum(a) == checksum(np.arange(12, dtype=np.float32)[::2] / 2)


@pytest.mark.parametrize("size", [2, 3])
def test_ranges_are_those_of_one_process(backend_name, size):
    """Five batches over the ranks: the same groups, counts and maxima, to the bit."""
    alone = observe(make_backend(backend_name, CONFIG, TENSORS), FEATURES, 4, 5, LONGEST)
    backends = [make_backend(backend_name, CONFIG, TENSORS) for _ in range(size)]
    for found in run_ranks(size, lambda p: observe(backends[p.rank], FEATURES, 4, 5, LONGEST, processes=p)):
        assert found.to_dict() == alone.to_dict()


class Echo:
    """Its logits tell which row they belong to; it remembers how many rows it was given."""

    rows = 0

    def predict(self, batch):
        self.rows += len(batch["input_ids"])
        return {
            "start_logits": batch["input_ids"].astype(np.float32),
            "end_logits": batch["segment_ids"].astype(np.float32),
        }


@pytest.mark.parametrize("size", [2, 5, 9])
def test_predictions_are_those_of_one_process(size):
    """26 rows in batches of 4, with more ranks than batches too."""
    features = ToyFeatures(CONFIG, 26)
    alone = predict_all(Echo(), features, 4, 24, quiet=True)
    models = [Echo() for _ in range(size)]
    for found in run_ranks(size, lambda p: predict_all(models[p.rank], features, 4, 24, quiet=True, processes=p)):
        assert found.keys() == alone.keys()
        for name, rows in alone.items():
            for one, other in zip(found[name], rows, strict=True):
                np.testing.assert_array_equal(one, other)
    assert sum(model.rows for model in models) == 28  # every batch once


def test_different_data_is_refused():
    def work(processes):
        return predict_all(Echo(), ToyFeatures(CONFIG, 8, seed=processes.rank), 4, 24, quiet=True, processes=processes)

    for found in run_ranks(2, work):
        assert isinstance(found, UserError) and "different data" in str(found)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([4, 4, 4], [2, 1]), ([9, 1], [1, 1]), ([1] * 5, [5]), ([20, 20], [1, 1])],
    ids=["two-fit", "large-first", "all-fit", "larger-than-a-bucket"],
)
def test_buckets(sizes, expected):
    collectives = ThreadCollectives(0, [None], threading.Barrier(1))
    collectives.bucket_bytes = 9
    buckets = collectives.buckets(sizes)
    assert [len(sizes[bucket]) for bucket in buckets] == expected
    assert [size for bucket in buckets for size in sizes[bucket]] == sizes


def test_the_watchdog_ends_a_process_that_waits_too_long(tmp_path):
    import subprocess
    import sys

    code = (
        "import time\nfrom training.watchdog import Watchdog\nwatchdog = Watchdog(1.0)\n"
        "with watchdog.watching('short'):\n    time.sleep(0.1)\ntime.sleep(2.5)\nprint('alive', flush=True)\n"
        "with watchdog.watching('gradients'):\n    time.sleep(60)\n"
    )
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=30)
    assert done.returncode == 75 and done.stdout == "alive\n"
    assert "waited" in done.stderr and "(gradients)" in done.stderr and "Traceback" not in done.stderr


def test_without_a_limit_nothing_watches():
    before = threading.active_count()
    with Watchdog(None).watching("x"):
        assert threading.active_count() == before
