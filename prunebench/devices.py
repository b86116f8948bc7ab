"""Devices of jobs: one GPU for one job at a time, CPU threads as given, and a processor's name."""

from __future__ import annotations

import fcntl
import itertools
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import Unsupported

WAIT_S = 1.0
GPU = re.compile(r"\d+|(GPU|MIG)-\S+")
"""What names a GPU in CUDA_VISIBLE_DEVICES."""
VECTOR_FLAGS = ("avx512f", "avx2", "avx")  # widest first, as x86 processors tell them
NARROWING = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""Environment variables by which torch and its libraries use narrower ones than there are."""


@dataclass(frozen=True)
class Reserved:
    """A job's device: the environment variables that give it, and the descriptors of its lock.

    A process that inherits the descriptors holds the lock, too: a job that outlives the process
    which reserved its GPU still has that GPU for itself.
    """

    environment: Mapping[str, str]
    locks: tuple[int, ...] = ()


@contextmanager
def reserved(device: str, *, folder: Path | None = None) -> Iterator[Reserved]:
    """A job's device; a GPU is locked until the block, and whoever inherited the lock, ends.

    device  "cpu", or "cuda": the first visible GPU that no other job of this machine holds; waits
            for one if all are taken (the scheduler counts GPUs but does not hand out numbers)
    folder  where the lock files lie

    Raises Unsupported when a GPU is asked for and there is none.
    """
    if device == "cpu":
        yield Reserved({"CUDA_VISIBLE_DEVICES": ""})
        return
    gpus = visible_gpus()
    if not gpus:
        raise Unsupported("device 'cuda' was asked for, but no GPU is visible")
    folder = folder or Path(tempfile.gettempdir()) / f"prunebench-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    ids = _ids()
    descriptor, gpu = _acquire({gpu: ids.get(gpu, gpu) for gpu in gpus}, folder)
    try:
        yield Reserved({"CUDA_VISIBLE_DEVICES": gpu}, (descriptor,))
    finally:
        os.close(descriptor)


def visible_gpus() -> list[str]:
    """Numbers or ids of the GPUs that this process may use, as CUDA reads its variable.

    CUDA stops at the first entry that names no device: -1, or the NoDevFiles of a scheduler.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return list(_ids()) or _counted()
    entries = (entry.strip() for entry in given.split(","))
    return list(itertools.takewhile(GPU.fullmatch, entries))


def _ids() -> dict[str, str]:
    """Id of each GPU by its number, as nvidia-smi tells them; none where it is not there."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    lines = [line.split(",") for line in listing.stdout.splitlines()]
    return {parts[0].strip(): parts[-1].strip() for parts in lines if len(parts) == 2}


def _counted() -> list[str]:
    """The same from torch, for a machine without nvidia-smi; in a process of its own, since what
    asks CUDA cannot fork any more."""
    count = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    try:
        told = subprocess.run(count, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(number) for number in range(int(told.stdout))]


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that keep numerical libraries to so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


def cpu_name(told_in: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as the system tells it, and its widest vector instructions.

    Where the environment forbids some of these, that is said, too. Cloud processors of one name
    differ in speed and, through these instructions, in last digits.
    """
    try:
        lines = told_in.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = facts.get("flags", "").split()
    widest = next((flag for flag in VECTOR_FLAGS if flag in flags), None)
    narrowed = [
        f"{variable}={os.environ[variable]}" for variable in NARROWING if variable in os.environ
    ]
    vectors = ", ".join([*([widest] if widest else []), *narrowed])
    return f"{name} ({vectors})" if vectors else name


def _acquire(gpus: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Lock the first free GPU by its id; the lock goes with the process, however that ends.

    A scheduler that shows each job its own device alone calls every one of them 0.
    """
    while True:
        for gpu, known_as in gpus.items():
            descriptor = os.open(folder / f"gpu-{known_as}.lock", os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor, gpu
            except OSError:
                os.close(descriptor)
        time.sleep(WAIT_S)
