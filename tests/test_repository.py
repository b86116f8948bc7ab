"""The repository itself: no weights, no data, no pickles, no path of anybody's machine."""

from __future__ import annotations

import re
import subprocess

import pytest
from conftest import REPOSITORY

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".gguf", ".arrow")
UNSAFE = re.compile(r"\b(?:pickle\.loads?|torch\.load)\(|trust_remote_code=True")
HOME = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/\w")
MOST_BYTES = 1_000_000
SHIPPED = "prunebench/models/demo-llama/model.safetensors"
"""The demo's weights, which the suite has trained itself; models/shipped.py knows their digest."""


def tracked():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = (name for name in listed.stdout.split("\0") if name)
    return [path for name in names if (path := REPOSITORY / name).is_file()]


def offences(path):
    """What is wrong with a tracked file, if anything."""
    relative = path.relative_to(REPOSITORY)
    if relative.parts[0] == "results" and relative.parts[1] not in ("README.md", "reference"):
        yield "generated results are not committed"
    if relative.as_posix() == SHIPPED:
        return
    if path.suffix in WEIGHTS:
        yield "weights and pickles are not committed"
    if path.stat().st_size > MOST_BYTES:
        yield f"larger than {MOST_BYTES} bytes"
    if path.suffix not in (".png", ".gz", ".parquet"):
        text = path.read_text(encoding="utf-8")
        if HOME.search(text) and path.name != "test_repository.py":
            yield f"names a path of one machine: {HOME.search(text).group()}"
        if path.suffix == ".py" and "tests" not in relative.parts and UNSAFE.search(text):
            yield f"runs code from files: {UNSAFE.search(text).group()}"


def test_nothing_is_committed_that_should_not_be():
    found = {str(p.relative_to(REPOSITORY)): list(offences(p)) for p in tracked()}
    assert len(found) > 50
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "name, content",
    [
        ("results/demo/x.json", "{}"),
        ("a/model.safetensors", ""),
        ("a/b.md", "see /home/someone/data"),
        ("a/b.py", "torch.load(path)"),
        ("a/b.json", "0" * (MOST_BYTES + 1)),
    ],
)
def test_each_offence_is_seen(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr("test_repository.REPOSITORY", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert len(list(offences(path))) == 1
