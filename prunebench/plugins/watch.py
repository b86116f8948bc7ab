"""What a plugin does beside deciding: writes elsewhere, moves, ends the process, draws unseeded.

Python tells audit hooks of every file that is opened to be written, of changed folders and of
connections, before they happen; a stack then says whose code asked for it. It is the plugin's where
its file is met before one of the suite's: what `ctx` does on a plugin's behalf is not its own.
What compiled code opens by itself (torch.save, safetensors) is not told.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from prunebench.errors import Failure
from prunebench.outside import SHARED
from prunebench.untyped import Call, Foreign, Passed, Plain

PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
PATHS = {
    "os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.truncate": (0,), "os.chmod": (0,),
    "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,), "shutil.rmtree": (0,),
}  # fmt: skip
"""Audit events that change files -> which of their arguments are the paths."""
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CACHES = ("__pycache__", "torchinductor_", ".triton")
"""Parts of paths where Python and compilers keep what they made."""


@dataclass
class Watch:
    """One run of a plugin.

    folder         its folder; the folder `shared` beside it counts as its own
    workdir        where it may write
    deterministic  whether it says that no seed changes its decision
    faults         what it did that it may not
    """

    folder: Path
    workdir: Path
    deterministic: bool = False
    faults: list[str] = field(default_factory=list)
    drew: str = ""

    def __post_init__(self) -> None:
        places = (self.folder.resolve(), self.folder.resolve().parent / SHARED)
        self.code = tuple(f"{place}{os.sep}" for place in places)
        self.writable = (f"{self.workdir.resolve()}{os.sep}", f"{os.sep}dev{os.sep}")

    def owns(self, file: str) -> bool:
        """Whether a source file is the plugin's."""
        return _real(file).startswith(self.code)

    def place(self, file: str, line: int) -> str:
        """`toy/method.py:12`."""
        return f"{Path(file).resolve().relative_to(self.folder.resolve().parent)}:{line}"

    def blame(self, frame: FrameType | None) -> str | None:
        """The plugin's line that is responsible for a frame; None where the suite is, or nobody."""
        while frame is not None:
            file = frame.f_code.co_filename
            if self.owns(file):
                return self.place(file, frame.f_lineno)
            if file.startswith(PACKAGE):
                return None
            frame = frame.f_back
        return None

    def line_of(self, trace: TracebackType | None) -> str | None:
        """The plugin's deepest line in a traceback."""
        found = None
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if self.owns(file):
                found = self.place(file, trace.tb_lineno)
            trace = trace.tb_next
        return found

    def refuse(self, what: str, where: str, advice: str) -> NoReturn:
        """Stop what is about to happen; it is remembered, should the plugin swallow the error."""
        fault = f"{what} ({where}); {advice}"
        self.faults.append(fault)
        raise Failure(fault)

    def told(self, event: str, arguments: Sequence[Plain], frame: FrameType | None) -> None:
        """One audit event."""
        if event == "os.chdir":
            if where := self.blame(frame):
                advice = "give whole paths instead"
                self.refuse(f"changed the working folder to {arguments[0]}", where, advice)
        elif event in NETWORK:
            host = _host(event, arguments)
            if host is not None and (where := self.blame(frame)):
                advice = "what a method reads comes from ctx"
                self.refuse(f"asked the network for {host}", where, advice)
        else:
            for path in _written(event, arguments):
                if not self._allowed(path) and (where := self.blame(frame)):
                    advice = "a method writes into ctx.workdir only"
                    self.refuse(f"changed {path}", where, advice)

    def _allowed(self, path: str) -> bool:
        whole = os.path.realpath(path)
        near = f"{whole}{os.sep}"
        return near.startswith(self.writable) or any(part in whole for part in CACHES)


_active: list[Watch] = []
_hooked: list[bool] = []


@contextmanager
def watching(watch: Watch) -> Iterator[Watch]:
    """Watch a plugin inside the block. Raises Failure at its end for what was swallowed."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    here, temporary = os.getcwd(), tempfile.tempdir
    tempfile.tempdir = str(watch.workdir)
    _active.append(watch)
    try:
        with _replaced(watch):
            yield watch
    finally:
        _active.remove(watch)
        tempfile.tempdir = temporary
        os.chdir(here)
    if watch.faults:
        raise Failure(watch.faults[0])


@lru_cache(maxsize=4096)
def _real(file: str) -> str:
    return os.path.realpath(file)


def active() -> Watch | None:
    """The watch over the plugin that runs now."""
    return _active[-1] if _active else None


def _hook(event: str, arguments: tuple[Plain, ...]) -> None:
    if _active and (event == "open" or event in PATHS or event in OTHERS):
        _active[-1].told(event, arguments, sys._getframe(1))


OTHERS = ("os.chdir", *NETWORK)


def _written(event: str, arguments: Sequence[Plain]) -> list[str]:
    """Paths that an event is about to change."""
    if event == "open":
        flags = arguments[2]
        changes = isinstance(flags, int) and flags & WRITING
        paths = [arguments[0]] if changes else []
    else:
        paths = [arguments[i] for i in PATHS.get(event, ())]
    return [os.fsdecode(path) for path in paths if isinstance(path, (str, bytes, os.PathLike))]


def _host(event: str, arguments: Sequence[Plain]) -> str | None:
    """The host that is asked for; None for this machine's own sockets."""
    if event == "socket.connect":
        address = arguments[1]
        return str(address[0]) if isinstance(address, tuple) else None
    return str(arguments[0])


@contextmanager
def _replaced(watch: Watch) -> Iterator[None]:
    """Functions that end the process or draw without a seed, replaced by ones that tell."""
    before = []
    for module, name, stand_in in _stand_ins(watch):
        before.append((module, name, getattr(module, name)))
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for module, name, original in before:
            setattr(module, name, original)


def _stand_ins(watch: Watch) -> Iterator[tuple[Foreign, str, Call]]:
    import numpy
    import torch

    yield os, "_exit", _ending(watch)
    unseeded: list[tuple[Foreign, tuple[str, ...], bool]] = [
        (os, ("urandom",), True),
        (secrets, ("token_bytes", "randbelow", "randbits", "choice"), True),
        (random, ("seed",), False),
        (random.Random, ("__init__",), False),
        (numpy.random, ("seed", "default_rng"), False),
        (torch, ("seed",), True),
        (torch.random, ("seed",), True),
    ]
    for module, names, always in unseeded:
        for name in names:
            yield module, name, _unseeded(watch, module, name, always)
    if watch.deterministic:
        for name in DRAWS:
            yield torch, name, _drawing(watch, name)


DRAWS = ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal",
         "rand_like", "randn_like", "randint_like")  # fmt: skip


def _ending(watch: Watch) -> Call:
    def leave(status: int = 0) -> None:
        if where := watch.blame(sys._getframe(1)):
            watch.refuse(
                f"called os._exit({status})", where, "raise Failure or Unsupported instead"
            )
        os.kill(os.getpid(), 9)

    return leave


def _unseeded(watch: Watch, module: Foreign, name: str, always: bool) -> Call:
    """The function, which refuses to draw from the system's entropy for the plugin itself."""
    original: Call = getattr(module, name)
    first = 1 if isinstance(module, type) else 0  # what stands behind `self`
    shown = f"{module.__module__}.{module.__name__}" if first else f"{module.__name__}.{name}"

    def draw(*args: Passed, **kwargs: Passed) -> Passed:
        frame = sys._getframe(1)
        seeds = [*args[first : first + 1], *kwargs.values()]
        if watch.owns(frame.f_code.co_filename) and (always or all(s is None for s in seeds)):
            where = watch.place(frame.f_code.co_filename, frame.f_lineno)
            watch.refuse(
                f"drew from an unseeded generator, {shown}", where, "seed it with ctx.seed"
            )
        return original(*args, **kwargs)

    return draw


def _drawing(watch: Watch, name: str) -> Call:
    """A function of torch that remembers who drew from the global generator first."""
    import torch

    original: Call = getattr(torch, name)

    def draw(*args: Passed, **kwargs: Passed) -> Passed:
        if kwargs.get("generator") is None and not watch.drew:
            watch.drew = watch.blame(sys._getframe(1)) or ""
        return original(*args, **kwargs)

    return draw
