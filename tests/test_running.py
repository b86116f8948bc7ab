"""Locks of runs that have ended are removed; those of live ones stay, and their owner is named."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunebench import running
from prunebench.errors import Failure

HOLD = (
    "import sys, time; from pathlib import Path; from prunebench import running\n"
    "running.hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def other(tmp_path):
    """Function that starts a process which runs the campaign of a folder."""
    started = []

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def locks(tmp_path, monkeypatch):
    """A folder of Snakemake's locks, and a function that writes one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".snakemake" / "locks"
    folder.mkdir(parents=True)

    def write(name, *lines):
        (folder / name).write_text("\n".join(lines) + "\n")
        return folder / name

    return folder, write


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_locks_of_a_killed_run_go_and_those_of_a_live_one_stay(tmp_path, other, locks, caplog):
    folder, write = locks
    mine = tmp_path / "results" / "a"
    first = write("0.output.lock", "results/a/cells/m/random/0.5/seed0/prune.json")
    second = write("0.input.lock", "results/a/leaderboard.md")
    process = other(mine)
    assert running.is_running(mine)
    with caplog.at_level(logging.WARNING):
        assert running.clear_stale(folder, mine.relative_to(tmp_path)) == []
    assert f"process {process.pid} on" in caplog.text and first.is_file() and second.is_file()
    with pytest.raises(Failure, match=f"process {process.pid} on .*since .* wait for it"):
        running.hold(mine)
    kill(process)
    assert running.is_running(mine) is False
    assert len(running.clear_stale(folder, mine.relative_to(tmp_path))) == 2
    assert list(folder.iterdir()) == []


def test_locks_of_other_campaigns_go_only_if_they_have_ended(tmp_path, other, locks):
    folder, write = locks
    shared = "results/_demo/model.json"
    live = write("0.output.lock", "results/b/cells/m/r/0.5/seed0/prune.json", shared)
    dead = write("1.output.lock", "results/c/complete", shared)
    strangers = write("2.output.lock", "elsewhere/file.txt")
    unknown = write("3.output.lock", "results/d/cells/m/r/0.5/seed0/prune.json")  # never said so
    both = write("4.output.lock", "results/b/complete", "results/c/complete")
    other(tmp_path / "results" / "b")
    kill(other(tmp_path / "results" / "c"))
    kill(other(tmp_path / "results" / "a"))
    assert running.clear_stale(folder, Path("results/a")) == [Path(dead)]
    assert all(lock.is_file() for lock in (live, strangers, unknown, both))


def test_nothing_is_written_by_looking(tmp_path, locks):
    folder, write = locks
    lock = write("0.output.lock", "results/a/complete")
    assert running.is_running(tmp_path / "results" / "a") is None
    assert running.clear_stale(folder, tmp_path / "results" / "a") == []
    assert lock.is_file() and not (tmp_path / "results").exists()
