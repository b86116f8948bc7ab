"""The committed decisions: each is its record's, and gives the weights that were measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY

from prunebench.decisions import form
from prunebench.decisions.applying import apply
from prunebench.models import folders
from prunebench.models.shipped import locate
from prunebench.results.check import check, wrong

REFERENCE = REPOSITORY / "results" / "reference"
STORIES = sorted(REFERENCE.glob(f"stories/cells/*/*/*/*/{form.NAME}"))
ALL = sorted(REFERENCE.glob(f"*/cells/*/*/*/*/{form.NAME}"))
SOME = [p for p in STORIES if p.parts[-4] in ("llm_pruner", "magnitude-global")][::3]


def place(path: Path) -> str:
    return "/".join(path.parts[-7:-1])


def rule(folder: Path, name: str = "decisions") -> list[str]:
    """What a rule of `prunebench check` finds."""
    (found,) = (v for v in check(folder) if v.rule.name == name)
    return [f"{path.name} {what}" for path, what in found.findings]


def test_every_cell_of_the_stories_has_a_decision_of_a_kilobyte() -> None:
    records = [
        json.loads(p.read_text()) for p in REFERENCE.glob("stories/cells/*/*/*/*/record.json")
    ]
    assert len(STORIES) == sum(record["cell"]["method"] != "dense" for record in records) == 18
    assert sum(path.stat().st_size for path in STORIES) < 20_000


@pytest.mark.parametrize("run", sorted({p.parts[-7] for p in ALL}))
def test_decisions_are_those_of_their_records(run: str) -> None:
    assert rule(REFERENCE / run) == []


def test_the_check_finds_a_decision_that_is_missing_edited_or_of_another_cell(
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(REFERENCE / "stories", tmp_path / "stories")
    first, second = sorted(folder.glob("cells/*/random/0.5/*/" + form.NAME))[:2]
    shutil.copy(first, second)
    assert rule(folder) == [f"{form.NAME} leads to other weights than the record's"]
    second.write_bytes(first.read_bytes()[:-9])
    (found,) = rule(folder)
    assert "not a whole decision.json.gz" in found
    second.unlink()
    assert rule(folder) == [] and not wrong(check(folder))  # its record names none
    second.with_name("record.json").write_text(named(second.with_name("record.json")))
    assert rule(folder) == [f"{form.NAME} is missing; the record names it"]
    shutil.copy(first, second)
    assert rule(folder) == [f"{form.NAME} is not the decision that the record names"]
    assert rule(folder, "deltas") == [f"{form.DELTA} was not handed on (7 bytes)"]


def named(path: Path) -> str:
    """A record that names a decision and a delta, with its checksum."""
    from prunebench.record import store

    record = store.as_mapping(store.read(path))
    delta = {"status": "ok", "file": form.DELTA, "sha256": "0" * 64, "bytes": 7}
    part = {"status": "ok", "file": form.NAME, "sha256": "0" * 64, "bytes": 9, "delta": delta}
    store.write(path, {**record, "decision_file": part})
    return path.read_text()


def applied(path: Path, tmp_path: Path) -> None:
    """The weights come out with the digest in the record."""
    origin = form.read(path).origin
    if not locate(origin.kind, origin.source).is_dir():
        pytest.skip(f"the checkpoint {origin.source} is not here")
    apply(path, tmp_path / "model")
    recorded = json.loads(path.with_name("record.json").read_text())["model"]["weights_sha256"]
    assert folders.weights_digest(tmp_path / "model") == recorded


@pytest.mark.parametrize("path", SOME, ids=place)
def test_a_few_give_the_measured_weights(path: Path, tmp_path: Path, shared_models: Path) -> None:
    applied(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL, ids=place)
def test_all_give_the_measured_weights(path: Path, tmp_path: Path) -> None:
    applied(path, tmp_path)
