"""The command line's parser, and how it speaks: one line for a mistake, whatever the terminal."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    Writable = SupportsWrite[str]


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line and exit status 2; `--help` shows the usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end."""
        complain(f"{message} (usage: {self.prog} --help)", name=self.prog)
        self.exit(2)

    def print_help(self, file: Writable | None = None) -> None:
        """Print the help; argparse would be silent where it cannot."""
        print(self.format_help(), end="", file=file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End with what was printed written: a full disk is an error, not a surprise at the end."""
        if message:
            complain(message.strip())
        sys.stdout.flush()
        sys.exit(status)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse; an argument that nobody knows is told with the command that it was given to."""
        options, left = self.parse_known_args(args, namespace)
        if left:
            self.error(f"unknown arguments: {' '.join(left)}")
        return options


def complain(message: str, *, name: str = "prunebench") -> None:
    """One line on stderr; nothing where even that cannot be written."""
    with suppress(OSError, ValueError):
        print(f"{name}: {' '.join(message.splitlines())}", file=sys.stderr)


def speak_plainly() -> None:
    """What a terminal has no character for is shown as its escape, and stops nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Let what could not be written go: Python would try again when it ends, and fail again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def of_os(error: OSError) -> str:
    """An error of the operating system in a line: the file, and what is wrong with it."""
    what = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {what}" if error.filename is not None else what


def whole(least: int) -> type[int]:
    """Type of an argument: a whole number from `least` on that fits 64 bits."""

    class Whole(int):
        def __new__(cls, text: str) -> Whole:
            value = int(text)
            if not least <= value < 2**63:
                raise argparse.ArgumentTypeError(f"expected a number from {least} on, got {text}")
            return super().__new__(cls, value)

    Whole.__name__ = "int"
    return Whole


def positive(text: str) -> float:
    """Type of an argument: a number above 0 that is finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value
