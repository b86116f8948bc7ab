"""Snakemake's events as lines and, on a terminal, a live panel.

Snakemake's own output tells of files and job numbers; here a line is a cell with its numbers. The
logger plugins on the registry (rich, and the plain one) show counts of rules: no time left, nothing
of cells, and not that a cell has failed, since a job that fails ends well for Snakemake. What is
left out here is in Snakemake's log file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prunebench.display.lines import DOING, MARKS, duration, outcome, subject
from prunebench.display.pace import Pace, Running
from prunebench.untyped import Foreign

DEFAULT = "DefaultStreamHandler"
SAID = ("Nothing to be done", "Complete log", "Will exit after")
"""How the few messages begin that are shown although they are neither events nor warnings."""
LOG_LINES = 12


def install(logger: logging.Logger, settings: Foreign, cores: int) -> None:
    """Take the place of Snakemake's own output, unless the call asked for more, less or another.

    settings  Snakemake's output settings
    """
    wants = (settings.printshellcmds, settings.verbose, settings.debug_dag, settings.quiet)
    if settings.dryrun or any(wants) or settings.log_handler_settings:
        return
    for handler in list(logger.handlers):
        if handler.name == DEFAULT:
            logger.removeHandler(handler)
            logger.addHandler(Display(cores, Console(stderr=not settings.stdout)))


class Display(logging.Handler):
    """Shows a run. On a pipe: the same lines without colours, and no panel."""

    def __init__(self, cores: int, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console
        self.pace = Pace(cores)
        self.begun = time.monotonic()
        self.failed = 0
        self.told: set[tuple[str, str]] = set()  # a cell and its reason, once for all its jobs
        self.live: Live | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show one of Snakemake's events or messages."""
        event = str(getattr(record, "event", None) or "message")
        try:
            act = getattr(self, f"on_{event}", None)
            if act is not None:
                act(record)
        except Exception:  # a fault of the display must not end the run
            self.handleError(record)

    def on_run_info(self, record: Foreign) -> None:
        """The plan: how many jobs of each rule."""
        planned = {rule: n for rule, n in record.stats.items() if rule != "total"}
        self.pace.planned = planned
        counts = [f"{planned[rule]} x {word}" for rule, word in DOING.items() if rule in planned]
        self.say(f"{self.pace.total} steps: {', '.join(counts)}" if counts else "")
        if self.console.is_terminal and self.live is None:
            self.live = Live(
                get_renderable=self.panel,
                console=self.console,
                refresh_per_second=2,
                transient=True,
            )
            self.live.start()

    def on_job_info(self, record: Foreign) -> None:
        """A job begins. One without a log writes to the terminal itself: the panel makes room."""
        if not record.log:
            self.put_away()
        self.pace.start(
            record.jobid,
            Running(
                record.rule_name,
                {name: str(value) for name, value in (record.wildcards or {}).items()},
                tuple(Path(str(path)) for path in record.output or ()),
                time.monotonic(),
                cores=record.threads or 1,
                log=next((Path(str(path)) for path in record.log or ()), None),
            ),
        )

    def on_job_finished(self, record: Foreign) -> None:
        """A job has ended: its cell's line, where it is one that ends a cell or says why not."""
        job = self.pace.end(record.job_id, time.monotonic())
        found = None if job is None else outcome(job.rule, job.outputs)
        if job is None or found is None:
            return
        status, text = found
        if status != "ok":
            why = (subject(job.wildcards), text.partition(": ")[2])
            if why in self.told:
                return
            self.told.add(why)
            self.failed += status == "failed"
            text += f"; log: {job.log}" if status == "failed" and job.log else ""
        self.line(Text(*MARKS[status]) + Text(f"{subject(job.wildcards)}  ", "bold") + Text(text))

    def on_job_error(self, record: Foreign) -> None:
        """A job that ended without its file: what no cell's reason can tell."""
        job = self.pace.end(record.jobid, time.monotonic())
        if job is None or job.log is None:  # without a log it has told the terminal itself
            return
        about = f"{job.rule} {subject(job.wildcards)}".strip()
        self.failed += 1
        self.line(Text(*MARKS["failed"]) + Text(f"{about}: broken off; its log ends with", "bold"))
        for text in _tail(job.log):
            self.say(f"    {text}", "dim")

    def on_error(self, record: Foreign) -> None:
        """What went wrong with the run itself."""
        self.say(record.getMessage(), "red")

    def on_message(self, record: logging.LogRecord) -> None:
        """Warnings, errors, and how the run ends."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.say(text, "red" if record.levelno >= logging.ERROR else "yellow")
        elif text.startswith(SAID):
            if self.pace.total and text.startswith("Complete log"):
                took = duration(time.monotonic() - self.begun)
                failed = f", {self.failed} failed" if self.failed else ""
                self.say(f"{self.pace.ended} of {self.pace.total} steps in {took}{failed}", "bold")
            self.say(text, "dim")

    def close(self) -> None:
        """End the display with the run."""
        self.put_away()
        super().close()

    def put_away(self) -> None:
        """Take the panel away."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def line(self, text: Text) -> None:
        """A line of a cell; on a pipe with how far the run is, which the panel shows elsewhere."""
        if self.live is None:
            text = Text(f"[{self.pace.ended}/{self.pace.total}, {self.left()}] ") + text
        self.console.print(text, soft_wrap=self.live is None, highlight=False)

    def say(self, text: str, style: str = "") -> None:
        """A line of its own, as it is."""
        if text:
            self.console.print(Text(text, style), soft_wrap=True, highlight=False)

    def left(self) -> str:
        """The time that is left, in words."""
        left = self.pace.left_s(time.monotonic())
        return "time left not known yet" if left is None else f"about {duration(left)} left"

    def panel(self) -> Group:
        """What runs, a bar, and the time that is left."""
        now = time.monotonic()
        rows = Table.grid(padding=(0, 2))
        for job in list(self.pace.running.values()):
            if job.rule in DOING:
                done = "" if (share := job.done) is None else f"{100 * share:.0f} %"
                spent = duration(now - job.since)
                rows.add_row(
                    Text(DOING[job.rule], "cyan"), Text(subject(job.wildcards)), spent, done
                )
        bar = Table.grid(padding=(0, 2))
        counts = f"{self.pace.ended} of {self.pace.total}"
        lost = Text(f"{self.failed} failed", "bold red") if self.failed else Text("")
        bar.add_row(
            ProgressBar(total=max(1, self.pace.total), completed=self.pace.ended, width=30),
            counts, duration(now - self.begun), self.left(), lost,
        )  # fmt: skip
        return Group(rows, bar)


def _tail(log: Path) -> Collection[str]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.rsplit("\r", 1)[-1] for line in text.splitlines()[-LOG_LINES:]]
