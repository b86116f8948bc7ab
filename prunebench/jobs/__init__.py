"""Jobs: what the workflow's rules run. Each writes one JSON file that says how it ended.

A job runs in a process of its own, so that whatever happens to it - an error, a lack of memory, a
kill, a time limit - ends as `failed` with its reason in the file, and the other cells go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from prunebench.devices import reserved, thread_limits
from prunebench.errors import Unsupported
from prunebench.jobs import warm
from prunebench.jobs.limits import MEMORY, PLACE, Child, Limits, end, watch, where
from prunebench.jobs.output import cut
from prunebench.record import stages
from prunebench.untyped import Passed

STARTED = "PRUNEBENCH_STARTED"
"""Environment variable: when the job was asked for, on the clock that all processes share."""


def run(
    kind: str,
    spec: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    device: str,
    threads: int,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
    log: int = 2,
) -> None:
    """Run the job `prunebench.jobs.<kind>` in a process of its own and see that `out` is written.

    spec       the job's input as JSON; it is kept in `out` also where the job wrote nothing
    inputs     results of earlier jobs
    memory_mb  host memory that it may take; None: no limit
    timeout_s  None: no limit
    log        descriptor of the file for what it prints, cut to a size; default: standard error

    A job that is stopped from outside (Ctrl-C, the scheduler) leaves no file and will run again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)  # the job says there where it is, from its start
    out.unlink(missing_ok=True)
    arguments = [*map(str, inputs), "--spec", spec, "--out", str(out), "--device", device]
    place = out.with_name(f".{out.name}.{os.getpid()}.place")
    limits = Limits(timeout_s, memory_mb)
    try:
        with reserved(device) as given, cut(log) as output:
            environment = {
                **given.environment,
                **thread_limits(threads),
                STARTED: repr(time.monotonic()),
                PLACE: str(place.absolute()),
                **({MEMORY: str(memory_mb)} if memory_mb is not None else {}),
            }
            job = _start(kind, arguments, environment, output, given.locks)
            reason = _wait(job, limits, place)
    except Unsupported as error:
        reason = str(error)
    finally:
        place.unlink(missing_ok=True)
    if not out.exists():
        lost = {"status": "failed", "reason": reason, "spec": json.loads(spec)}
        stages.write(out, {**lost, "read": stages.rests_on(inputs)})


def _start(
    kind: str,
    arguments: list[str],
    environment: dict[str, str],
    output: int,
    locks: tuple[int, ...],
) -> Child:
    """The job's process: a fork of the warm one, or one of its own from nothing.

    locks  descriptors that it inherits; the warm process serves jobs that lock nothing
    """
    if not locks and (job := warm.run(kind, arguments, environment, output)) is not None:
        return job
    command = [sys.executable, "-m", f"prunebench.jobs.{kind}", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, pass_fds=locks)


def _wait(child: Child, limits: Limits, place: Path) -> str:
    """Why the job ended, should it turn out that it wrote nothing."""

    def leave(*_: Passed) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        ended = watch(child, limits, place)
        return ended if isinstance(ended, str) else _reason(ended, place)
    finally:
        signal.signal(signal.SIGTERM, previous)
        end(child)


def _reason(code: int, place: Path) -> str:
    if -code in (signal.SIGTERM, signal.SIGINT):  # stopped from outside, like this process itself
        sys.exit(128 - code)
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the job was killed by {name}{where(place)}{hint}"
    return f"the job ended with exit status {code} and wrote no result"
