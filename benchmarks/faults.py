"""Harm a finished campaign in every way we know, mend it as a user would, and compare.

    python benchmarks/faults.py [--only WORDS] [--markdown]

Each fault starts from the folder of an undisturbed run of a tiny campaign. Then the same call is
made again, after `prunebench retry` where cells failed, and decisions and digits are compared with
those of the undisturbed run. The faults and the campaign are those of tests/faults. Ends with
status 1 where one number differs, or where a state cannot be left.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fault_trial import Trial

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "faults"), str(TESTS)]


def main() -> int:
    """Try the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words of the faults to try")
    parser.add_argument("--markdown", action="store_true", help="rows as docs/reliability.md has")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import conftest
    import fault_trial
    from faults import faults
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    wanted = [fault for fault in faults() if options.only in fault.id]
    lost, kinds = [], Counter(fault.kind for fault in wanted)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["PRUNEBENCH_CACHE"] = str(root / "cache")
        start_s = time.perf_counter()
        base = root / "base"
        numbers = fault_trial.undisturbed(base, conftest.tokenizer.__wrapped__())
        for number, fault in enumerate(wanted):
            place = root / str(number)
            trial = fault_trial.attempt(fault, base, place, numbers)
            print(_row(trial) if options.markdown else _line(trial), flush=True)
            lost += [] if trial.held else [fault.id]
            os.chdir(root)
            shutil.rmtree(place)
    spent = time.perf_counter() - start_s
    print(f"\n{len(wanted)} faults of {len(kinds)} kinds, {len(lost)} lost, {spent:.0f} s")
    return 1 if lost else 0


def _line(trial: Trial) -> str:
    held = "held" if trial.held else f"LOST (expected {trial.fault.cure})"
    return f"{held}: {' | '.join(_cells(trial))}"


def _row(trial: Trial) -> str:
    return f"| {' | '.join(_cells(trial))} |"


def _cells(trial: Trial) -> list[str]:
    fault, ran = trial.fault, trial.ran
    jobs = ", ".join(f"{count} {rule}" for rule, count in ran.items()) or "none"
    same = "same digits" if trial.same else "DIFFERS"
    return [fault.kind, fault.name, trial.cure, jobs, same]


if __name__ == "__main__":
    sys.exit(main())
