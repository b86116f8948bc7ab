"""Devices of jobs: one GPU for one job at a time, CPU threads as given, and a processor's name."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunebench.errors import Unsupported

WAIT_S = 1.0
VECTOR_FLAGS = ("avx512f", "avx2", "avx")  # widest first, as x86 processors tell them
NARROWING = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""Environment variables by which torch and its libraries use narrower ones than there are."""


@contextmanager
def reserved(device: str, *, folder: Path | None = None) -> Iterator[dict[str, str]]:
    """Environment variables that give a job its device; a GPU is locked until the block ends.

    device  "cpu", or "cuda": the first visible GPU that no other job of this machine holds; waits
            for one if all are taken (the scheduler counts GPUs but does not hand out numbers)
    folder  where the lock files lie

    Raises Unsupported when a GPU is asked for and there is none.
    """
    if device == "cpu":
        yield {"CUDA_VISIBLE_DEVICES": ""}
        return
    gpus = visible_gpus()
    if not gpus:
        raise Unsupported("device 'cuda' was asked for, but no GPU is visible")
    folder = folder or Path(tempfile.gettempdir()) / f"prunebench-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    descriptor, gpu = _acquire(gpus, folder)
    try:
        yield {"CUDA_VISIBLE_DEVICES": gpu}
    finally:
        os.close(descriptor)


def visible_gpus() -> list[str]:
    """Numbers or ids of the GPUs that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip()]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return listing.stdout.split()


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


def _acquire(gpus: list[str], folder: Path) -> tuple[int, str]:
    """Lock the first free GPU; the lock goes with the process, however that ends."""
    while True:
        for gpu in gpus:
            descriptor = os.open(folder / f"gpu-{gpu}.lock", os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor, gpu
            except OSError:
                os.close(descriptor)
        time.sleep(WAIT_S)
