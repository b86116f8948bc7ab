"""What cannot be served is told in one line, with the right status, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bad_world
import pytest
import yaml
from bad_calls import Call, calls
from bad_campaigns import CHANGES
from conftest import REPOSITORY

from prunebench.cli import main

SHELL = {"PYTHONPATH": str(REPOSITORY)}
SETTLED = (
    "models: [{name: a, kind: local",
    "zeroshot",
    "plugins: [f",
    "families: [f",
    "data",
    "? ",
)
"""Files that are named relative to the test's own folder; and what is no YAML."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of files that are none of what the commands expect; the working folder."""
    here, place = Path.cwd(), tmp_path_factory.mktemp("world")
    bad_world.make(place)
    os.chdir(place)
    yield place
    os.chdir(here)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a GPU, models and data."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for variable in ("PRUNEBENCH_DATA", "PRUNEBENCH_MODELS"):
        monkeypatch.delenv(variable, raising=False)


def contents(place: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time."""
    found = (path for path in place.rglob("*"))
    return {
        str(path.relative_to(place)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in found
        if not path.is_dir()
    }


def answer(arguments: tuple[str, ...]) -> int:
    try:
        return main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)


def test_there_are_many() -> None:
    commands = {call.arguments[0] for call in calls() if call.arguments}
    assert len(calls()) + len(CHANGES) >= 250 and len(commands) >= 24
    assert len({call.arguments for call in calls()}) == len(calls())


@pytest.mark.parametrize("call", calls(), ids=lambda call: call.id)
def test_a_call_that_cannot_be_served(
    call: Call, world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(world)
    assert answer(call.arguments) == call.status
    shown, said = capfd.readouterr()
    assert said.count("\n") == 1 and shown == "", said
    assert call.words.lower() in said.lower(), said
    assert contents(world) == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_campaign_with_one_thing_wrong(
    change: str, world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = world / "changed.yaml"
    changed = change.partition(":")[0]
    kept = {key: value for key, value in bad_world.CAMPAIGN.items() if key != changed}
    file.write_text(f"{yaml.safe_dump(kept, sort_keys=False)}{change}\n")
    before = contents(world)
    assert answer(("validate", "changed.yaml")) == 1
    shown, said = capfd.readouterr()
    assert said.count("\n") == 1 and shown == "", said
    assert said.startswith("prunebench: changed.yaml") and CHANGES[change] in said, said
    assert contents(world) == before
    file.unlink()


def test_what_is_right_is_served(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert answer(("validate", "good.yaml")) == 0
    assert answer(("show", f"done/{bad_world.DENSE}")) == 0
    assert answer(("status", "done")) == 0
    assert capfd.readouterr().err == ""


def test_a_terminal_without_the_characters(world: Path) -> None:
    done = shell("show", f"done/{bad_world.DENSE}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == b"" and b"dense" in done.stdout
    done = shell("validate", "näme\udc80.yaml", PYTHONIOENCODING="ascii")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("schema",)], ids=" ".join)
def test_a_full_disk_behind_the_output(arguments: tuple[str, ...], world: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = shell(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"prunebench: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("change", [key for key in CHANGES if not key.startswith(SETTLED)])
def test_snakemake_plans_nothing_of_it(change: str, tmp_path: Path) -> None:
    bad_world.make(tmp_path)
    file = tmp_path / "changed.yaml"
    changed = change.partition(":")[0]
    kept = {key: value for key, value in bad_world.CAMPAIGN.items() if key != changed}
    file.write_text(f"{yaml.safe_dump(kept, sort_keys=False)}{change}\n")
    command = ["snakemake", "-n", "--cores", "1", "--configfile", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "prunebench prune" not in done.stdout


def shell(*arguments: str, stdout: object = subprocess.PIPE, **variables: str):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "prunebench", *arguments],
        env={**os.environ, **SHELL, **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
