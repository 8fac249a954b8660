"""A damaged file is read, or refused in one sentence that names it: no other exception, no hang, no flood of memory.

`make fuzz` does this for minutes, with another seed each time; the default suite repeats the same few examples.
"""

import contextlib
import gc
import io
import logging
import os
import random
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from readers import READERS, Reader, prepare

from twinquant.errors import UserError
from twinquant.main import sentence_of

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
EXAMPLES = 24  # of each way to damage a file, without FUZZ_MINUTES
SECONDS = 10  # for one example, on a machine that others use too
MEGABYTES = 400

WAYS = [(name, way) for name, reader in READERS.items() for way in reader.ways]


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """TimeoutError after SECONDS; AssertionError where the process's largest memory grew by more than MEGABYTES."""

    def ring(signum: int, frame: object) -> None:
        raise TimeoutError(f"not read within {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"reading took {grown:.0f} MB"


def read(reader: Reader, folder: Path, data: bytes) -> None:
    """Reads the file with that content; the folder is then as it was."""
    path = folder / reader.file
    intact = path.read_bytes()
    path.write_bytes(data)
    try:
        with limits(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except (UserError, OSError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        assert path.name in sentence or str(path.parent) in sentence, sentence
    finally:
        path.write_bytes(intact)


@pytest.fixture(scope="module", autouse=True)
def _objects_of_other_tests() -> Iterator[None]:
    """They are left out of collections: a check makes some, and hundreds of tests before make each take seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The valid files of a reader, made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("files") / "in"
            prepare(READERS[name], made[name])
        return made[name]

    return folder


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("name", "way"), WAYS, ids=[f"{name}-{way.__name__}" for name, way in WAYS])
def test_damaged_files(name: str, way: Callable[[Random, bytes], bytes], folders: Callable[[str], Path]) -> None:
    pytest.importorskip("torch")
    reader = READERS[name]
    folder = folders(name)
    intact = (folder / reader.file).read_bytes()
    if MINUTES:
        until, tried, found = time.monotonic() + 60 * MINUTES / len(WAYS), 0, {}
        while time.monotonic() < until:
            seed, tried = random.SystemRandom().randrange(1 << 32), tried + 1
            try:
                read(reader, folder, way(Random(seed), intact))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                found.setdefault(f"{last.filename}:{last.lineno}", f"{error!r:.300} (Random({seed}))")
        print(f"{tried} files tried")
        assert not found, f"{tried} files tried: {found}"
        return

    @settings(
        max_examples=max(2, EXAMPLES // reader.slow), deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.randoms(use_true_random=False))
    def run(rng: Random) -> None:
        read(reader, folder, way(rng, intact))

    run()
