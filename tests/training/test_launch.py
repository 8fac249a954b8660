"""Several processes are started on purpose, find each other, and share a machine's cores."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest
from thread_collectives import run_ranks

from training import launch as launching
from training.launch import launch, prepare_environment, started_processes, threads_per_process
from training.processes import ALONE
from twinquant.errors import UserError
from twinquant.messages import rank_of_launch
from twinquant.squad_flags import parse_squad_flags

VARIABLES = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "HOROVOD_SIZE", "WORLD_SIZE"]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name in ("bert_config.json", "vocab.txt", "dev.json", "x.ckpt.index", "x.ckpt.data-00000-of-00001"):
        (tmp_path / name).write_text("")
    return parse_squad_flags(
        ["--do_predict", f"--bert_config_file={tmp_path}/bert_config.json", f"--vocab_file={tmp_path}/vocab.txt",
         f"--predict_file={tmp_path}/dev.json", f"--init_checkpoint={tmp_path}/x.ckpt", f"--output_dir={tmp_path}/out"]
    )  # fmt: skip


@pytest.mark.parametrize("variable", VARIABLES)
def test_several_processes_without_horovod_are_refused(settings, monkeypatch, variable):
    monkeypatch.setenv(variable, "4")
    with pytest.raises(UserError, match=rf"one of 4 processes \({variable}=4\).*give --horovod"):
        launch(settings, "pytorch")


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"PMI_SIZE": "many"}])
def test_a_single_process_goes_on(settings, monkeypatch, environment):
    assert started_processes(environment) == (1, "")
    assert launch(settings, "pytorch") == (ALONE, [])
    processes, (note,) = launch(dataclasses.replace(settings, horovod=True), "pytorch")
    assert processes is ALONE and note.startswith("note: --horovod: this is a single process; mpirun -np N or")


def test_a_guides_command_for_several_processes_is_told_what_one_does_differently(settings):
    training = dataclasses.replace(
        settings, horovod=True, do_train=True, train_batch_size=8, num_accumulation_steps=2, learning_rate=5e-6
    )
    _, (note,) = launch(dataclasses.replace(training, scale_learning_rate=True), "pytorch")
    assert "an update is of 16 examples, not of N times as many, and the learning rate is 5e-06, not N times" in note
    assert note.endswith("multiply --train_batch_size or --num_accumulation_steps and --learning_rate by N.")
    _, (note,) = launch(dataclasses.replace(training, scale_learning_rate=False), "pytorch")
    assert note.endswith("multiply --train_batch_size or --num_accumulation_steps by N.")
    _, (note,) = launch(dataclasses.replace(settings, horovod=True, do_train=False), "pytorch")
    assert note.endswith("mpirun -np N or horovodrun -np N starts several.")


def test_horovod_is_imported_only_where_several_processes_use_it(settings):
    launch(dataclasses.replace(settings, horovod=True), "pytorch")
    assert "horovod" not in sys.modules


@pytest.mark.parametrize("backend", ["pytorch", "tensorflow"])
def test_without_horovod_one_sentence_says_how_to_install_it(settings, monkeypatch, backend):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    for name in ("horovod", "horovod.torch", "horovod.tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "HOROVOD_FUSION_THRESHOLD",
                 "HOROVOD_STALL_CHECK_TIME_SECONDS", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"):  # fmt: skip
        monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match=r"--horovod: Horovod for .* `make horovod` builds and installs it into "):
        launch(dataclasses.replace(settings, horovod=True), backend)


def test_another_mpi_is_noticed(settings, monkeypatch):
    """Horovod that was built for another MPI finds one process, N times, and would train N models."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(launching, "prepare_environment", lambda settings: 1.0)
    monkeypatch.setattr(launching, "create_collectives", lambda *arguments: SimpleNamespace(size=1, rank=0))
    with pytest.raises(UserError, match="OMPI_COMM_WORLD_SIZE says that 2 processes were started, but Horovod finds 1"):
        launch(dataclasses.replace(settings, horovod=True), "pytorch")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"learning_rate": 1e-3}, r"learning_rate: 0.001 there, 5e-06 on rank 0"), ({"device": "cuda:1"}, None)],
    ids=["learning-rate", "device"],
)
def test_different_flags_are_refused(settings, changes, message):
    def check(processes):
        own = dataclasses.replace(settings, **(changes if processes.rank == 1 else {}))
        launching._check_equal_start(processes, own, "pytorch")

    for found in run_ranks(3, check):
        if message is None:
            assert found is None
        else:
            assert isinstance(found, UserError) and "rank 1 was started with other settings" in str(found)
            assert message in str(found)


@pytest.mark.parametrize(
    ("usable", "of_parent", "local_size", "expected"),
    [(8, 8, 4, 2), (8, 8, 3, 2), (2, 2, 4, 1), (1, 8, 8, 1), (2, 8, 4, 2)],
    ids=["divided", "rounded-down", "more-processes-than-cores", "bound-to-a-core", "bound-to-two"],
)
def test_threads(usable, of_parent, local_size, expected):
    assert threads_per_process({"OMPI_COMM_WORLD_LOCAL_SIZE": str(local_size)}, usable, of_parent) == expected


@pytest.mark.parametrize(
    ("of_parent", "expected"), [(range(2), 1), (range(64), 2)], ids=["two-cores-of-a-container", "bound-by-mpirun"]
)
def test_fewer_cores_than_the_machine_has_are_not_taken_for_a_binding(monkeypatch, of_parent, expected):
    """Two processes on two cores that they share compute with one thread each, on a machine of 64."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(2) if process == 0 else of_parent))
    assert threads_per_process({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}) == expected


def test_what_the_user_has_set_stays(settings):
    environment = {"OMP_NUM_THREADS": "3", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "90", "HOROVOD_CYCLE_TIME": "2"}
    assert prepare_environment(settings, environment) == 100.0
    assert environment["OMP_NUM_THREADS"] == "3" and environment["HOROVOD_CYCLE_TIME"] == "2"
    assert environment["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "15"
    assert environment["OMPI_MCA_mpi_yield_when_idle"] == "1"


def test_flags_about_stalls(settings):
    environment = {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "99"}  # a flag that is given counts for more
    own = dataclasses.replace(
        settings, stall_check_warning_time_seconds=3.0, stall_check_shutdown_time_seconds=7.0, cycle_time_ms=2.5,
        explicit=settings.explicit | {"stall_check_shutdown_time_seconds"},
    )  # fmt: skip
    assert prepare_environment(own, environment) == 17.0
    assert environment["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "3"
    assert environment["HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"] == "7"
    assert environment["HOROVOD_CYCLE_TIME"] == "2.5"
    assert prepare_environment(dataclasses.replace(settings, use_xla=True), {}) == 310.0
    assert prepare_environment(settings, {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "0"}) is None  # Horovod's "no limit"
    with pytest.raises(UserError, match="HOROVOD_STALL_SHUTDOWN_TIME_SECONDS is 'soon'; expected seconds"):
        prepare_environment(settings, {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "soon"})


@pytest.mark.parametrize(
    ("environment", "rank"), [({}, 0), ({"OMPI_COMM_WORLD_RANK": "3"}, 3), ({"RANK": "x"}, 0)], ids=str
)
def test_rank_before_horovod_runs(environment, rank):
    assert rank_of_launch(environment) == rank
