"""A full disk fails one cell, in a line that says how much is missing, and leaves nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny
from job_specs import attempt, pruning

from prunebench import disk
from prunebench.cli import main
from prunebench.errors import Failure
from prunebench.jobs import prune
from prunebench.models import folders

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def spec(tmp_path: Path, tokenizer: Any) -> Any:
    """A pruning job on a model of the test's own."""
    folders.save(make_tiny(intermediate_size=96), tokenizer, tmp_path / "m", uniform=True)
    return pruning(tmp_path / "m")


def cleanly_failed(spec: Any, place: Path) -> str:
    """The reason of a job that failed, and left nothing."""
    result = attempt(prune.prune, spec, place / "prune.json")
    assert result["status"] == "failed"
    assert {path.name for path in place.rglob("*")} <= {"prune.json", "prune.work"}
    return str(result["reason"])


def test_the_weights_are_known_not_to_fit(
    spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10))
    reason = cleanly_failed(spec, tmp_path / "cell")
    assert reason.startswith("disk full: 1 MB are needed for ")
    assert reason.endswith("cell/model, 1 MB are free, 1 MB are missing")


@pytest.mark.parametrize("error", disk.FULL)
def test_the_disk_fills_while_a_model_is_written(
    error: int, spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", full)
    assert cleanly_failed(spec, tmp_path / "cell").startswith("disk full: ")


def test_a_library_s_words_are_understood() -> None:
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert str(disk.why_full(RuntimeError(text))).startswith("disk full: ")
    assert disk.why_full(OSError(errno.EACCES, "Permission denied")) is None
    assert disk.why_full(ValueError("no")) is None


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    disk.check_room(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(Failure, match=r"^disk full: 9,\S+ MB are needed for .* are missing$"):
        disk.check_room(tmp_path, 9 * 10**18)


def test_the_plan_says_what_a_run_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "config/demo.yaml", "--device", "cpu", "--tflops", "0.05"]) == 0
    assert "disk GB" in (shown := capsys.readouterr().out) and "GB of results beside" in shown
