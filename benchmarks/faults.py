"""Harm a campaign in every way we know, mend it as a user would, and compare.

    python benchmarks/faults.py [--only WORDS] [--jobs N] [--write docs/reliability.md]

Each fault starts from the folder of an undisturbed run of a tiny campaign, in a process of its own.
Then the same call is made again, after `prunebench retry` where cells failed, and decisions and
digits are compared with those of the undisturbed run. The faults and the campaign are those of
tests/faults. Ends with status 1 where one number differs, or where a state cannot be left.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faults import Fault

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "faults"), str(TESTS), str(TESTS.parent)]
BEGIN, END = "<!-- table: python benchmarks/faults.py --write FILE -->", "<!-- end of table -->"
PACKAGES = ("torch", "transformers", "peft", "safetensors")
DISK_MIB = 8
HELD, UNTRIED = "same digits", "not tried: no namespaces here"
Row = tuple[str, str, str, str, str]
Started = tuple[int, int]
"""A process, and where it tells what it found."""


def main() -> int:
    """Try the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words of the faults to try")
    parser.add_argument("--jobs", type=int, default=1, help="faults that are tried at once")
    parser.add_argument("--write", type=Path, help="document in whose table these rows are renewed")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    wanted = [fault for fault in all_faults() if options.only in fault.id]
    start_s, rows, queue = time.perf_counter(), list[Row](), deque[Started]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["PRUNEBENCH_CACHE"] = str(root / "cache")
        numbers, modules = finished(started(lambda: undisturbed(root / "base")))
        for name in modules:  # once, and not in every process
            with suppress(Exception):
                importlib.import_module(name)
        for number, fault in enumerate([*wanted, *[None] * options.jobs]):
            if len(queue) == options.jobs or (fault is None and queue):
                rows.append(row_of(wanted[len(rows)], finished(queue.popleft())))
                print(" | ".join(rows[-1]), flush=True)
                if options.write:
                    write(options.write, rows[-1:])
            if fault is not None:
                trial = partial(tried, fault, root / "base", root / str(number), numbers)
                queue.append(started(trial))
    print(f"\n{summary(rows)}, {time.perf_counter() - start_s:.0f} s")
    return 1 if lost(rows) else 0


def summary(rows: list[Row]) -> str:
    """How many there are, and how many were lost."""
    kinds = Counter(row[0] for row in rows)
    return f"{len(rows)} faults of {len(kinds)} kinds, {len(lost(rows))} lost"


def lost(rows: list[Row]) -> list[Row]:
    """Those after which a number differs or a state cannot be left, or that ended otherwise."""
    return [row for row in rows if row[4] not in (HELD, UNTRIED)]


def all_faults() -> list[Fault]:
    """Those of a finished campaign and those that strike a process at work."""
    import faults
    import real_faults

    return [*faults.faults(), *real_faults.faults()]


def undisturbed(base: Path) -> tuple[object, list[str]]:
    """Run the campaign; its numbers, and the modules that it took."""
    import conftest
    import fault_trial

    numbers = fault_trial.undisturbed(base, conftest.tokenizer.__wrapped__())
    return numbers, [name for name in sys.modules if name != "__main__"]


def tried(fault: Fault, base: Path, place: Path, numbers: object) -> list[str]:
    """What mended a fault, which jobs ran again, and how it ended."""
    import fault_trial
    from injected import on_small_disk

    place.mkdir()
    try:
        if fault.small_disk and not on_small_disk(place, DISK_MIB):
            return ["-", "-", UNTRIED]
        trial = fault_trial.attempt(fault, base, place, numbers)
    finally:
        os.chdir(base)
        shutil.rmtree(place, ignore_errors=True)
    jobs = ", ".join(f"{count} {rule}" for rule, count in trial.ran.items()) or "none"
    end = HELD if trial.held else "DIFFERS" if not trial.same else f"not by {fault.cure}"
    return [trial.cure, jobs, end]


def row_of(fault: Fault, found: object) -> Row:
    """A row of the table: kind, fault, what mended it, jobs that ran again, how it ended."""
    cure, jobs, end = found if isinstance(found, list) else ("-", "-", f"ERROR: {found}")
    return fault.kind, fault.name, cure, jobs, end


def started(work: Callable[[], object]) -> Started:
    """Begin some work in a fork: this process itself never computes."""
    _import_all()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        found = work()
    except BaseException as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {error}"
    with os.fdopen(writing, "w") as pipe:
        json.dump(found, pipe)
    os._exit(0)


def finished(started: Started) -> Any:
    """What that work returned, or how it ended without."""
    child, reading = started
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else f"the process ended with {status}"


def _import_all() -> None:
    """Whatever a call needs, once."""
    import fault_campaign  # noqa: F401
    import peft  # noqa: F401
    from transformers import LlamaForCausalLM, Trainer  # noqa: F401
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def write(document: Path, rows: list[Row]) -> None:
    """Renew these rows of the table in a document, which stands between its marks."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    table, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{document}: expected the lines {BEGIN} and {END}")
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    known = {tuple(row[:2]): tuple(row) for row in [*cells, *rows] if len(row) == 5}
    keys = [(fault.kind, fault.name.replace("|", "/")) for fault in all_faults()]
    rows = [known[key] for key in keys if key in known]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    today = datetime.datetime.now(datetime.UTC).date()
    python = f"Python {platform.python_version()} on {platform.system()}"
    lines = [
        f"{summary(rows)}. Made on {today} with {python}, {versions}.",
        "",
        "| kind | fault | mended by | jobs that ran again | end |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    table = "\n".join(lines)
    document.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
