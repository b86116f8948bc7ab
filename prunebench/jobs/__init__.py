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
from prunebench.untyped import Passed
from prunebench.whole import write_json

STARTED = "PRUNEBENCH_STARTED"
"""Environment variable: when the job was asked for, on the clock that all processes share."""

Child = subprocess.Popen[bytes] | warm.Job


def run(
    kind: str,
    spec: str,
    inputs: Sequence[Path],
    out: Path,
    *,
    device: str,
    threads: int,
    timeout_s: int | None = None,
) -> None:
    """Run the job `prunebench.jobs.<kind>` in a process of its own and see that `out` is written.

    spec    the job's input as JSON; it is kept in `out` also where the job wrote nothing
    inputs  results of earlier jobs

    A job that is stopped from outside (Ctrl-C, the scheduler) leaves no file and will run again.
    """
    out.unlink(missing_ok=True)
    arguments = [*map(str, inputs), "--spec", spec, "--out", str(out), "--device", device]
    try:
        with reserved(device) as reservation:
            environment = {
                **reservation,
                **thread_limits(threads),
                STARTED: repr(time.monotonic()),
            }
            reason = _wait(_start(kind, arguments, environment), timeout_s)
    except Unsupported as error:
        reason = str(error)
    if not out.exists():
        write_json(out, {"status": "failed", "reason": reason, "spec": json.loads(spec)})


def _start(kind: str, arguments: list[str], environment: dict[str, str]) -> Child:
    """The job's process: a fork of the warm one, or one of its own from nothing."""
    if (job := warm.run(kind, arguments, environment)) is not None:
        return job
    command = [sys.executable, "-m", f"prunebench.jobs.{kind}", *arguments]
    return subprocess.Popen(command, env={**os.environ, **environment})


def _wait(child: Child, timeout_s: int | None) -> str:
    """Why the job ended, should it turn out that it wrote nothing."""

    def leave(*_: Passed) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        return _reason(child.wait(timeout=timeout_s))
    except subprocess.TimeoutExpired:
        return f"time limit of {timeout_s} s exceeded"
    finally:
        signal.signal(signal.SIGTERM, previous)
        child.kill()  # does nothing to a job that has ended
        child.wait()


def _reason(code: int) -> str:
    if -code in (signal.SIGTERM, signal.SIGINT):  # stopped from outside, like this process itself
        sys.exit(128 - code)
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the job was killed by {name}{hint}"
    return f"the job ended with exit status {code} and wrote no result"
