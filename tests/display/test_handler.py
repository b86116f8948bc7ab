"""Snakemake's events as a person reads them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from prunebench.display.handler import Display, install

CELL = {"model": "m", "label": "pat", "sparsity": "0.5", "seed": "1"}
EVALUATED = {
    "status": "ok",
    "perplexity": {
        "a": {"corpus": "wiki", "length": 128, "value": 12.345, "status": "ok"},
        "b": {"corpus": "ptb", "length": 128, "value": None, "status": "failed"},
    },
    "zeroshot": {"status": "ok", "mean": 0.4567},
}


class Run:
    """A display, and the events of a run for it."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.screen = io.StringIO()
        console = Console(file=self.screen, force_terminal=terminal, width=100)
        self.display = Display(2, console)
        self.jobs = 0

    def event(self, name: str | None, message: str = "", level: int = 20, **facts: object) -> None:
        record = logging.LogRecord("snakemake", level, "", 0, message, (), None)
        record.__dict__.update(facts, event=name)
        self.display.emit(record)

    def plan(self, **planned: int) -> None:
        self.event("run_info", stats={**planned, "total": sum(planned.values())})

    def begin(self, rule: str, output: Path, log: Path | None = None) -> int:
        self.jobs += 1
        self.event(
            "job_info", jobid=self.jobs, rule_name=rule, wildcards=CELL, output=[str(output)],
            log=[] if log is None else [str(log)], threads=1,
        )  # fmt: skip
        return self.jobs

    @property
    def shown(self) -> str:
        return self.screen.getvalue()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Errors inside the display, which it swallows in a run, fail the test."""

    def raised(self: logging.Handler, record: logging.LogRecord) -> None:
        raise

    monkeypatch.setattr(logging.Handler, "handleError", raised)
    yield


pytestmark = pytest.mark.usefixtures("faults")


def end(run: Run, rule: str, path: Path, result: object) -> None:
    job = run.begin(rule, path)
    path.write_text(json.dumps(result), encoding="utf-8")
    run.event("job_finished", job_id=job)


def test_a_cell_is_a_line_with_its_numbers(tmp_path: Path) -> None:
    run = Run()
    run.plan(prune=1, evaluate=1, all=1)
    end(run, "prune", tmp_path / "prune.json", {"status": "ok"})
    assert run.shown == "3 steps: 1 x pruning, 1 x evaluating\n"
    end(run, "evaluate", tmp_path / "evaluate.json", EVALUATED)
    last = run.shown.splitlines()[-1]
    assert last.startswith("[2/3, about 0:0")
    assert last.endswith("✓ m  pat 50 % seed 1  wiki/128 12.35  ptb/128 –  zero-shot 45.7 %")


def test_generated_answers_and_examples_are_told(tmp_path: Path) -> None:
    run = Run()
    run.plan(evaluate=3)
    asked = {"status": "ok", "mean": 0.5, "tasks": {"a": {"shots": 5}}}
    end(run, "evaluate", tmp_path / "evaluate.json", {"zeroshot": asked, "generation": asked})
    assert run.shown.splitlines()[-1].endswith("  few-shot 50.0 %  generated 50.0 %")
    part = {"status": "ok", "mean": None, "tasks": {}}
    end(run, "evaluate", tmp_path / "evaluate.json", {"zeroshot": part, "generation": part})
    assert run.shown.splitlines()[-1].endswith("  zero-shot –  generated –")


def test_a_failed_cell_is_told_once_with_its_reason(tmp_path: Path) -> None:
    run = Run()
    run.plan(prune=1, evaluate=1)
    lost = {"status": "failed", "reason": "no such\n corpus"}
    end(run, "prune", tmp_path / "prune.json", lost)
    end(run, "evaluate", tmp_path / "evaluate.json", lost)
    assert run.shown.count("no such corpus") == 1
    assert "✗ m  pat 50 % seed 1  failed while pruning: no such corpus" in run.shown
    run.event(None, "Complete log(s): x.log")
    assert "2 of 2 steps in 0:00, 1 failed\nComplete log(s): x.log\n" in run.shown


def test_a_skipped_cell_is_told_and_is_no_failure(tmp_path: Path) -> None:
    run = Run()
    run.plan(prune=1)
    skipped = {"status": "skipped", "reason": "no such structure"}
    end(run, "prune", tmp_path / "prune.json", skipped)
    assert "– m  pat 50 % seed 1  skipped while pruning: no such structure" in run.shown
    run.event(None, "Complete log(s): x.log")
    assert "1 of 1 steps in 0:00\n" in run.shown


def test_a_job_that_broke_off_shows_the_end_of_its_log(tmp_path: Path) -> None:
    run = Run()
    run.plan(evaluate=1)
    log = tmp_path / "evaluate.log"
    log.write_text("\n".join(f"line {i}" for i in range(40)), encoding="utf-8")
    run.event("job_error", jobid=run.begin("evaluate", tmp_path / "evaluate.json", log))
    assert "✗ evaluate m  pat 50 % seed 1: broken off" in run.shown
    assert "line 39" in run.shown and "line 20\n" not in run.shown


def test_warnings_and_errors_are_shown_and_chatter_is_not() -> None:
    run = Run()
    run.event(None, "Select jobs to execute...")
    run.event("progress", done=1, total=2)
    run.event(None, "Nothing to be done (all files are there).")
    run.event(None, "seeds [1] change nothing", level=logging.WARNING)
    run.event("error", "rule x: no such file", level=logging.ERROR)
    assert run.shown.splitlines() == [
        "Nothing to be done (all files are there).",
        "seeds [1] change nothing",
        "rule x: no such file",
    ]


def test_a_terminal_has_a_panel_of_what_runs_and_a_pipe_has_no_control_codes(
    tmp_path: Path,
) -> None:
    run = Run(terminal=True)
    run.plan(recover=2)
    log = tmp_path / "recover.log"
    log.write_text("step 22/88 loss 2.4\n", encoding="utf-8")
    run.begin("recover", tmp_path / "recover.json", log)
    console = Console(file=io.StringIO(), width=100)
    console.print(run.display.panel())
    panel = console.file.getvalue()  # type: ignore[attr-defined]
    assert "tuning  m  pat 50 % seed 1  0:00  25 %" in panel
    assert "0 of 2" in panel and "time left not known yet" in panel
    assert "\x1b" in run.shown
    run.begin("failures", tmp_path / "complete")  # it has no log, and writes to the terminal itself
    assert run.display.live is None
    run.display.close()
    piped = Run()
    piped.plan(recover=2)
    end(piped, "recover", tmp_path / "recover.json", {"status": "failed", "reason": "x"})
    assert "\x1b" not in piped.shown and "\r" not in piped.shown


@pytest.mark.parametrize(
    ("asked", "replaced"),
    [({}, True), ({"printshellcmds": True}, False), ({"verbose": True}, False),
     ({"dryrun": True}, False), ({"quiet": {"all"}}, False),
     ({"log_handler_settings": {"rich": None}}, False)],
)  # fmt: skip
def test_snakemakes_own_output_stays_for_those_who_ask(
    asked: dict[str, object], replaced: bool
) -> None:
    default = logging.StreamHandler(io.StringIO())
    default.name = "DefaultStreamHandler"
    other = logging.NullHandler()
    logger = logging.Logger("snakemake")
    logger.addHandler(default)
    logger.addHandler(other)
    usual = {"printshellcmds": False, "verbose": False, "debug_dag": False, "quiet": None,
             "dryrun": False, "log_handler_settings": {}, "stdout": False}  # fmt: skip
    install(logger, SimpleNamespace(**{**usual, **asked}), 2)
    assert other in logger.handlers
    assert (default not in logger.handlers) is replaced
    assert any(isinstance(handler, Display) for handler in logger.handlers) is replaced
