"""A job's limits: its time and its memory; and where it was when it met one.

The job's own process is asked to stay below its memory (then the allocation that would not fit
raises an error, at its line); from outside, its memory is looked at ten times a second, for what
that does not cover. A job that is to be ended is first made to say where it is.
"""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from prunebench.jobs import warm
from prunebench.units import MIB

PLACE = "PRUNEBENCH_PLACE"
"""Environment variable: the file into which a job says where it is when it is about to be ended."""
MEMORY = "PRUNEBENCH_MEMORY_MB"
"""Environment variable: host memory that a job may take."""
LOOK_S = 0.1
FRAME = re.compile(r'File "(.+)", line (\d+) in ')
SIGNAL = signal.SIGUSR1

Child = subprocess.Popen[bytes] | warm.Job


@dataclass(frozen=True)
class Limits:
    """What a job may take. timeout_s, memory_mb: None is no limit."""

    timeout_s: float | None = None
    memory_mb: int | None = None


def obey(device: str) -> None:
    """In the job: stay below its memory, and be ready to say where it is."""
    if place := os.environ.get(PLACE):
        file = open(place, "w")  # noqa: SIM115  held until the process ends
        faulthandler.enable(file, all_threads=True)
        faulthandler.register(SIGNAL, file, all_threads=True)
    memory = os.environ.get(MEMORY)
    if memory and device == "cpu" and sys.platform == "linux":
        most = int(memory) * MIB + _reserved()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard in (resource.RLIM_INFINITY, -1) or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def watch(child: Child, limits: Limits, place: Path) -> int | str:
    """Wait for a job; its exit status, or the limit that it met and where. It is ended then."""
    end = None if limits.timeout_s is None else time.monotonic() + limits.timeout_s
    while True:
        left = LOOK_S if end is None else min(LOOK_S, end - time.monotonic())
        if left <= 0:
            return f"time limit of {limits.timeout_s:g} s exceeded{_stopped(child, place)}"
        try:
            return child.wait(timeout=left)
        except subprocess.TimeoutExpired:
            pass
        taken = _memory_mb(child.pid) if limits.memory_mb is not None else 0.0
        if limits.memory_mb is not None and taken > limits.memory_mb:
            return (
                f"memory limit of {limits.memory_mb} MB exceeded ({taken:.0f} MB)"
                f"{_stopped(child, place)}"
            )


def end(child: Child) -> None:
    """End a job and what it started; does nothing to one that has ended."""
    try:
        processes = psutil.Process(child.pid).children(recursive=True)
    except psutil.Error:
        processes = []
    child.kill()
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
    child.wait()


def where(place: Path) -> str:
    """`, at toy/method.py:3`: the innermost line that is neither Python's, a package's nor ours."""
    try:
        text = place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for file, line in FRAME.findall(text):
        if file.startswith("<") or file.startswith(_ELSEWHERE):
            continue
        return f", at {Path(file).parent.name}/{Path(file).name}:{line}"
    return ""


def _stopped(child: Child, place: Path) -> str:
    """Make a job say where it is, and end it."""
    try:
        os.kill(child.pid, SIGNAL)
        child.wait(timeout=0.5)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    found = where(place)
    end(child)
    return found


def _memory_mb(pid: int) -> float:
    """Memory that a process and those it started hold for themselves, without files they map."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            found = process.memory_info()
            total += found.rss - getattr(found, "shared", 0)
    except psutil.Error:
        pass
    return total / MIB


def _reserved() -> int:
    """Bytes of the address space that count as data and hold none: stacks, arenas, libraries."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sizes = [1024 * int(fields[key].split()[0]) for key in ("VmData", "RssAnon")]
    return max(0, sizes[0] - sizes[1])


_ELSEWHERE = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).resolve().parent.parent) + os.sep}
)
