"""Small inputs for whole runs of run_squad.py; all are made at test time and need no network."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import write_google_folder, write_squad_folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread for PyTorch, here and in started processes: more only wait for each other in a model this small."""
    import torch

    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(before)
    if variable is None:
        del os.environ["OMP_NUM_THREADS"]


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """fsync does nothing in this process: it matters where power is lost, and takes most of the time on a busy disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with squad_model/ (pre-trained, 128 positions) and squad_data/."""
    write_google_folder(tmp_path / "squad_model")
    write_squad_folder(tmp_path / "squad_data")
    return tmp_path
