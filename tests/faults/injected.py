"""How faults are injected for real: signals, limits of the system, a small disk, in a process.

`in_child` forks, so a fault strikes a process that has imported everything and computed nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_campaign

NAMESPACES = 0x10000000 | 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS


def in_child(work: Callable[[], Any]) -> int:
    """Do something in a process of its own; its exit status, minus the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        _be_quiet()
        status = int(work() or 0)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    finally:
        os._exit(status)


def begun(work: Callable[[], Any]) -> int:
    """Start something in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    try:
        _be_quiet()
        work()
    finally:
        os._exit(0)


def ended(child: int) -> int:
    """Wait for what `begun` started."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def struck(sign: int, name: str, *, after: bool = False) -> None:
    """A call that a signal ends as it gives a file or folder its name, or when it just has."""

    def work() -> None:
        with _striking(sign, name, after=after):
            fault_campaign.call()

    status = in_child(work)
    assert status in (-sign, 128 + sign), f"{name} was not struck: status {status}"


def limited(which: int, most: int) -> None:
    """A call under a limit of the system; it may end well, as a failed cell, or not at all."""

    def work() -> None:
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (most, hard))
        fault_campaign.call()

    in_child(work)


def called() -> None:
    """A call in a process of its own, so that whatever it does stays there."""
    in_child(lambda: fault_campaign.call() and 0)


def on_small_disk(place: Path, mib: float) -> bool:
    """Mount a file system of this size at a folder, for this process alone; whether that went."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NAMESPACES):
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    size = f"size={int(mib * 2**20)}".encode()
    return not libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, size)


def fill(path: Path, leave: int) -> None:
    """Fill the disk of `path` up to so many bytes."""
    stat = os.statvfs(path.parent)
    with path.open("wb") as file:
        file.write(bytes(max(0, stat.f_bavail * stat.f_frsize - leave)))


@contextlib.contextmanager
def _striking(sign: int, name: str, *, after: bool) -> Iterator[None]:
    replace, rename = os.replace, os.rename

    def strike(how: Callable[..., None], source: Any, target: Any) -> None:
        met = Path(target).name == name
        if met and not after:
            os.kill(os.getpid(), sign)
        how(source, target)
        if met and after:
            os.kill(os.getpid(), sign)

    os.replace = lambda source, target: strike(replace, source, target)
    os.rename = lambda source, target: strike(rename, source, target)
    try:
        yield
    finally:
        os.replace, os.rename = replace, rename


def _be_quiet() -> None:
    """What a struck process says of itself is no part of a report."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno() if _is_real(sys.stdout) else 1)
    os.dup2(sink, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for sign in (signal.SIGHUP, signal.SIGQUIT):  # a shell's background jobs ignore them
        signal.signal(sign, signal.SIG_DFL)


def _is_real(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == 1)
    except (OSError, ValueError):
        return False
