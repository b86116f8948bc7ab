"""A process that has imported what jobs import, and forks itself for each of them.

Imports take a job of a small model longer than its work. A run on the CPUs of one machine therefore
starts this process beside it, which jobs find by an environment variable. Each job still runs in a
process of its own, with its own memory, exit status and kill; and what is timed (profiles, single
steps) starts from nothing as before.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

VARIABLE = "PRUNEBENCH_WARM"
KINDS = ("prune", "recover", "evaluate", "trial")
IMPORTS = (
    *(f"prunebench.jobs.{kind}" for kind in ("prune", "recover", "evaluate")),
    *("prunebench.evaluation.zeroshot.harness", "prunebench.recovery.loop", "accelerate"),
)
READY_S = 180.0
"""How long a job waits for it: on a busy machine imports take minutes."""
Server = subprocess.Popen[bytes]


def start(folder: Path, threads: int, imports: Sequence[str] = IMPORTS) -> Server:
    """Start the process, and return it; it ends when this one does.

    folder   where its socket is made
    imports  modules that its jobs will need
    """
    place = folder / f".warm-{os.getpid()}"
    command = [sys.executable, "-m", "prunebench.jobs.warm", str(place), str(threads)]
    nothing = subprocess.DEVNULL
    command += [str(os.getpid()), *imports]
    process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
    os.environ[VARIABLE] = str(place)
    return process


def run(
    kind: str, arguments: Sequence[str], environment: Mapping[str, str], output: int = 2
) -> Job | None:
    """Start a job in a fork of the warm process; None where there is no such process.

    output  descriptor that it prints to
    """
    place = os.environ.get(VARIABLE)
    if place is None or kind not in KINDS:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        _connect(connection, place)
    except OSError:
        connection.close()
        return None
    wanted = {"kind": kind, "arguments": list(arguments), "folder": os.getcwd()}
    request = json.dumps({**wanted, "environment": {**os.environ, **environment}}).encode()
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], [output, output])
    connection.sendall(request)
    return Job(connection)


def _connect(connection: socket.socket, place: str) -> None:
    """Connect; a process that is still importing is waited for."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            return connection.connect(place)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline or not Path(place).parent.is_dir():
                raise
            time.sleep(0.05)


class Job:
    """A forked job, as `subprocess.Popen` has it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pid = int(self._answer() or 0)
        self.code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises TimeoutExpired."""
        if self.code is None:
            if not select.select([self.connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("job", timeout or 0.0)
            answer = self._answer()  # none: the warm process itself is gone
            self.code = int(answer) if answer else -signal.SIGKILL
        return self.code

    def _answer(self) -> str:
        """One line, read byte by byte: what is read ahead would be hidden from `select`."""
        line = b""
        while not line.endswith(b"\n") and (byte := self.connection.recv(1)):
            line += byte
        return line.decode()

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.code is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def serve(place: Path, threads: int, parent: int, imports: Sequence[str]) -> None:
    """Import, listen, fork; until the process `parent`, which asked for it, is gone."""
    for name in imports:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(threads)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen(64)
    waiting: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while os.getppid() == parent:
            for _ in selector.select(timeout=0.05):
                connection, _address = listener.accept()
                if pid := _fork(listener, connection):
                    waiting[pid] = connection
            _answer_ended(waiting)
    place.unlink(missing_ok=True)


def _fork(listener: socket.socket, connection: socket.socket) -> int:
    """The job's process id; does not return in the job's own process."""
    size, descriptors, *_ = socket.recv_fds(connection, 8, 2)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += connection.recv(1 << 16)
    pid = os.fork()
    if pid:
        connection.sendall(f"{pid}\n".encode())
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    listener.close()
    connection.close()
    os._exit(_work(json.loads(text), descriptors))


def _work(request: dict[str, object], descriptors: Sequence[int]) -> int:
    """Do the job as its own interpreter would; its exit status."""
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]  # text to text
    sys.argv = [f"prunebench.jobs.{request['kind']}", *request["arguments"]]  # type: ignore[misc]
    try:
        import torch

        # Of this job: Snakemake gives one fewer where the machine has not as many.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        importlib.import_module(sys.argv[0]).main()
        return 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _answer_ended(waiting: dict[int, socket.socket]) -> None:
    """Tell how the jobs ended that have."""
    for pid in list(waiting):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            connection = waiting.pop(pid)
            with contextlib.suppress(OSError):  # whoever asked may be gone
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            connection.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
