"""Two machines, as network namespaces joined by a virtual cable, each with an output folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mpi_runs import MPIRUN, launch, mpirun, ranks_left, require_horovod
from small_runs import assert_equal_arrays, flags, write_google_folder, write_squad_folder

from training.saves import RunFolder

HOSTS = {"twinquant-a": "10.213.7.1", "twinquant-b": "10.213.7.2"}
TRAIN = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json
    --init_checkpoint=squad_model/bert_model.ckpt --max_seq_length=64 --max_query_length=16 --doc_stride=32
    --pad_to_max_length --log_freq=1 --do_calib --calib_batch=3 --do_train --if_quant --do_predict --train_batch_size=2
    --learning_rate=1e-3 --max_steps=8 --save_checkpoints_steps=2 --horovod --backend=pytorch --output_dir=out"""
)
# Stands for ssh: mpirun calls it with a host's name and a command. The second machine has another folder at out/.
AGENT = """#!/bin/sh
shift
exec ip netns exec twinquant-b sh -c "mount --bind {other} {folder}/out && cd {folder} && $*"
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    require_horovod()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2's ip")
    first, second = HOSTS
    try:
        ip("netns", "add", first)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", second)
        ip("link", "add", "cable-a", "netns", first, "type", "veth", "peer", "name", "cable-b", "netns", second)
        for (host, address), cable in zip(HOSTS.items(), ("cable-a", "cable-b"), strict=True):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", cable)
            ip("-n", host, "link", "set", cable, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)


def test_two_machines_without_a_shared_folder(hosts: None, tmp_path: Path) -> None:
    """Killed on the second machine and started again: rank 0 gives it the checkpoint that it does not have."""
    folder, other = tmp_path.resolve(), tmp_path.resolve() / "second_out"
    write_google_folder(folder / "squad_model")
    write_squad_folder(folder / "squad_data", train=24, dev=6)
    for path in (folder / "out", other):
        path.mkdir()
    agent = folder / "agent.sh"
    agent.write_text(AGENT.format(folder=folder, other=other))
    agent.chmod(0o755)
    first, second = HOSTS.values()
    starter = (
        f"ip netns exec twinquant-a mpirun -np {{count}} -H {first}:1,{second}:1 --allow-run-as-root -bind-to none "
        f"-mca plm_rsh_agent {agent} -mca pml ob1 -mca btl tcp,self -mca btl_tcp_if_include 10.213.7.0/24 "
        "-mca oob_tcp_if_include 10.213.7.0/24 -x PATH -x OMP_NUM_THREADS=1"
    )
    broken = launch(*TRAIN, cwd=folder, starter=starter, fault="SIGKILL 1 5")
    outcome = broken.finish()
    assert "processes: 2, on 2 machine(s)" in outcome.err, outcome.err
    assert outcome.code == 137 and broken.seconds < 60 and not ranks_left(folder)
    assert RunFolder(folder / "out", "pytorch", 3).steps() == [2, 4]
    assert [path.name for path in other.iterdir()] == ["features"]  # the other machine made its own, and nothing else
    assert sorted(path.name for path in (other / "features").iterdir()) == sorted(
        path.name for path in (folder / "out/features").iterdir() if "None" not in path.name
    )
    finished = mpirun(*TRAIN, cwd=folder, starter=starter)
    assert "resuming from out/model.ckpt-4" in finished.err
    shutil.move(folder / "out", folder / "resumed")
    # With as many threads, which a process alone on its machine would have more of.
    one_machine = mpirun(*TRAIN, cwd=folder, starter=f"{MPIRUN} -x OMP_NUM_THREADS=1")
    assert "processes: 2, on 1 machine(s)" in one_machine.err
    resumed, unbroken = (RunFolder(folder / name, "pytorch", 3).load(8)[0] for name in ("resumed", "out"))
    assert_equal_arrays(resumed.tensors, unbroken.tensors)
    assert finished.scores == one_machine.scores
