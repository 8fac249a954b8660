"""Whether this process was started alone or as one of several, and how the several find each other."""

import os
from collections.abc import Mapping, MutableMapping

import numpy as np

from backends import create_collectives
from training.processes import ALONE, Processes
from training.watchdog import Watchdog
from twinquant import __version__
from twinquant.errors import UserError
from twinquant.settings import CommonSettings

# How Open MPI, other MPIs, Horovod's own launcher and torchrun tell a process how many of them there are.
_WORLD_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "HOROVOD_SIZE", "WORLD_SIZE")
_LOCAL_SIZE_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "HOROVOD_LOCAL_SIZE")

# The flags' stall times are longer than two processes of a healthy run are apart. What one process does alone is not
# counted (Processes.together), but compiling is.
COMPILING_SECONDS = 300.0  # where every process first compiles the model, some of them longer than others
WATCHDOG_MARGIN_SECONDS = 10.0  # Horovod's stall check names the missing rank, so it comes first

# May differ between the processes: they change nothing of what is computed, or tell where.
_OF_ONE_PROCESS = ("device", "verbose_logging", "disable_progress_bar", "notes", "log_freq")


def started_processes(environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """How many processes were started together, and the environment variable that says so; (1, "") for one alone."""
    for variable in _WORLD_SIZE_VARIABLES:
        value = environment.get(variable, "1")
        if value.isdigit() and int(value) > 1:
            return int(value), variable
    return 1, ""


def threads_per_process(
    environment: Mapping[str, str] = os.environ, usable: int | None = None, of_parent: int | None = None
) -> int:
    """The threads that each of several processes on a machine should compute with.

    A process that mpirun has bound to some cores takes those. Processes that are not bound (`-bind-to none`, as the
    guides say) would each start a thread for every core, and divide the cores instead: those that all of them share,
    which a container, taskset or Slurm may have made fewer than the machine's.

    Args:
        usable: number of cores this process may run on; default: as the system says.
        of_parent: the same of the one that started it, which binds its children and not itself.
    """
    usable = usable or len(os.sched_getaffinity(0))
    of_parent = of_parent or len(os.sched_getaffinity(os.getppid()))
    if usable < of_parent:
        return usable
    local_size = next((int(environment[name]) for name in _LOCAL_SIZE_VARIABLES if name in environment), 1)
    return max(1, usable // local_size)


def prepare_environment(settings: CommonSettings, environment: MutableMapping[str, str] = os.environ) -> float | None:
    """Sets what Horovod and the frameworks read when they start, unless the user has; returns the watchdog's limit.

    None, no limit, where the user has set Horovod's to 0, which says so.
    To be called before a framework is imported.
    """
    threads = str(threads_per_process(environment))
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment.setdefault(variable, threads)
    shutdown = settings.stall_check_shutdown_time_seconds
    if settings.use_xla and "stall_check_shutdown_time_seconds" not in settings.explicit:
        shutdown = COMPILING_SECONDS
    for flag, variable, value in (
        ("stall_check_warning_time_seconds", "HOROVOD_STALL_CHECK_TIME_SECONDS",
         round(settings.stall_check_warning_time_seconds)),
        ("stall_check_shutdown_time_seconds", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", round(shutdown)),
        ("cycle_time_ms", "HOROVOD_CYCLE_TIME", settings.cycle_time_ms),
    ):  # fmt: skip
        if flag in settings.explicit or variable not in environment:
            environment[variable] = str(value)
    # Horovod's thread asks the other ranks every millisecond and waits for them in a loop: on a core that it shares
    # with the training it must let that go on (two pinned ranks: 1.6 times one rank's speed, not 1.1; docs/scaling.md).
    environment.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    # Buckets are formed by us (Collectives.buckets), and must not be joined again by chance.
    environment.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    try:
        limit = float(environment["HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"])
    except ValueError:
        found = environment["HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"]
        raise UserError(f"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS is '{found}'; expected seconds") from None
    return limit + WATCHDOG_MARGIN_SECONDS if limit > 0.0 else None


def launch(settings: CommonSettings, backend_name: str) -> tuple[Processes, list[str]]:
    """The processes of this run, and notes for the log.

    Raises:
        UserError: several processes that were not meant to train together, cannot, or were started with different
            flags or versions.
    """
    count, variable = started_processes()
    if count == 1:
        return ALONE, _notes_alone(settings)
    if not settings.horovod:
        raise UserError(
            f"this is one of {count} processes ({variable}={count}), and each would train the same model into the same "
            "folder: give --horovod to train one model together, or start a single process"
        )
    limit = prepare_environment(settings)
    collectives = create_collectives(
        backend_name, settings.horovod_compression, round(settings.fusion_threshold_mb * 2**20)
    )
    if collectives.size != count:
        raise UserError(
            f"{variable} says that {count} processes were started, but Horovod finds {collectives.size}: it was built "
            "for another MPI than the one that started this (torchrun starts none); start with mpirun or horovodrun"
        )
    processes = Processes(collectives, Watchdog(limit))
    _check_equal_start(processes, settings, backend_name)
    notes = [
        f"processes: {count}, on {_machines(processes)} machine(s), with {os.environ['OMP_NUM_THREADS']} thread(s) "
        f"each; gradients travel as {'float16' if settings.horovod_compression == 'fp16' else 'float32'}"
    ]
    if settings.do_train and "OMPI_COMM_WORLD_SIZE" in os.environ:
        notes += _notes_on_stopping()
    return processes, notes


def _notes_alone(settings: CommonSettings) -> list[str]:
    if not settings.horovod:
        return []
    note = "note: --horovod: this is a single process; mpirun -np N or horovodrun -np N starts several"
    if not settings.do_train:
        return [f"{note}."]
    batch = settings.train_batch_size * settings.num_accumulation_steps
    rate = ""
    if settings.scale_learning_rate:
        rate = f", and the learning rate is {settings.learning_rate:g}, not N times as much"
    keep = "--train_batch_size or --num_accumulation_steps" + (" and --learning_rate" if rate else "")
    return [
        f"{note}. Alone, an update is of {batch} examples, not of N times as many{rate}; for what a command for N "
        f"processes does, multiply {keep} by N."
    ]


def _notes_on_stopping() -> list[str]:
    """Open MPI kills what is left of a job a second after it has passed a SIGTERM on."""
    patience = os.environ.get("OMPI_MCA_odls_base_sigkill_timeout")
    if patience is not None:
        return [f"note: SIGTERM to mpirun leaves {patience} s to save a checkpoint (odls_base_sigkill_timeout)."]
    return [
        "note: SIGTERM to mpirun leaves 1 s to save a checkpoint; mpirun -mca odls_base_sigkill_timeout 120 leaves "
        "120 s, and SIGUSR1 to mpirun saves and stops without a limit."
    ]


def _machines(processes: Processes) -> int:
    return processes.gather(processes.local_rank, "local ranks").count(0)


def _check_equal_start(processes: Processes, settings: CommonSettings, backend_name: str) -> None:
    """Raises UserError, on every process, where they were started with different flags or versions."""
    values = {name: value for name, value in settings.to_dict().items() if name not in _OF_ONE_PROCESS}
    values |= {"backend": backend_name, "twinquant": __version__, "numpy": np.__version__}
    found = processes.gather(values, "settings")
    for rank, other in enumerate(found):
        different = [name for name in found[0] if other.get(name) != found[0][name]]
        if different:
            pairs = "; ".join(f"{name}: {other.get(name)} there, {found[0][name]} on rank 0" for name in different)
            raise UserError(f"rank {rank} was started with other settings than rank 0 ({pairs})")
