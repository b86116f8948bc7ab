"""A Slurm of one node, of this machine's packages, that a test starts and stops; as root."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
# Memory is watched by sampling: control groups need a machine that lets a test make them.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/none
KillWait=2
MinJobAge=3600
SlurmdTimeout=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=20000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here, if so."""
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "needs to be root, to start Slurm"


@contextmanager
def cluster(place: Path) -> Iterator[Path]:
    """Start it with all its files in `place`; gives a folder of its commands, for PATH.

    They find it by a variable that Snakemake's plugin takes out of the environment, so each is
    wrapped; what is submitted is written to `place`/submitted.
    """
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool", "bin"):
        (place / name).mkdir(parents=True)
    place.chmod(0o755)
    (place / "key").write_bytes(os.urandom(1024))
    (place / "key").chmod(0o400)
    ports = [_free_port() for _ in range(2)]
    (place / "slurm.conf").write_text(CONFIGURATION.format(host=host, place=place, ports=ports))
    for name in COMMANDS:
        tell = f'printf "%s\\n" "$*" >> {place}/submitted\n' if name == "sbatch" else ""
        wrapper = place / "bin" / name
        real = shutil.which(name)
        wrapper.write_text(f'#!/bin/sh\n{tell}SLURM_CONF={place}/slurm.conf exec {real} "$@"\n')
        wrapper.chmod(0o755)
    munge = ["munged", "--force", "--foreground", f"--socket={place}/munge.socket"]
    munge += [f"--key-file={place}/key", f"--pid-file={place}/munge.pid"]
    munge += [f"--log-file={place}/munge.log", f"--seed-file={place}/munge.seed"]
    controller = ["slurmctld", "-D", "-f", f"{place}/slurm.conf"]
    node = ["slurmd", "-D", "-f", f"{place}/slurm.conf"]
    started = []
    try:
        for command in (munge, controller, node):
            quiet = subprocess.DEVNULL
            started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))
            time.sleep(1)
        _wait_until_idle(place)
        yield place / "bin"
    finally:
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run([place / "bin" / "scancel", "--user=root"], timeout=30)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_idle(place: Path) -> None:
    deadline = time.monotonic() + 120
    state = ""
    while time.monotonic() < deadline:
        command = [place / "bin" / "sinfo", "--noheader", "--format=%T"]
        state = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        if state == "idle":
            return
        time.sleep(1)
    log = (place / "slurmctld.log").read_text()[-2000:]
    raise RuntimeError(f"the node is {state or 'not known'}: {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
